# SPDX-License-Identifier: BSD-3-Clause
"""A finished set in the place of another: the old one stays until the new one is there.

The new set is built as `1.0.0.replacement` and then changes places with `1.0.0` in one step of the
system. Where the file system cannot do that, the old one is renamed to `1.0.0.replaced` first. A
process that is killed on the way leaves one of these names; `recover` puts that in order.
"""

import ctypes
import os
import shutil
from pathlib import Path

from absl import logging

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def new(folder: Path) -> Path:
    """Where the set is built that is to replace `folder`."""
    return folder.with_name(f"{folder.name}.replacement")


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.replaced")


def swap(folder: Path) -> None:
    """Put `new(folder)`, which is complete, in the place of `folder`, and remove what was there."""
    if not _exchange(new(folder), folder):
        folder.rename(_old(folder))
        new(folder).rename(folder)
    _remove(folder)


def interrupted(folder: Path) -> bool:
    """Whether a replacement of this set was killed on the way."""
    return new(folder).exists() or _old(folder).exists()


def recover(folder: Path) -> None:
    """Put in order what a killed replacement left: under `folder` stands a complete set afterwards.

    A new set that did not get its place is removed where the old one is still there: which of two
    complete folders is the new one is not known then, and the waiting shards make another at once.
    """
    if not folder.exists():
        found = new(folder) if new(folder).exists() else _old(folder)  # only after it was complete
        found.rename(folder)
        logging.warning("%s: an earlier replacement was interrupted; it is complete now", folder)
    _remove(folder)


def _remove(folder: Path) -> None:
    for beside in (new(folder), _old(folder)):
        if beside.exists():
            shutil.rmtree(beside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or another C library
        return False
    names = os.fsencode(one), os.fsencode(other)
    return renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
