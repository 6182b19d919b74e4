# SPDX-License-Identifier: BSD-3-Clause
"""What lies in a folder of checkpoints, by its names: steps, and those that were set aside."""

import contextlib
import itertools

from absl import logging
from etils import epath

from mlimages_jax.checkpoints.saved_step import (
    VanishedCheckpointError,
    is_checkpoint,
    structural_problem,
    vanished,
)
from mlimages_jax.distributed import processes
from mlimages_jax.files.remote import is_remote

FOLDER = "checkpoints"  # of a workdir
_ASIDE = ".damaged"  # what is behind the number of a step that was set aside


def latest_step(directory: epath.PathLike) -> int | None:
    """The newest finished step under a checkpoint folder, or None."""
    return max(steps_in(epath.Path(directory)), default=None)


def find(path: epath.PathLike) -> list[epath.Path]:
    """The step folders that a path names, oldest first.

    Args:
        path: a step, a checkpoint folder or a workdir; may not exist yet.
    """
    path = absolute(path)
    for folder in (path / FOLDER, path):
        if steps := steps_in(folder):
            return [folder / str(step) for step in sorted(steps)]
    with contextlib.suppress(ValueError):  # last, since a workdir may have a number as its name
        if _is_step(path.name) and (is_checkpoint(path) or _lies_among_steps(path)):
            return [path]
    return []


def resolve(path: epath.PathLike) -> epath.Path:
    """The newest of the step folders that a path names.

    Raises:
        FileNotFoundError: when it names no finished checkpoint.
    """
    folders = find(path)
    path = absolute(path)
    if not folders and _is_step(path.name) and path.parent.name == FOLDER and path.parent.exists():
        raise VanishedCheckpointError(vanished(path))
    if not folders:
        raise FileNotFoundError(
            f"{path} holds no checkpoint: give a workdir, its checkpoints folder, or one step of it"
        )
    return folders[-1]


def classes_of(path: epath.PathLike) -> epath.Path | None:
    """The category file kept in the workdir of a checkpoint, if there is one."""
    folder = resolve(path)
    candidates = [parent / "dictionary.txt" for parent in (folder, *list(folder.parents)[:2])]
    return next((file for file in candidates if file.exists()), None)


def set_aside_broken(folder: epath.Path) -> None:
    """Sets aside what no save has left like this, and must not count among the steps to keep."""
    found: dict[int, str] = {}
    if processes.process_number() == 0:
        for step in steps_in(folder):
            if problem := structural_problem(folder / str(step)):
                found[step] = f"step {step} of {folder} is damaged: {problem}"
    set_aside(folder, found)


def set_aside(folder: epath.Path, damaged: dict[int, str]) -> None:
    """Process 0 gives damaged steps another name, and says so; all processes wait for it.

    Args:
        folder: of the steps.
        damaged: why, by step.
    """
    if processes.process_number() == 0:
        others = set(steps_in(folder)) - damaged.keys()
        for step, why in damaged.items():
            target = _free_name(folder / f"{step}{_ASIDE}")
            (folder / str(step)).rename(target)
            logging.error("%s. Moved to %s: %s", why, target.name, _what_is_lost(step, others))
    processes.exchanged("")


def _what_is_lost(step: int, others: set[int]) -> str:
    if max(others, default=-1) > step:
        return "nothing is lost, newer ones are there"
    if not others:
        return "no other is there"
    return f"going back to step {max(others)}, {step - max(others)} steps are done again"


def names_aside(folder: epath.Path) -> list[str]:
    """What was set aside."""
    if not folder.is_dir():  # in a bucket, a folder without files does not exist
        return []
    marked = (child.name.partition(_ASIDE) for child in folder.iterdir())
    return sorted("".join(name) for name in marked if name[0].isdigit() and name[1])


def steps_in(folder: epath.Path) -> list[int]:
    """The finished steps of a folder, which may be damaged."""
    if not folder.is_dir():
        return []
    numbered = (child for child in folder.iterdir() if _is_step(child.name))
    return [int(child.name) for child in numbered if _is_finished(child)]


def _lies_among_steps(path: epath.Path) -> bool:
    """Whether only damage can be why Orbax does not know a step."""
    return path.parent.name == FOLDER and path.exists()


def _is_step(name: str) -> bool:
    """Whether Orbax would give a step this name: 48, not 048 or another alphabet's digits."""
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _free_name(path: epath.Path) -> epath.Path:
    """The path, with a number behind it where something has its name."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists())


def _is_finished(folder: epath.Path) -> bool:
    """A local save gets its name when it is done; in a bucket, where nothing is renamed, a mark."""
    return not is_remote(folder) or is_checkpoint(folder)


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root: Orbax refuses another when a save in the background begins."""
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().resolve()
