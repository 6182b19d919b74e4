# SPDX-License-Identifier: BSD-3-Clause
"""One program a workdir: who comes second is told in a line who was first.

On a disk it is a flock, which the kernel takes back when the process ends, however it ends; in a
bucket see `object_lock`. Process 0 holds it for all processes of a task.
"""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from etils import epath

from mlimages_jax.distributed import processes
from mlimages_jax.distributed.object_lock import HeldElsewhereError, ObjectLock
from mlimages_jax.distributed.process_identity import Owner
from mlimages_jax.files import paths
from mlimages_jax.files.remote import is_remote

NAME = "run.lock"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of file systems that have none
_held: dict[str, int] = {}  # file of a lock that this task holds -> the thread that asked for it
_descriptors: set[int] = set()


class WorkdirInUseError(RuntimeError):
    """Another program writes to the workdir."""


@contextlib.contextmanager
def held(folder: epath.PathLike, *, task: str, name: str = NAME) -> Iterator[None]:
    """Holds a folder for this task on all its processes, which enter together.

    Within a block that holds it the same thread may hold it again.

    Args:
        folder: made when absent.
        task: what is done, for the message of whoever comes second.
        name: of the lock's file, for what else than a workdir is written by one only.

    Raises:
        WorkdirInUseError: another program holds it; says who.
    """
    folder = paths.absolute(folder)
    file = f"{folder}/{name}"
    if _held.get(file) == threading.get_ident():
        yield
        return
    lock, refusal = None, ""
    if processes.process_number() == 0:
        try:
            lock = _take(file, Owner.this(task))
        except HeldElsewhereError as error:
            refusal = (
                f"{folder} is in use by {error.owner or 'another process'}: wait until it ends, "
                "stop it, or give another --workdir"
            )
    try:
        if refusal := processes.exchanged(refusal)[0]:
            raise WorkdirInUseError(refusal)
        _held[file] = threading.get_ident()
        yield
    finally:
        if not refusal:
            _held.pop(file, None)
        if lock:
            lock.release()


def _take(file: str, owner: Owner) -> "FileLock | ObjectLock | None":
    """Takes hold; None where there are no locks.

    Raises:
        HeldElsewhereError: another process has it.
    """
    if not is_remote(file):
        try:
            return FileLock(Path(file), owner)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            reason = f"its file system has no locks ({error.strerror})"
    elif not file.startswith("gs://"):
        reason = "locks in buckets are made for gs:// only"
    else:
        try:
            return ObjectLock(file, owner)
        except ImportError as error:
            reason = str(error)
    logging.warning("%s: nothing keeps a second program out: %s", file, reason)
    return None


class FileLock:
    """A flock that is held from here on until `release`, or the end of the process.

    Args:
        path: of its file, which says who holds it and is removed at the end.
        owner: this process.

    Raises:
        HeldElsewhereError: another process holds it.
        OSError: the file cannot be written, or its file system has no locks.
    """

    def __init__(self, path: Path, owner: Owner):
        self._path = path
        self._made_folder = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = self._open()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, owner.text().encode(), 0)
        _descriptors.add(self._descriptor)

    def release(self) -> None:
        """Lets the next one in."""
        with contextlib.suppress(OSError):  # the folder was removed
            self._path.unlink()
            if self._made_folder:  # a refused start leaves nothing; what holds anything stays
                self._path.parent.rmdir()
        _descriptors.discard(self._descriptor)
        os.close(self._descriptor)

    def _open(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its holder may have removed it between our two calls: then it locks nothing.
                if _is_at(self._path, descriptor):
                    return descriptor
            except BlockingIOError:
                owner = Owner.read(os.pread(descriptor, 4_096, 0))
                os.close(descriptor)
                raise HeldElsewhereError(owner) from None
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one with this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _leave_to_parent() -> None:
    """In a fork: a reader that outlives a killed training would hold the lock for it."""
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
