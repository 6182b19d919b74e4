# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints by Orbax: asynchronous, free of topology, checked before they are believed.

Only this file and `saved_step` import orbax. A checkpoint is a plain tree of global arrays
(`step`, `params`, `batch_stats`, `opt_state`, `class_counts`, `averages`) without any trace of the
number of processes or devices, and the digests of all of them; the position in the data is `step`.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from logging import Handler, LogRecord
from types import TracebackType
from typing import Any

import jax
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from mlimages_jax.checkpoints import array_digests
from mlimages_jax.checkpoints.compatibility import check_fit
from mlimages_jax.checkpoints.saved_step import (
    STATE,
    DamagedCheckpointError,
    SavedStep,
    agreed,
    like_saved,
    placed,
)
from mlimages_jax.checkpoints.step_folders import (
    absolute,
    names_aside,
    set_aside,
    set_aside_broken,
)
from mlimages_jax.checkpoints.step_folders import classes_of as classes_of
from mlimages_jax.checkpoints.step_folders import find as find
from mlimages_jax.checkpoints.step_folders import latest_step as latest_step
from mlimages_jax.checkpoints.step_folders import resolve as resolve
from mlimages_jax.distributed import processes
from mlimages_jax.step.state import TrainState

HEAD = "head"  # the module whose shape follows the number of classes


class CheckpointWriteError(RuntimeError):
    """A checkpoint could not be written; those before it are as they were."""


class _Failure(Handler):
    """Takes the error of a save in the background from the log, where Orbax tells it first."""

    error: BaseException | None = None

    def emit(self, record: LogRecord) -> None:
        if record.threadName == "async_save" and record.exc_info:
            self.error = record.exc_info[1]


class Checkpoints:
    """The checkpoints of a run, `directory/<step>`; use it as a context manager.

    Attributes:
        directory: made when absent. Remains of a save that was killed are removed at the start.
    """

    def __init__(
        self, directory: epath.PathLike, *, keep_latest: int = 3, keep_every: int | None = None
    ):
        policies = ocp.training.preservation_policies
        keep: list[Any] = [policies.LatestN(keep_latest)]
        if keep_every:
            keep.append(policies.EveryNSteps(keep_every))
        self.directory = absolute(directory)
        set_aside_broken(self.directory)
        context = ocp.Context()
        # What Orbax starts before its folder is there waits for it 300 s more when it cannot be
        # made, in threads that hold the process.
        context.asynchronous.create_directories_asynchronously = False
        self._saving: Any = None
        self._begun = True  # every save so far
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            context=context,
            preservation_policy=policies.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=True,
        )
        self._failure = _Failure()
        logging.get_absl_logger().addHandler(self._failure)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for a save in progress, also when the run failed.

        Raises:
            CheckpointWriteError: when that fails, unless the run did before.
        """
        try:
            if self._begun and not isinstance(error, CheckpointWriteError):
                self._wait()
                with self._writing():
                    self._checkpointer.close()
        except CheckpointWriteError as failed:
            if error is None:
                raise
            logging.error("%s", failed)
        finally:
            logging.get_absl_logger().removeHandler(self._failure)

    @property
    def steps(self) -> list[int]:
        """The steps that can be restored, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def save(self, state: TrainState, *, step: int, config: dict[str, Any]) -> None:
        """Starts to save, unless the step is saved; returns when the state may be donated.

        Args:
            state: to save.
            step: equals state.step, which the host should not wait for.
            config: JSON values kept beside the arrays, compared by `config_of`.

        Raises:
            CheckpointWriteError: this save or the one before failed.
        """
        if step not in self.steps:
            self._wait()
            self._begun = False  # Orbax would say for ever that it is saving
            with self._writing():
                tree = _tree(state)
                parts = {
                    STATE: tree,
                    array_digests.FOLDER: array_digests.ArrayDigests(tree, config),
                }
                self._saving = self._checkpointer.save_checkpointables_async(
                    step, parts, force=True, custom_metadata=config
                )
            self._begun = True

    def check(self) -> None:
        """Finds out, without waiting, whether the save in the background has failed.

        Raises:
            CheckpointWriteError: it has.
        """
        with self._writing():
            if self._failure.error is not None:
                raise self._failure.error

    def _wait(self) -> None:
        """Waits for the save in the background, and no longer when it has failed.

        Orbax would wait for the other processes then, twenty minutes, before it tells the error.
        """
        while self._checkpointer.is_saving_in_progress():
            self.check()
            time.sleep(0.01)
        self.check()
        if self._saving is not None:  # its thread and its three descriptors live until it is asked
            saving, self._saving = self._saving, None
            with self._writing():
                saving.result()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says what to do about a disk that is full or read-only, which comes in many forms."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise CheckpointWriteError(
                f"a checkpoint could not be written to {self.directory}: {_last_line(error)}. The "
                "ones before it are whole. Make room there, or make it writable, and start the "
                "same command again"
            ) from error

    def restore(self, like: TrainState, *, step: int | None = None) -> TrainState:
        """Restores a state into the shardings of `like`.

        Args:
            like: tree of ShapeDtypeStruct with shardings.
            step: None takes the latest.

        Raises:
            FileNotFoundError: when there is no such step.
            DamagedCheckpointError: an array is not what was saved, or cannot be read.
            CheckpointMismatchError: lists every leaf that is missing, extra or of another shape.
        """
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            raise FileNotFoundError(f"{self.directory} has no step {step}; it has {steps}")
        saved = SavedStep(self.directory / str(steps[-1] if step is None else step))
        tree = _tree(like)

        def read() -> Any:
            check_fit(saved.tree, tree, where=saved.folder)
            return saved.arrays(tree)

        return TrainState(**placed(agreed(read), tree))

    def config_of(self, step: int) -> dict[str, Any]:
        """The JSON values that were saved with a step.

        Raises:
            DamagedCheckpointError: they are not what was saved.
        """
        return agreed(lambda: SavedStep(self.directory / str(step)).config)

    def newest(self) -> int | None:
        """The last of `steps`, as process 0 sees it: a shared disk may be slow to show it all."""
        seen = processes.exchanged(json.dumps(self.steps[-1:]))[0]
        return next(iter(json.loads(seen)), None)

    def set_aside(self, step: int, why: Exception) -> None:
        """Gives a step that cannot be restored another name, so that the one before is the newest.

        Args:
            step: one of `steps`.
            why: the error that it was met with.
        """
        set_aside(self.directory, {step: str(why)})
        self._checkpointer.reload()

    def check_any_left(self) -> None:
        """To be asked before a training begins from the start.

        Raises:
            DamagedCheckpointError: there were checkpoints, and all of them are damaged.
        """
        aside = names_aside(self.directory)
        if aside and not self.steps:
            raise DamagedCheckpointError(
                f"no checkpoint of {self.directory} is whole: {', '.join(aside)} were damaged. "
                "Bring one back from a copy, or give another --workdir (with --config.init_from to "
                f"start from other weights); to start again here, delete {self.directory}"
            )


