# SPDX-License-Identifier: BSD-3-Clause
"""Puts images and outcomes into image shards: the `Sink` of one part of a job."""

import collections
import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.safe_paths import UnsafeNameError, check_name
from mlimages_jax.image_shards import repeated
from mlimages_jax.image_shards.index import digests, effective_rows, find
from mlimages_jax.image_shards.layout import manifest_names
from mlimages_jax.image_shards.manifest_file import ManifestFile
from mlimages_jax.image_shards.outcome import FAILED, OK, Image, printable
from mlimages_jax.image_shards.writer import Full, OpenShard, new_attempt
from mlimages_jax.prepare.sink import Kept
from mlimages_jax.prepare.storing import (
    Expected,
    StorageError,
    UnwantedFileError,
    verified,
    writing,
)

_COMMIT_SECONDS = 600.0  # at most this much work is repeated after a kill
_CONTENTS = 65_536  # contents whose copies are counted as they arrive: the latest ones
_STATES = ["time", "name", "status", "error", "sha256"]  # columns


class ShardSink:
    """Collects rows and images, and commits a shard whenever one is full; a context manager.

    Args:
        folder: The folder of image shards.
        part: Name of the part, with which the names of its shards begin.
        scratch: A local folder for shards that are not committed.
        full: When a shard is complete.
        max_copies: The same bytes under this many names are a placeholder, see `repeated`; further
            ones are not stored. 0 turns this off.
        is_retried: Returns whether failures with an error are to be retried.

    Attributes:
        written: Number of rows committed, by status.
        pending: Names whose row was added, but is not yet committed.

    Raises:
        ImageShardError: A manifest of an earlier run is damaged.
        OSError: The folder cannot be read.
    """

    def __init__(
        self,
        folder: ObjectFolder,
        part: str,
        *,
        scratch: Path,
        full: Full,
        max_copies: int,
        is_retried: Callable[[str | None], bool],
    ):
        self._folder, self._scratch, self._full = folder, scratch, full
        self._attempt, self._number = new_attempt(part), 0
        self._done = done_before(folder, part, is_retried)
        self._copies = _LatestCopies(max_copies)
        self._pool = ThreadPoolExecutor(1)
        self._failed_before = False
        self._committing: tuple[OpenShard, Future[None]] | None = None
        self.pending: set[str] = set()
        self.written: collections.Counter[str] = collections.Counter()
        self._begin()

    def __enter__(self) -> "ShardSink":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def wanted(self, names: Sequence[str]) -> Collection[str]:
        """Returns those of some names that have no committed row, or that of one to retry."""
        places = find(self._done, digests(names)).tolist()
        return [name for name, place in zip(names, places, strict=True) if place < 0]

    def keep(
        self, unfinished: Path, file: str, *, expected: Expected, short_side: int | None
    ) -> Kept:
        """Verifies an image; its row brings it into the shard, see `Sink`."""
        try:
            check_name(file)
        except UnsafeNameError as error:
            raise UnwantedFileError("unsafe_name", str(error)) from error
        with writing(unfinished):
            data = unfinished.read_bytes()
        return Kept(*verified(data, expected=expected, short_side=short_side))

    def discard(self, file: str) -> None:
        """Does nothing: what a killed run left is in no committed shard."""

    def add(self, image: Image, kept: Kept | None = None) -> None:
        """Adds a row, and the image to the shard, see `Sink`."""
        content = None if kept is None else kept.content
        if content is not None and image.sha256 is not None and self._copies.are_many(image.sha256):
            image, content = self._copies.refused(image), None
        with storing(self._folder):
            self._shard.add(printable(image), content)
        self.pending.add(image.name)

    def note(self, text: str) -> None:
        """Adds a note to the manifest of the shard, see `OpenShard.note`."""
        self._shard.note(text)

    def fail(self, name: str, error: str, message: str, **fields: Any) -> None:
        """Adds the row of an image that is not available, see `Sink`."""
        now = time.time()
        self.add(Image(name=name, status=FAILED, time=now, error=error, message=message, **fields))

    def flush(self, *, wait: bool = True) -> None:
        """Commits the shard: in the background once it is full; if `wait`, at once, see `Sink`."""
        if self._committing and (wait or self._committing[1].done() or self._is_full(times=2)):
            self._settle()
        due = self._is_full() or time.monotonic() > self._due
        if not wait and not (due and self._committing is None):
            return
        self._committing = (self._shard, self._pool.submit(self._shard.commit, self._folder))
        self._begin()
        if wait:
            self._settle()

    def _begin(self) -> None:
        self._shard = OpenShard(self._scratch, f"{self._attempt}-{self._number:05d}")
        self._number += 1
        self._due = time.monotonic() + _COMMIT_SECONDS

    def _is_full(self, *, times: int = 1) -> bool:
        return self._shard.is_full(Full(*(times * limit for limit in self._full)))

    def _settle(self) -> None:
        """Waits for the commit in the background; one that failed is tried again the next time."""
        assert self._committing is not None
        shard, future = self._committing
        with storing(self._folder):
            if future.done() and future.exception() is not None and self._failed_before:
                shard.commit(self._folder)
            else:
                self._failed_before = True
                future.result()
        self._failed_before = False
        self._committing = None
        self._done = np.sort(np.concatenate([self._done, digests(shard.rows)]))
        self.pending.difference_update(shard.rows)
        self.written.update(row.image.status for row in shard.rows.values())


