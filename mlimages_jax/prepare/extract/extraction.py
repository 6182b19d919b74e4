# SPDX-License-Identifier: BSD-3-Clause
"""Extracts images from archives: one thread walks the archive, others verify and write images."""

import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.data.archives import (
    MAX_MEMBER_BYTES,
    Archive,
    ArchiveError,
    Member,
    folder_of,
    is_tar,
)
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.byte_budget import ByteBudget
from mlimages_jax.prepare.extract.finished_tars import Finished
from mlimages_jax.prepare.extract.selection import Selection
from mlimages_jax.prepare.extract.tally import Tally
from mlimages_jax.prepare.internal_errors import INTERNAL, InternalErrors, describe
from mlimages_jax.prepare.sink import Kept, Sink
from mlimages_jax.prepare.storing import Expected, StorageError, UnwantedFileError, writing
from mlimages_jax.prepare.threads import in_threads

_ROWS = 1000  # rows after which they are written, if that is due
_UNREADABLE = "unreadable"
_HELD_BYTES = MAX_MEMBER_BYTES  # of members read but not yet stored


class Extraction:
    """Extracts the wanted images from archives; must be entered as a context manager.

    Results are recorded in the order of the archive; an inner tar counts as finished once the rows
    of all its images are written.

    Args:
        selection: Decides which members are extracted.
        sink: Keeps the images and their outcomes.
        finished: Inner tars to skip.
        scratch: Folder for files that are about to be stored.
        short_side: Shrink larger images to this short side in pixels.
        workers: Number of threads that decode.
        has: Returns whether this job does an entry of an archive, given its name.
    """

    def __init__(
        self,
        selection: Selection,
        sink: Sink,
        finished: Finished,
        *,
        scratch: Path,
        short_side: int | None,
        workers: int,
        has: Callable[[str], bool] = lambda name: True,
    ):
        self._selection, self._sink, self._finished = selection, sink, finished
        self._unfinished, self._has = scratch, has
        self._short_side = short_side
        self._workers = workers
        self._added = 0
        self._budget = ByteBudget(_HELD_BYTES)
        self._internal = InternalErrors(advice="the same command retries these images")

    def __enter__(self) -> "Extraction":
        shutil.rmtree(self._unfinished, ignore_errors=True)  # left by a killed job
        with writing(self._unfinished):
            self._unfinished.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._unfinished, ignore_errors=True)
        with contextlib.suppress(StorageError):  # must not hide the first error
            self._sink.flush()

    def take(self, path: Path) -> Tally:
        """Extracts the wanted images of one archive.

        Raises:
            PrepareError: The file is not a tar archive.
            StorageError: The disk cannot be written to.
        """
        tally, start = Tally(path), time.monotonic()
        try:
            with Archive(path) as archive, ThreadPoolExecutor(self._workers) as pool:
                for task, future in in_threads(pool, self._do, self._tasks(archive, tally)):
                    self._settle(task, future.result(), tally)
        except ArchiveError as error:
            raise PrepareError(str(error)) from error
        self._sink.flush()
        tally.seconds = time.monotonic() - start
        return tally

    def _tasks(self, archive: Archive, tally: Tally) -> Iterator["_Store | _Finish"]:
        """Yields the tasks of an archive in order, and advances the progress bar."""
        with progress(archive.size, what=archive.path.name, unit="B") as bar:
            bar.unit_scale = True
            for entry in archive.entries(on_error=tally.problem):
                if not self._has(entry.name):
                    pass
                elif not is_tar(entry):
                    yield from self._selected_task(archive, entry, entry.name, tally)
                elif (archive, entry) in self._finished:
                    tally.finished_before += 1
                else:
                    yield from self._tasks_within(archive, entry, tally)
                bar.set_postfix_str(tally.counts(), refresh=False)
                bar.update(archive.position - bar.n)
            bar.update(archive.size - bar.n)

    def _tasks_within(
        self, archive: Archive, tar: Member, tally: Tally
    ) -> Iterator["_Store | _Finish"]:
        tally.inner_tars += 1
        problems = len(tally.problems)
        for member in archive.entries(within=tar, on_error=tally.problem):
            yield from self._selected_task(
                archive, member, f"{folder_of(tar)}/{member.name}", tally
            )
        # After problems the tar is not finished: a better copy of it may come later.
        if len(tally.problems) == problems:
            yield _Finish(archive, tar)

    def _selected_task(
        self, archive: Archive, member: Member, full_name: str, tally: Tally
    ) -> Iterator["_Store"]:
        tally.members += 1
        name = self._selection.claim(full_name)
        if name is not None:
            task = _Store(archive, member, name)
            # A compressed archive can only be read front to back, so read it in this thread.
            if archive.compressed:
                self._budget.take(task.held_bytes)
                task.content = _read(archive, member)
            yield task

    def _do(self, task: "_Store | _Finish") -> "_Done | None":
        """Reads, verifies and keeps one image; runs in a worker thread.

        Raises:
            PrepareError: The disk cannot be written to.
        """
        if isinstance(task, _Finish):
            return None
        if not task.archive.compressed:
            self._budget.take(task.held_bytes)
        try:
            return self._stored(task)
        except PrepareError:
            raise
        except Exception as error:  # unexpected: one member must not stop the others
            return _Done(_failure(task, INTERNAL, describe(error)))
        finally:
            task.content = None  # free it now: the task still waits for its turn to be recorded
            self._budget.give(task.held_bytes)

    def _stored(self, task: "_Store") -> "_Done":
        content = task.content if task.archive.compressed else _read(task.archive, task.member)
        assert content is not None
        if isinstance(content, Exception):
            return _Done(_failure(task, _UNREADABLE, str(content)))
        # Offsets are unique within an archive, and names of members need not be valid ones of
        # files.
        unfinished = self._unfinished / str(task.member.offset)
        with writing(unfinished):
            unfinished.write_bytes(content)
        try:
            kept = self._sink.keep(
                unfinished, task.name, expected=Expected(), short_side=self._short_side
            )
        except UnwantedFileError as bad:
            self._sink.discard(task.name)  # a killed run may have left a file without a row
            return _Done(_failure(task, bad.reason, str(bad), content))
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        image = Image(
            name=task.name,
            status=OK,
            time=time.time(),
            file=task.name,
            source=task.archive.path.name,
            **kept.stored._asdict(),
        )
        return _Done(image, kept)

    def _settle(self, task: "_Store | _Finish", done: "_Done | None", tally: Tally) -> None:
        # A read error may be temporary, so come back.
        if isinstance(task, _Finish) and not tally.failed[_UNREADABLE]:
            self._finished.add(task.archive, task.tar)
        if done is None:
            return
        image = done.image
        self._sink.add(*done)
        if image.error == INTERNAL:
            self._internal.add(image.name, image.message or "")
        else:
            self._internal.passed()
        if image.status == OK:
            tally.stored += 1
        else:
            tally.failed[str(image.error)] += 1
            self._selection.failed(image.name)
        self._added += 1
        if self._added % _ROWS == 0:
            self._sink.flush(wait=False)


@dataclasses.dataclass
class _Store:
    """An image to store, with its content, or the error of reading it, if already read."""

    archive: Archive
    member: Member
    name: str
    content: bytes | Exception | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes that count against the budget while the image is read and stored."""
        return min(self.member.size, MAX_MEMBER_BYTES)


class _Done(NamedTuple):
    """The outcome of an image, and what its sink needs of it."""

    image: Image
    kept: Kept | None = None


class _Finish(NamedTuple):
    """The end of an inner tar; follows the tasks of its images."""

    archive: Archive
    tar: Member


def _read(archive: Archive, member: Member) -> bytes | Exception:
    try:
        return archive.read(member)
    except (ArchiveError, OSError) as error:
        return error


def _failure(task: _Store, error: str, message: str, content: bytes | None = None) -> Image:
    return Image(
        name=task.name,
        status=FAILED,
        time=time.time(),
        source=task.archive.path.name,
        num_bytes=None if content is None else len(content),
        sha256=None if content is None else hashlib.sha256(content).digest(),
        error=error,
        message=message,
    )
