# SPDX-License-Identifier: BSD-3-Clause
"""Temporary folders that outlive a killed process only until the next one makes another.

They are in a folder of `TMPDIR` that belongs to the user. Each is locked as long as its process
lives, which the kernel ends however that ends; so whoever can lock one may remove it.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from pathlib import Path

from mlimages_jax.files.file_locks import is_at

_UNFINISHED = "unfinished"


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A folder that is removed like `tempfile.TemporaryDirectory`, or when its process is dead.

    Args:
        prefix: Beginning of its name.

    Raises:
        OSError: `TMPDIR` cannot be written to, or what is there is no folder of this user's.
    """

    def __init__(self, prefix: str = ""):
        parent = shared_folder(_UNFINISHED)
        _remove_dead(parent)
        while True:
            super().__init__(prefix=prefix, dir=parent)
            descriptor = _locked(self.name)
            if descriptor is not None:
                break
            self.cleanup()  # taken for that of a dead process in the moment before it was locked
        weakref.finalize(self, os.close, descriptor)


def shared_folder(name: str) -> Path:
    """Returns a folder in `TMPDIR` that all processes of this user share; creates it.

    Raises:
        OSError: `TMPDIR` cannot be written to, or what is there is no folder of this user's.
    """
    folder = Path(tempfile.gettempdir(), f"mlimages_{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        what = "belongs to another user, or is a link or a file"
        reason = f"{folder.name} in it {what}: set TMPDIR to another folder"
        raise OSError(errno.EACCES, reason, os.fspath(folder.parent))
    path = folder / name
    path.mkdir(exist_ok=True)
    return path


def _locked(folder: str) -> int | None:
    """Locks a new folder; returns its descriptor, None if another process removed it before."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # without locks nobody removes it
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if is_at(Path(folder), descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _remove_dead(parent: Path) -> None:
    """Removes the folders whose processes have ended."""
    for path in parent.iterdir():
        with contextlib.suppress(OSError):  # it is locked, or was removed by another process
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
                # Closing is not enough if another thread has forked: its child has the lock too.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)