class _LatestCopies:
    """Counts copies of contents as they arrive, in bounded memory, so perhaps too few.

    A server that has lost its images would otherwise fill shards with one drawing. What is not
    noticed here is found when all parts are done, see `repeated.judge`.
    """

    def __init__(self, max_copies: int):
        self._max_copies = max_copies
        self._counts: collections.OrderedDict[bytes, int] = collections.OrderedDict()

    def are_many(self, content: bytes) -> bool:
        """Counts one more copy of a content; returns whether there were too many before."""
        count = self._counts.pop(content, 0)
        self._counts[content] = count + 1
        if len(self._counts) > _CONTENTS:
            self._counts.popitem(last=False)
        return bool(self._max_copies) and count >= self._max_copies

    def refused(self, image: Image) -> Image:
        """Returns the row of a further copy."""
        return repeated.as_failure(image, self._max_copies)


def done_before(
    folder: ObjectFolder, part: str, is_retried: Callable[[str | None], bool]
) -> np.ndarray:
    """Returns the hashes of names whose committed row stands: sorted, S16 [N].

    Args:
        folder: The folder of image shards.
        part: Name of a part; "" for all of them.
        is_retried: Returns whether failures with an error do not stand.
    """
    contents = repeated.read(folder).max_copies
    keys, times, stored, retried = bytearray(), [np.empty(0)], bytearray(), bytearray()
    for name in manifest_names(folder, part=part):
        for block in ManifestFile(folder, name).blocks(_STATES):
            names, statuses, errors, hashes = (block.column(one).to_pylist() for one in _STATES[1:])
            keys += digests(names).tobytes()
            times.append(block.column("time").to_numpy())
            for status, error, sha256 in zip(statuses, errors, hashes, strict=True):
                if status == OK and sha256 in contents:
                    status, error = FAILED, repeated.PLACEHOLDER
                stored.append(status == OK)
                retried.append(status != OK and is_retried(error))
    every = np.frombuffer(bytes(keys), "S16")
    rows = effective_rows(every, np.frombuffer(stored, np.uint8), np.concatenate(times))
    return every[rows[np.frombuffer(retried, np.uint8)[rows] == 0]]


@contextlib.contextmanager
def storing(folder: ObjectFolder) -> Iterator[None]:
    """Turns what a disk or a bucket raises into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder}: {error}. Free some space, or see that the bucket can be written to, then "
            "run the same command again to resume; committed shards are kept"
        ) from error
