# SPDX-License-Identifier: BSD-3-Clause
"""Chooses the checkpoints that a task evaluates, and waits for those of a running training."""

import math
import time
from collections.abc import Iterator

from absl import logging
from etils import epath

from mlimages_jax.checkpoints import manager, step_folders
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError, VanishedCheckpointError
from mlimages_jax.distributed import preemption
from mlimages_jax.settings import Evaluate


def checkpoints_to_evaluate(config: Evaluate) -> Iterator[epath.Path]:
    """Yields the step folders to evaluate, the same on all processes.

    With `which="new"` it waits for checkpoints that a running training writes, up to its last step.

    Args:
        config: Settings of the task: `checkpoint`, `which`, `poll_seconds` and `wait_minutes`.

    Raises:
        FileNotFoundError: If there is none, or none was written in time.
        Preempted: If asked to stop while waiting.
    """
    if config.which == "best":
        yield step_folders.chosen_by_process_0(manager.best(config.checkpoint))
        return
    if config.which != "new":
        step_folders.resolve_quietly(config.checkpoint)  # its error explains what is missing
        found = manager.find(config.checkpoint)
        yield from (
            step_folders.chosen_by_process_0(folder)
            for folder in (found[-1:] if config.which == "latest" else found)
        )
        return
    done: set[epath.Path] = set()
    deadline = time.monotonic() + 60 * config.wait_minutes
    while time.monotonic() < deadline:
        fresh = [folder for folder in manager.find(config.checkpoint) if folder not in done]
        if not fresh:
            time.sleep(config.poll_seconds)
            preemption.check()
            continue
        # The oldest first: a training deletes old steps, and results are wanted in their order.
        folder = step_folders.chosen_by_process_0(fresh[0])
        done.add(folder)
        yield folder
        # The last step of the training: there will be no further checkpoint.
        if int(folder.name) >= _total_steps(folder):
            return
        deadline = time.monotonic() + 60 * config.wait_minutes
    logging.warning(
        "no new checkpoint in %s for %.0f minutes: done", config.checkpoint,
        config.wait_minutes,
    )  # fmt: skip
    if not done:
        step_folders.resolve_quietly(config.checkpoint)  # its error explains what is missing


def _total_steps(folder: epath.Path) -> float:
    """Returns the last step of a checkpoint's training; inf if the checkpoint has been deleted."""
    try:
        return float(manager.config_of(folder).get("total_steps", math.inf))
    except (DamagedCheckpointError, VanishedCheckpointError):
        return math.inf
