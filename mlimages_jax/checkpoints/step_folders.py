# SPDX-License-Identifier: BSD-3-Clause
"""Finds the steps in a checkpoint folder by name, and sets damaged ones aside."""

import contextlib
import itertools
from typing import NamedTuple

from absl import logging
from etils import epath

from mlimages_jax.checkpoints import best_record, hub
from mlimages_jax.checkpoints.saved_step import (
    VanishedCheckpointError,
    is_checkpoint,
    structural_problem,
    vanished,
)
from mlimages_jax.distributed import collectives
from mlimages_jax.files.remote import is_remote

FOLDER = "checkpoints"  # inside a workdir
_ASIDE = ".damaged"  # suffix of a step that was set aside


def latest_step(directory: epath.PathLike) -> int | None:
    """Returns the newest finished step in a checkpoint folder, or None."""
    return max(steps_in(epath.Path(directory)), default=None)


def find(path: epath.PathLike) -> list[epath.Path]:
    """Returns the step folders that a path names, oldest first.

    Args:
        path: A step folder, a checkpoint folder or a workdir; need not exist.
    """
    path = absolute(path)
    for folder in (path / FOLDER, path):
        # Sorted as numbers: as names, 10 would come before 9.
        if steps := steps_in(folder):
            return [folder / str(step) for step in sorted(steps)]
    with contextlib.suppress(ValueError):  # checked last, as a workdir may be named like a step
        if _is_step(path.name) and (is_checkpoint(path) or _is_in_checkpoint_folder(path)):
            return [path]
    return []


def resolve(path: epath.PathLike, *, step: int | None = None) -> epath.Path:
    """Returns the step folder to use: the best of those that a path names, else the newest.

    Logs a line if it is the best, see `best_record`.

    Args:
        path: A step folder, a checkpoint folder or a workdir.
        step: The step to use instead.

    Raises:
        FileNotFoundError: The path contains no finished checkpoint, or not this step.
        VanishedCheckpointError: The path names a step that no longer exists.
    """
    folder, found = _resolved(path, step=step)
    # A step that the user named needs no explanation.
    if found and folder != absolute(path):
        logging.info(
            "%s: using the best checkpoint, step %d (%s %.4f); the latest is step %d", path,
            found.step, found.metric, found.value, found.latest,
        )  # fmt: skip
    return folder


def resolve_quietly(path: epath.PathLike) -> epath.Path:
    """Does the same as `resolve` without its log line, for callers that log their choice."""
    return _resolved(path)[0]


def resolve_for_all(path: epath.PathLike) -> epath.Path:
    """Calls `resolve` on process 0 for all: a shared disk may show others an older step.

    Raises:
        FileNotFoundError: The path contains no finished checkpoint.
        VanishedCheckpointError: The path names a step that no longer exists.
    """
    return chosen_by_process_0(resolve(path))


def best(path: epath.PathLike) -> epath.Path:
    """Returns the best of the step folders that a path names.

    Raises:
        FileNotFoundError: No evaluation of them was recorded, or as for `resolve`.
        VanishedCheckpointError: As for `resolve`.
    """
    folder, found = _resolved(path)
    if found is None:
        raise FileNotFoundError(
            f"{path} does not say which checkpoint is the best: train with "
            "--config.checkpoint.best=METRIC, or use the latest"
        )
    return folder


class _Best(NamedTuple):
    step: int
    metric: str
    value: float
    latest: int


def _resolved(path: epath.PathLike, *, step: int | None = None) -> tuple[epath.Path, _Best | None]:
    if hub.is_address(path):
        raise FileNotFoundError(
            f"{path}: this needs a workdir on a disk; `mlimages convert from-safetensors "
            f"--checkpoint={path} --output=W` makes one"
        )
    folders = find(path)
    path = absolute(path)
    if not folders and _is_step(path.name) and path.parent.name == FOLDER and path.parent.exists():
        raise VanishedCheckpointError(vanished(path))
    if not folders:
        raise FileNotFoundError(
            f"{path} contains no checkpoint: give a workdir, its checkpoints folder or a step in it"
        )
    by_step = {int(folder.name): folder for folder in folders}
    if step is not None:
        if step not in by_step:
            raise FileNotFoundError(f"{path} has no step {step}; it has {sorted(by_step)}")
        return by_step[step], None
    found = _best_of(folders)
    return (by_step[found.step], found) if found else (folders[-1], None)


