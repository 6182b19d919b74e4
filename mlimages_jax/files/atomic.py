# SPDX-License-Identifier: BSD-3-Clause
"""Atomic file writes: a file gets its name only when it is complete."""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.files.file_locks import NO_LOCKS, is_at

_NO_WRITER = (errno.ELOOP, errno.EACCES, errno.EPERM)  # a link, or a file of another user


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which is renamed to `path` at the end.

    If the block raises, the temporary file is removed and any previous file at `path` is kept.
    Several processes may write the same file at once: each one its own, and the last to end wins.

    Args:
        path: The file. What a killed job left of it is removed.
    """
    # In the same folder, as a rename is atomic only within one file system.
    unfinished = path.with_name(f"{path.name}.unfinished")
    _remove_leftover(unfinished)
    descriptor = _created(unfinished)
    if descriptor is None:  # another process is writing there
        unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
        descriptor = _created(unfinished)
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _remove_leftover(path: Path) -> None:
    """Removes a file whose writer is dead: the lock of `_created` ends with its process."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _NO_WRITER:
            raise
        path.unlink(missing_ok=True)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(path, descriptor):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _created(path: Path) -> int | None:
    """Creates a file and locks it; None if there is one, or another process has just removed it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held by others for as long as they look at it
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(descriptor)
            raise
    if is_at(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None
