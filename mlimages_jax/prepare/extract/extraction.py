# SPDX-License-Identifier: BSD-3-Clause
"""From an archive to files and rows: one thread walks, others check and write the pictures."""

import collections
import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.data.archives import Archive, ArchiveError, Member, folder_of, is_tar
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.extract.wanted import Wanted
from mlimages_jax.prepare.manifest import FAILED, OK, Picture
from mlimages_jax.prepare.progress import progress
from mlimages_jax.prepare.recorder import Recorder
from mlimages_jax.prepare.storing import Expected, StorageError, UnwantedFileError, store, writing
from mlimages_jax.prepare.threads import in_threads
from mlimages_jax.safe_paths import UnsafeNameError, inside

_ROWS = 1000  # written together, at the latest
_SHOWN_PROBLEMS = 10  # of an archive
_UNREADABLE = "unreadable"
_NAMES_THAT_CLASH = (FileExistsError, IsADirectoryError, NotADirectoryError)


@dataclasses.dataclass
class Tally:
    """What happened with one archive.

    Attributes:
        path: of the archive.
        members: files that were passed or taken.
        inner_tars: that were entered.
        finished_before: inner tars that were not, because an earlier run finished them.
        stored: pictures.
        failed: pictures that are not usable, by error.
        problems: what in the archive is not usable, for people.
        seconds: the time it took.
    """

    path: Path
    members: int = 0
    inner_tars: int = 0
    finished_before: int = 0
    stored: int = 0
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    problems: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0

    def problem(self, error: ArchiveError) -> None:
        """Notes what is not usable."""
        self.problems.append(str(error))

    def counts(self) -> str:
        """For one line."""
        return f"{self.stored:,} stored, {self.failed.total():,} failed"

    def __str__(self) -> str:
        failed = ", ".join(f"{count:,} {error}" for error, count in self.failed.most_common())
        lines = [
            f"{self.path}: {self.members:,} files; {self.inner_tars:,} inner tars, and "
            f"{self.finished_before:,} that were finished before",
            f"    stored {self.stored:,} in {self.seconds:,.1f} s; failed: {failed or 'none'}",
            *(f"    {problem}" for problem in self.problems[:_SHOWN_PROBLEMS]),
        ]
        if len(self.problems) > _SHOWN_PROBLEMS:
            lines.append(f"    and {len(self.problems) - _SHOWN_PROBLEMS:,} more such problems")
        return "\n".join(lines)


class FinishedTars:
    """Inner tars that need not be entered again: a text file of one line each.

    Args:
        path: of the file; what cannot be read in it (its last line, after a kill) does not count.
        fingerprint: of the wanted names; lines of other names do not count.
    """

    def __init__(self, path: Path, *, fingerprint: str):
        self._path = path
        self._fingerprint = fingerprint
        self._lines: set[str] = set()
        if path.exists():
            self._lines.update(path.read_text("utf-8", "replace").split("\n")[:-1])

    def __contains__(self, tar: tuple[Archive, Member]) -> bool:
        return self._line(*tar) in self._lines

    def add(self, archive: Archive, tar: Member) -> None:
        """Notes that all wanted pictures of an inner tar have their rows."""
        line = self._line(archive, tar)
        self._lines.add(line)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def forget(self) -> None:
        """Makes all tars be entered again."""
        self._lines.clear()
        with writing(self._path):
            self._path.unlink(missing_ok=True)

    def _line(self, archive: Archive, tar: Member) -> str:
        place = f"{archive.path.name}\t{archive.size}\t{tar.offset}\t{tar.name}"
        return f"{self._fingerprint}\t{place}"


class Extraction:
    """Takes the wanted pictures out of archives; a context manager, which must be entered.

    Results are recorded in the order of the archive; an inner tar counts as finished when the rows
    of all its pictures are written.

    Args:
        wanted: decides which members are taken.
        recorder: of the manifest.
        finished: inner tars that are skipped.
        output: holds images/.
        short_side: shrink larger pictures to this shorter side in pixels.
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
            # What is compressed has to be read here and now.
            content = _read(archive, member) if archive.compressed else None
            yield _Store(archive, member, name, content)

    def _do(self, task: "_Store | _Finish") -> Picture | None:
        """In a worker: reads, checks and writes one picture.

        Raises:
            StorageError: nothing more can be written.
        """
        if isinstance(task, _Finish):
            return None
        content = task.content
        if content is None:
            content = _read(task.archive, task.member)
        if isinstance(content, Exception):
            return _failure(task, _UNREADABLE, content)
        try:
            path = inside(self._images, task.name)
        except UnsafeNameError as error:
            return _failure(task, "unsafe_name", error, content)
        unfinished = self._unfinished / str(task.member.offset)
        with writing(unfinished):
            unfinished.write_bytes(content)
        try:
            stored = store(unfinished, path, expected=Expected(), short_side=self._short_side)
        except UnwantedFileError as bad:
            path.unlink(missing_ok=True)  # a killed run may have left one without a row
            return _failure(task, bad.reason, bad, content)
        except StorageError as error:
            if isinstance(error.__cause__, _NAMES_THAT_CLASH):
                return _failure(task, "name_clash", error.__cause__, content)
            raise
        return Picture(
            name=task.name,
            status=OK,
            time=time.time(),
            file=task.name,
            source=task.archive.path.name,
            **stored._asdict(),
        )

    def _settle(self, task: "_Store | _Finish", picture: Picture | None, tally: Tally) -> None:
        if isinstance(task, _Finish):
            self._recorder.flush()
            if not tally.failed[_UNREADABLE]:  # else the disk may have a better day
                self._finished.add(task.archive, task.tar)
        if picture is None:
            return
        self._recorder.add(picture)
        if picture.status == OK:
            tally.stored += 1
        else:
            tally.failed[str(picture.error)] += 1
            self._wanted.failed(picture.name)
        if len(self._recorder.pending) >= _ROWS:
            self._recorder.flush()


class _Store(NamedTuple):
    """A picture to be stored; `content`, or why there is none, where it had to be read already."""

    archive: Archive
    member: Member
    name: str
    content: bytes | Exception | None


class _Finish(NamedTuple):
    """The end of an inner tar; comes after its pictures."""

    archive: Archive
    tar: Member


def _read(archive: Archive, member: Member) -> bytes | Exception:
    try:
        return archive.read(member)
    except (ArchiveError, OSError) as error:
        return error


def _failure(task: _Store, error: str, message: Exception, content: bytes | None = None) -> Picture:
    return Picture(
        name=task.name,
        status=FAILED,
        time=time.time(),
        source=task.archive.path.name,
        num_bytes=None if content is None else len(content),
        sha256=None if content is None else hashlib.sha256(content).digest(),
        error=error,
        message=str(message),
    )
