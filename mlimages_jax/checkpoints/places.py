# SPDX-License-Identifier: BSD-3-Clause
"""Tells by its path what a checkpoint is: a step folder, a .safetensors file, a Hub model."""

import os
from pathlib import Path

from etils import epath

from mlimages_jax.checkpoints import hub, safetensors, step_folders
from mlimages_jax.checkpoints.saved_file import SavedFile
from mlimages_jax.checkpoints.saved_step import SavedStep, agreed
from mlimages_jax.labels.hierarchy import Hierarchy


def is_file(path: epath.PathLike) -> bool:
    """Tells whether a path names a .safetensors file."""
    return os.fspath(path).endswith(safetensors.SUFFIX)


def local(path: epath.PathLike, *, quietly: bool = False) -> epath.Path:
    """Finds the step folder or the file on this machine, downloading it if need be.

    All processes must call it, and all get the same one.

    Args:
        path: A workdir, its checkpoints folder, a step, a .safetensors file, or an address
            hf://user/name@revision, which is downloaded.
        quietly: Whether to omit the log line that says which of several steps it is.

    Raises:
        FileNotFoundError: There is no checkpoint.
        HubError: The Hub has no such model for this user.
    """
    if hub.is_address(path):
        return epath.Path(hub.download_for_all(path)[0])
    if is_file(path):
        return epath.Path(path)
    resolve = step_folders.resolve_quietly if quietly else step_folders.resolve
    return step_folders.chosen_by_process_0(agreed(lambda: resolve(path)))


def opened(place: epath.Path) -> SavedStep | SavedFile:
    """Opens what is saved at a place that `local` returned."""
    return SavedFile(Path(place)) if is_file(place) else SavedStep(place)


def classes_at(place: epath.Path) -> Hierarchy | None:
    """Reads the classes that were saved with a checkpoint; None if there are none.

    Raises:
        HierarchyError: The classes are malformed.
    """
    if is_file(place):
        return SavedFile(Path(place)).hierarchy
    kept = step_folders.classes_of(place)
    return Hierarchy.from_file(kept) if kept else None