def _best_of(folders: list[epath.Path]) -> _Best | None:
    """Returns the best of some steps; None if no evaluation of them was recorded."""
    try:
        record = best_record.read(folders[0].parent)
    except best_record.BestRecordError as error:
        logging.warning("%s; using the latest checkpoint", error)
        return None
    found = record.best({int(folder.name) for folder in folders}) if record else None
    if not record or not found:
        return None
    return _Best(found.step, record.metric, found.value, latest=int(folders[-1].name))


def chosen_by_process_0(folder: epath.Path) -> epath.Path:
    """Returns process 0's choice of a step, which other processes may not see yet."""
    return folder.parent / collectives.of_process_0(folder.name)


def classes_of(path: epath.PathLike) -> epath.Path | None:
    """Returns the class list in the workdir of a checkpoint, or None."""
    folder = resolve_quietly(path)
    # In the step folder after it was copied alone, next to it, or in the workdir.
    candidates = [parent / "dictionary.txt" for parent in (folder, *list(folder.parents)[:2])]
    return next((file for file in candidates if file.exists()), None)


def set_aside_broken(folder: epath.Path) -> None:
    """Sets aside incomplete steps, so that they do not count among the steps to keep."""
    found: dict[int, str] = {}
    if collectives.process_number() == 0:
        for step in steps_in(folder):
            if problem := structural_problem(folder / str(step)):
                found[step] = f"step {step} of {folder} is damaged: {problem}"
    set_aside(folder, found)


def set_aside(folder: epath.Path, damaged: dict[int, str]) -> None:
    """Renames damaged steps on process 0 and logs that; all processes wait for it.

    Args:
        folder: Folder of the steps.
        damaged: Error message by step.
    """
    if collectives.process_number() == 0:
        others = set(steps_in(folder)) - damaged.keys()
        # Renamed and not deleted: a user may be able to repair them, or restore a file of them.
        for step, why in damaged.items():
            target = _free_name(folder / f"{step}{_ASIDE}")
            (folder / str(step)).rename(target)
            logging.error("%s. Moved to %s: %s", why, target.name, _what_is_lost(step, others))
    # No process may list the steps before they are renamed.
    collectives.barrier("damaged steps are set aside")


def _what_is_lost(step: int, others: set[int]) -> str:
    if max(others, default=-1) > step:
        return "nothing is lost, newer steps exist"
    if not others:
        return "there is no other step"
    return f"resuming from step {max(others)}, {step - max(others)} steps will be repeated"


def names_aside(folder: epath.Path) -> list[str]:
    """Names of the steps that were set aside."""
    if not folder.is_dir():  # object storage has no empty folders
        return []
    marked = (child.name.partition(_ASIDE) for child in folder.iterdir())
    return sorted("".join(name) for name in marked if name[0].isdigit() and name[1])


def steps_in(folder: epath.Path) -> list[int]:
    """Returns the finished steps in a folder, including damaged ones."""
    if not folder.is_dir():
        return []
    numbered = (child for child in folder.iterdir() if _is_step(child.name))
    return [int(child.name) for child in numbered if _is_finished(child)]


def _is_in_checkpoint_folder(path: epath.Path) -> bool:
    """Returns whether a folder that Orbax does not recognise can only be a damaged step."""
    return path.parent.name == FOLDER and path.exists()


def _is_step(name: str) -> bool:
    """Returns whether a name is a step as Orbax writes it: 48, not 048 or non-ASCII digits."""
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _free_name(path: epath.Path) -> epath.Path:
    """Returns the path, with a number appended if it already exists."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists())


def _is_finished(folder: epath.Path) -> bool:
    """Returns whether a save is complete.

    A local save is renamed to its final name at the end. Object storage cannot rename, so Orbax
    writes a marker there instead.
    """
    return not is_remote(folder) or is_checkpoint(folder)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns the absolute path: Orbax rejects relative ones when a background save starts."""
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().resolve()