def load(path: epath.PathLike) -> dict[str, Any]:
    """A whole checkpoint as plain nested containers of arrays on this process's first devices.

    Args:
        path: a workdir, a checkpoint folder or a step.

    Returns:
        {"step", "params", "batch_stats", "opt_state", "class_counts", "averages"}.

    Raises:
        FileNotFoundError: when there is no checkpoint.
    """
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        like = like_saved(saved.tree, alone)
        return saved.arrays(like), like

    return placed(*agreed(read))


def config_of(path: epath.PathLike) -> dict[str, Any]:
    """The JSON values saved with a checkpoint; empty when there are none.

    Raises:
        FileNotFoundError: when there is no checkpoint.
        DamagedCheckpointError: they are not what was saved.
    """
    return SavedStep(resolve(path)).config


def load_weights(
    path: epath.PathLike, place: jax.sharding.Sharding, *, averaged: bool = True
) -> dict[str, Any]:
    """Parameters and running statistics alone.

    Args:
        path: a workdir, a checkpoint folder or a step.
        place: where every array goes.
        averaged: take the averages where the checkpoint has them.

    Returns:
        {"params", "batch_stats"}, nested dicts of arrays.

    Raises:
        FileNotFoundError: when there is no checkpoint.
    """

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        tree, prefix = _weights_in(saved.tree, averaged=averaged)
        like = like_saved(tree, place)
        return saved.arrays(like, prefix=prefix), like

    return placed(*agreed(read))


def restore_weights(path: epath.PathLike, like: TrainState) -> dict[str, Any]:
    """Parameters and running statistics of another run, to start from.

    The averaged ones are taken where the checkpoint has them. A classifier for another number of
    classes is left out; everything else has to fit.

    Args:
        path: a workdir, a checkpoint folder or a step.
        like: gives names, shapes, dtypes and shardings.

    Returns:
        {"params", "batch_stats"}; "params" lacks "head" where the classes differ in number.

    Raises:
        FileNotFoundError: when there is no checkpoint.
        CheckpointMismatchError: lists the leaves that differ.
    """

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        wanted = like.weights
        tree, prefix = _weights_in(saved.tree, averaged=True)
        if not _same_head(tree["params"], wanted["params"]):
            wanted, tree = _without_head(wanted), _without_head(tree)
        check_fit(tree, wanted, where=saved.folder)
        return saved.arrays(wanted, prefix=prefix), wanted

    return placed(*agreed(read))


def _weights_in(tree: dict[str, Any], *, averaged: bool) -> tuple[dict[str, Any], str]:
    """Of a saved tree: its weights, and the name that they are under ("" for none)."""
    prefix = "averages" if averaged and tree.get("averages") else ""
    tree = tree[prefix] if prefix else tree
    return {name: tree.get(name) or {} for name in ("params", "batch_stats")}, prefix


def _same_head(saved: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """False when only the number of classes differs."""
    theirs, ours = (tree.get(HEAD, {}).get("kernel") for tree in (saved, wanted))
    if theirs is None or ours is None or theirs.shape[0] != ours.shape[0]:
        return True  # not a matter of classes: `check_fit` tells
    return theirs.shape == ours.shape


def _without_head(weights: dict[str, Any]) -> dict[str, Any]:
    params = {name: module for name, module in weights["params"].items() if name != HEAD}
    return {**weights, "params": params}


def _tree(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
