# SPDX-License-Identifier: BSD-3-Clause
"""Copies of a data set's files on a local disk: object storage reads single records slowly.

A copy is stored under the full path of its source, so that sets never mix. It counts as complete
if its size and modification time (in seconds) equal those of the source, like rsync's quick check;
otherwise it is copied again. A file gets its final name only when it is complete.
"""

import concurrent.futures
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging
from etils import epath

from mlimages_jax.files.remote import is_remote

_THREADS = 8  # parallel files: one stream of object storage is far slower than the network
_BLOCK = 2**24  # bytes
_LOG_SECONDS = 10
_FULL = (errno.ENOSPC, errno.EDQUOT)


class LocalCopyError(OSError):
    """Raised when a file cannot be copied; the message says which and why."""


class _Copy(NamedTuple):
    """A file to copy: source, target, and the source's size and modification time."""

    source: epath.Path
    target: Path
    size: int
    changed: int

    @property
    def unfinished(self) -> Path:
        return self.target.with_name(f"{self.target.name}.copying")

    def is_complete(self) -> bool:
        """Returns whether the copy exists and passes the quick check."""
        try:
            found = self.target.stat()
        except FileNotFoundError:
            return False
        return (found.st_size, int(found.st_mtime)) == (self.size, self.changed)

    def bytes_left(self) -> int:
        """Returns the bytes still to be written; another process may be writing them."""
        try:
            return max(0, self.size - self.unfinished.stat().st_size)
        except FileNotFoundError:
            return self.size


def local_path(source: epath.PathLike, copy_to: epath.PathLike) -> Path:
    """Returns the path of a copy: gs://bucket/set/file becomes copy_to/gs/bucket/set/file."""
    name = os.fspath(source)
    name = name.replace("://", "/") if is_remote(name) else os.path.abspath(name)  # noqa: PTH100  # keeps links
    return Path(copy_to, name.lstrip("/"))


def copy_shards(sources: Sequence[epath.Path], copy_to: epath.PathLike) -> None:
    """Copies the files that are missing; several processes may do so at the same time.

    Args:
        sources: Files that `epath` can read.
        copy_to: A folder on a local disk, see `local_path`.

    Raises:
        FileNotFoundError: If a source is missing.
        LocalCopyError: If the disk is too small, or copying fails.
    """
    begin = time.perf_counter()
    folder = Path(copy_to)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalCopyError(f"{error}: give another folder in config.data.copy_to") from error
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        copies = list(pool.map(lambda source: _look(source, folder), sources))
        left = [copy for copy in copies if not copy.is_complete()]
        if not left:
            logging.info("all %d files are in %s", len(copies), folder)
            return
        _check_space(left, folder)
        progress = _Progress(len(left), sum(copy.size for copy in left), folder, begin)
        tasks = [pool.submit(_make, copy, progress) for copy in left]
        try:
            for task in concurrent.futures.as_completed(tasks):
                task.result()
        except OSError as error:
            for task in tasks:
                task.cancel()
            if error.errno in _FULL:
                _check_space(left, folder, full=True)
            raise
    progress.finish()


def _look(source: epath.Path, folder: Path) -> _Copy:
    """Reads size and modification time of a source."""
    try:
        if is_remote(source):
            found = source.stat()
            size, changed = found.length, found.mtime
        else:  # not etils: it also looks up the owner's name, which a container may not know
            here = os.stat(source)  # noqa: PTH116  # an etils path
            size, changed = here.st_size, int(here.st_mtime)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{source} is missing: copy it from where the data set was built, or build it again"
        ) from error
    return _Copy(source, local_path(source, folder), size, changed)


def _check_space(left: Sequence[_Copy], folder: Path, *, full: bool = False) -> None:
    """Raises LocalCopyError if the files do not fit, or if `full`: the disk has reported it."""
    needed = sum(copy.bytes_left() for copy in left if not copy.is_complete())
    free = shutil.disk_usage(folder).free
    if full or needed > free:
        raise LocalCopyError(
            f"{folder} is full: {len(left):,} files of this process still need {needed / 1e9:,.2f} "
            f"GB, but {free / 1e9:,.2f} GB are free. Free some space, give a folder on a larger "
            "disk in config.data.copy_to, or reduce what each process needs: "
            "config.data.order=streams on more hosts"
        )


def _make(copy: _Copy, progress: "_Progress") -> None:
    """Copies one file, unless another process or thread has completed it in the meantime.

    The lock is on the unfinished file. Only a completed copy removes that file, and a process that
    waited for the lock checks again, so nobody writes to a deleted file.
    """
    copy.target.parent.mkdir(parents=True, exist_ok=True)
    # "ab" creates the file and leaves its contents alone: another process may be writing them.
    with copy.unfinished.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the process ends, even if it is killed
        if copy.is_complete():
            copy.unfinished.unlink(missing_ok=True)
            progress.add(copy.size)
        else:
            file.truncate(0)
            written = 0
            with copy.source.open("rb") as source:
                while block := source.read(_BLOCK):
                    written += file.write(block)
                    progress.add(len(block))
            if written != copy.size:
                raise LocalCopyError(
                    f"{copy.source}: only {written:,} of {copy.size:,} bytes received: start again"
                )
            file.flush()
            # Contents and time come before the final name: whoever sees that name relies on both,
            # even after a power failure.
            os.fsync(file.fileno())
            os.utime(file.fileno(), (copy.changed, copy.changed))
            copy.unfinished.replace(copy.target)
    progress.add_file()


class _Progress:
    """Logs the progress of copying every few seconds; thread-safe."""

    def __init__(self, num_files: int, num_bytes: int, folder: Path, begin: float):
        self._num_files, self._num_bytes, self._folder = num_files, num_bytes, folder
        self._begin = begin
        self._files = self._bytes = 0
        self._lock = threading.Lock()

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._bytes += num_bytes
            rate = self._bytes / (time.perf_counter() - self._begin)
            logging.log_every_n_seconds(
                logging.INFO,
                "copying to %s: %d of %d files, %.2f of %.2f GB, %.0f MB/s, %.0f s left",
                _LOG_SECONDS,
                self._folder, self._files, self._num_files, self._bytes / 1e9,
                self._num_bytes / 1e9, rate / 1e6, (self._num_bytes - self._bytes) / max(rate, 1),
            )  # fmt: skip

    def add_file(self) -> None:
        with self._lock:
            self._files += 1

    def finish(self) -> None:
        seconds = time.perf_counter() - self._begin
        logging.info(
            "copied %d files to %s: %.2f GB in %.0f s, %.0f MB/s",
            self._files, self._folder, self._bytes / 1e9, seconds, self._bytes / seconds / 1e6,
        )  # fmt: skip
