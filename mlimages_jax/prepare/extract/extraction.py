# SPDX-License-Identifier: BSD-3-Clause
"""From an archive to files and rows: one thread walks, others check and write the images."""

import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Iterator
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
from mlimages_jax.files.safe_paths import UnsafeNameError, inside
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.byte_budget import ByteBudget
from mlimages_jax.prepare.extract.finished_tars import FinishedTars
from mlimages_jax.prepare.extract.tally import Tally
from mlimages_jax.prepare.extract.wanted import Wanted
from mlimages_jax.prepare.internal_errors import INTERNAL, InternalErrors, describe
from mlimages_jax.prepare.manifest import FAILED, OK, Image
from mlimages_jax.prepare.recorder import Recorder
from mlimages_jax.prepare.storing import (
    Expected,
    StorageError,
    UnwantedFileError,
    store,
    unless_of_one_name,
    writing,
)
from mlimages_jax.prepare.threads import in_threads

_ROWS = 1000  # written together, at the latest
_UNREADABLE = "unreadable"
_HELD_BYTES = MAX_MEMBER_BYTES  # of members that were read and are not stored yet


class Extraction:
    """Takes the wanted images out of archives; a context manager, which must be entered.

    Results are recorded in the order of the archive; an inner tar counts as finished when the rows
    of all its images are written.

    Args:
        wanted: decides which members are taken.
        recorder: of the manifest.
        finished: inner tars that are skipped.
        output: holds images/.
        short_side: shrink larger images to this shorter side in pixels.
        workers: threads that decode.
    """

    def __init__(
        self,
        wanted: Wanted,
        recorder: Recorder,
        finished: FinishedTars,
        *,
        output: Path,
        short_side: int | None,
        workers: int,
    ):
        self._wanted, self._recorder, self._finished = wanted, recorder, finished
        self._images, self._unfinished = output / "images", output / "extracting"
        self._short_side = short_side
        self._workers = workers
        self._budget = ByteBudget(_HELD_BYTES)
        self._internal = InternalErrors(advice="the same command tries these images again")

    def __enter__(self) -> "Extraction":
        shutil.rmtree(self._unfinished, ignore_errors=True)  # of a job that was killed
        with writing(self._unfinished):
            self._unfinished.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._unfinished, ignore_errors=True)
        with contextlib.suppress(StorageError):  # it would hide the first error
            self._recorder.flush()

    def take(self, path: Path) -> Tally:
        """Takes what is wanted out of one archive.

        Raises:
            PrepareError: it is no tar.
            StorageError: nothing more can be written.
        """
        tally, start = Tally(path), time.monotonic()
        try:
            with Archive(path) as archive, ThreadPoolExecutor(self._workers) as pool:
                for task, future in in_threads(pool, self._do, self._tasks(archive, tally)):
                    self._settle(task, future.result(), tally)
        except ArchiveError as error:
            raise PrepareError(str(error)) from error
        self._recorder.flush()
        tally.seconds = time.monotonic() - start
        return tally

    def _tasks(self, archive: Archive, tally: Tally) -> Iterator["_Store | _Finish"]:
        """Walks through an archive, and shows how far it is."""
        with progress(archive.size, what=archive.path.name, unit="B") as bar:
            bar.unit_scale = True
            for entry in archive.entries(on_error=tally.problem):
                if not is_tar(entry):
                    yield from self._wanted_task(archive, entry, entry.name, tally)
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
            yield from self._wanted_task(archive, member, f"{folder_of(tar)}/{member.name}", tally)
        if len(tally.problems) == problems:  # else it may come again, in a better copy
            yield _Finish(archive, tar)

    def _wanted_task(
        self, archive: Archive, member: Member, full_name: str, tally: Tally
    ) -> Iterator["_Store"]:
        tally.members += 1
        name = self._wanted.claim(full_name)
        if name is not None:
            task = _Store(archive, member, name)
            if archive.compressed:  # it has to be read here and now
                self._budget.take(task.held_bytes)
                task.content = _read(archive, member)
            yield task

    def _do(self, task: "_Store | _Finish") -> Image | None:
        """In a worker: reads, checks and writes one image.

        Raises:
            PrepareError: nothing more can be written.
        """
        if isinstance(task, _Finish):
            return None
        if not task.archive.compressed:
            self._budget.take(task.held_bytes)
        try:
            return self._stored(task)
        except PrepareError:
            raise
        except Exception as error:  # nobody foresaw it, and no member may end the others
            return _failure(task, INTERNAL, describe(error))
        finally:
            task.content = None  # the task itself waits for its turn to be recorded
            self._budget.give(task.held_bytes)

    def _stored(self, task: "_Store") -> Image:
        content = task.content if task.archive.compressed else _read(task.archive, task.member)
        assert content is not None
        if isinstance(content, Exception):
            return _failure(task, _UNREADABLE, str(content))
        try:
            path = inside(self._images, task.name)
        except UnsafeNameError as error:
            return _failure(task, "unsafe_name", str(error), content)
        unfinished = self._unfinished / str(task.member.offset)
        with writing(unfinished):
            unfinished.write_bytes(content)
        try:
            stored = store(unfinished, path, expected=Expected(), short_side=self._short_side)
        except UnwantedFileError as bad:
            with contextlib.suppress(OSError):
                path.unlink()  # a killed run may have left one without a row
            return _failure(task, bad.reason, str(bad), content)
        except StorageError as error:
            alone = unless_of_one_name(error, self._images)
            return _failure(task, alone.reason, str(alone), content)
        return Image(
            name=task.name,
            status=OK,
            time=time.time(),
            file=task.name,
            source=task.archive.path.name,
            **stored._asdict(),
        )

    def _settle(self, task: "_Store | _Finish", image: Image | None, tally: Tally) -> None:
        if isinstance(task, _Finish):
            self._recorder.flush()
            if not tally.failed[_UNREADABLE]:  # else the disk may have a better day
                self._finished.add(task.archive, task.tar)
        if image is None:
            return
        self._recorder.add(image)
        if image.error == INTERNAL:
            self._internal.add(image.name, image.message or "")
        else:
            self._internal.passed()
        if image.status == OK:
            tally.stored += 1
        else:
            tally.failed[str(image.error)] += 1
            self._wanted.failed(image.name)
        if len(self._recorder.pending) >= _ROWS:
            self._recorder.flush()


@dataclasses.dataclass
class _Store:
    """An image to be stored; `content`, or why there is none, where it had to be read already."""

    archive: Archive
    member: Member
    name: str
    content: bytes | Exception | None = None

    @property
    def held_bytes(self) -> int:
        """While it is read and stored."""
        return min(self.member.size, MAX_MEMBER_BYTES)


class _Finish(NamedTuple):
    """The end of an inner tar; comes after its images."""

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
