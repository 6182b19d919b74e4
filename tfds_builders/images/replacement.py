# SPDX-License-Identifier: BSD-3-Clause
"""Replaces a finished set by another: the old one stays until the new one is complete.

The new set is built as `1.0.0.replacement` and then swapped with `1.0.0` atomically. If the file
system cannot do that, the old set is renamed to `1.0.0.replaced` first. A kill in between leaves
one of these names; `recover` cleans up.
"""

import ctypes
import os
import shutil
from pathlib import Path

from absl import logging

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from linux/fcntl.h and linux/fs.h


def new(folder: Path) -> Path:
    """Returns the folder in which the replacement of `folder` is built."""
    return folder.with_name(f"{folder.name}.replacement")


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.replaced")


def swap(folder: Path) -> None:
    """Replaces `folder` by `new(folder)`, which is complete, and deletes the old set."""
    if not _exchange(new(folder), folder):
        folder.rename(_old(folder))
        new(folder).rename(folder)
    _remove(folder)


def interrupted(folder: Path) -> bool:
    """Returns whether a replacement of this set was killed halfway."""
    return new(folder).exists() or _old(folder).exists()


def recover(folder: Path) -> None:
    """Cleans up after a killed replacement: `folder` is a complete set afterwards.

    If the old set is still in place, a new one that was not swapped in is deleted: it is unknown
    which of two complete folders is the new one, and its waiting shards soon make another.
    """
    if not folder.exists():
        # The old set was moved away, which only happens once the new one is complete.
        found = new(folder) if new(folder).exists() else _old(folder)
        found.rename(folder)
        logging.warning("%s: completed a replacement that was interrupted earlier", folder)
    _remove(folder)


def _remove(folder: Path) -> None:
    for beside in (new(folder), _old(folder)):
        if beside.exists():
            shutil.rmtree(beside)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps the names of two folders atomically; returns False if the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or another C library
        return False
    names = os.fsencode(one), os.fsencode(other)
    # Fails on file systems without RENAME_EXCHANGE, such as NFS; the caller then renames twice.
    return renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
