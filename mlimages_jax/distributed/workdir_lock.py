# SPDX-License-Identifier: BSD-3-Clause
"""Locks a workdir, so that only one program writes to it; a second one learns who holds it.

On a local disk this is a flock, which the kernel releases however the process ends; for buckets see
`object_lock`. Process 0 holds the lock for all processes of a job.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from etils import epath

from mlimages_jax.distributed import collectives, object_lock
from mlimages_jax.distributed.object_lock import HeldElsewhereError, ObjectLock
from mlimages_jax.distributed.process_identity import Owner
from mlimages_jax.files import paths
from mlimages_jax.files.file_locks import NO_LOCKS, is_at
from mlimages_jax.files.remote import is_remote

NAME = "run.lock"
_held: dict[str, int] = {}  # lock file held by this process -> thread that holds it
_descriptors: set[int] = set()


class WorkdirInUseError(RuntimeError):
    """Another program is using the workdir."""


@contextlib.contextmanager
def held(
    folder: epath.PathLike, *, task: str, name: str = NAME, shared: bool = False
) -> Iterator[None]:
    """Locks a folder for all processes of this job, which must enter together.

    The lock is reentrant within a thread.

    Args:
        folder: Folder to lock, created if missing.
        task: What this program does, for the message to a second one.
        name: Name of the lock file, for locking other outputs than a workdir.
        shared: Whether others may hold it too that say so; on disks only.

    Raises:
        WorkdirInUseError: Another program holds the lock; the message says which.
    """
    folder = paths.absolute(folder)
    file = f"{folder}/{name}"
    # A task may call another one in the same workdir, as the tagger calls the training.
    if _held.get(file) == threading.get_ident():
        yield
        return
    lock, refusal = None, ""
    if collectives.process_number() == 0:
        try:
            lock = _take(file, Owner.this(task), shared=shared)
        except HeldElsewhereError as error:
            refusal = (
                f"{folder} is in use by {error.owner or 'another process'}: wait until it ends, "
                "stop it, or give another --workdir"
            )
    try:
        # All processes get here, whether or not process 0 has the lock. If it raised alone, the
        # others would wait for it.
        if refusal := collectives.of_process_0(refusal):
            raise WorkdirInUseError(refusal)
        _held[file] = threading.get_ident()
        yield
    finally:
        if not refusal:
            _held.pop(file, None)
        if lock:
            lock.release()


def _take(file: str, owner: Owner, *, shared: bool) -> "FileLock | ObjectLock | None":
    """Takes the lock; None if the storage has no locks, or none that can be shared.

    Raises:
        HeldElsewhereError: Another process holds it.
    """
    if is_remote(file) and shared:
        return None
    if not is_remote(file):
        try:
            return FileLock(Path(file), owner, shared=shared)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            reason = f"its file system has no locks ({error.strerror})"
    elif not file.startswith("gs://"):
        reason = "only gs:// buckets can be locked"
    else:
        try:
            return object_lock.take(file, owner)
        except ImportError as error:
            reason = str(error)
    logging.warning("%s: cannot prevent a second program from using it: %s", file, reason)
    return None


class FileLock:
    """A flock that is held from construction until `release` or the end of the process.

    Args:
        path: Lock file, which names the holder and is removed on release.
        owner: Description of this process.
        shared: Whether others may hold it too that say so.

    Raises:
        HeldElsewhereError: Another process holds the lock.
        OSError: The file cannot be written, or its file system has no locks.
    """

    def __init__(self, path: Path, owner: Owner, *, shared: bool = False):
        self._path, self._shared = path, shared
        self._made_folder = not path.parent.exists()
        self._descriptor = self._open()
        # Only now, and not by O_TRUNC on opening: until the lock is ours, the file names its
        # holder.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, owner.text().encode(), 0)
        _descriptors.add(self._descriptor)

    def release(self) -> None:
        """Releases the lock."""
        with contextlib.suppress(OSError):  # the folder was removed
            # While the lock is still held: once it is released, the file may be that of the next
            # program.
            if not self._shared:  # others may still hold it
                self._path.unlink()
            if self._made_folder:  # leave no trace of a refused start; rmdir fails if not empty
                self._path.parent.rmdir()
        _descriptors.discard(self._descriptor)
        os.close(self._descriptor)

    def _open(self) -> int:
        kind = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
        while True:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                if self._path.is_symlink():  # that leads nowhere
                    raise
                continue  # a folder of claims, removed by whoever finished the work
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                # The holder may have unlinked the file between our two calls; locking an unlinked
                # file would exclude nobody.
                if is_at(self._path, descriptor):
                    return descriptor
            except BlockingIOError:
                owner = Owner.read(os.pread(descriptor, 4_096, 0))
                os.close(descriptor)
                raise HeldElsewhereError(owner) from None
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _leave_to_parent() -> None:
    """Closes inherited locks after a fork.

    Otherwise a data worker that outlives a killed training would keep its lock.
    """
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
