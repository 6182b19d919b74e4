# SPDX-License-Identifier: BSD-3-Clause
"""Writes rows of a label list to one ArrayRecord file: read, verify, shrink, write.

A shard is the unit of work of an engine. It depends on nothing but its rows and their images, so
the result is the same for any number of threads, processes and machines.
"""

import collections
import concurrent.futures
import dataclasses
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.data.archives import ArchiveError
from mlimages_jax.data.images.decode import (
    BadImage,
    Chroma,
    Orientation,
    stored_jpeg,
)
from mlimages_jax.files.checksums import sha256
from mlimages_jax.files.machine_faults import lacking
from mlimages_jax.files.record_writer import RecordWriter
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, LabelRow

from . import records
from .places import Place
from .skipped import Skipped

_ROWS_PER_TASK = 8  # rows per thread task: a handover costs a tenth of the time of an image
UNFINISHED = "unfinished-"  # prefix of the names of files that are being written


class ShardPlan(NamedTuple):
    """A shard to write.

    Attributes:
        split: Name of the split.
        path: The ArrayRecord file; on the way to a bucket its name.
        rows: Names and labels, as in the list.
        places: Where the image of each row is stored.
    """

    split: str
    path: Path
    rows: LabelList
    places: Sequence[Place]

    def __str__(self) -> str:  # in messages of an engine, without thousands of rows
        return f"the shard {self.path}"


class WrittenShard(NamedTuple):
    """A shard that was written.

    Attributes:
        split: Name of the split.
        file: Name of the ArrayRecord file.
        file_bytes: Size of the file.
        sha256: SHA-256 of the file in hexadecimal.
        num_examples: Number of records.
        num_bytes: Total size of the records.
        max_labels: Maximum number of labels of a record.
        skipped: Rows without a record.
    """

    split: str
    file: str
    file_bytes: int
    sha256: str
    num_examples: int
    num_bytes: int
    max_labels: int
    skipped: list[Skipped]


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """Writes shards.

    Attributes:
        short_side: Shrink images to this short side; None: keep their size.
        closed_over: Hierarchy of which labels get all ancestors; None: they stay as they are.
        threads: Number of threads that read and verify images.
        check: Whether to decode images that keep their bytes too.
        chroma: Subsampling of re-encoded images, see `stored_jpeg`.
        orientation: Whether images are turned upright, see `stored_jpeg`.
        restart_markers: Whether files get restart markers, see `stored_jpeg`.
    """

    short_side: int | None
    closed_over: Hierarchy | None = None
    threads: int = 1
    check: bool = True
    chroma: Chroma = "444"
    orientation: Orientation = "stored"
    restart_markers: bool = False

    def write(self, shard: ShardPlan) -> WrittenShard:
        """Writes one ArrayRecord file with one record per group.

        The file gets its final name only when it is complete, so a second attempt at the same
        shard, at the same time on another machine, does no harm.

        Raises:
            OSError: The file cannot be written.
        """
        unfinished = shard.path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
        try:
            written = self._write(shard, unfinished)
            unfinished.replace(shard.path)
        finally:
            unfinished.unlink(missing_ok=True)
        return written

    def usable(self, row: LabelRow, place: Place) -> bool:
        """Returns whether this row would have a record."""
        return isinstance(self._record(row, place), bytes)

    def _write(self, shard: ShardPlan, path: Path) -> WrittenShard:
        skipped = []
        num_examples = num_bytes = max_labels = 0
        writer = RecordWriter(path)
        rows = self._rows(shard)
        for row, record in zip(rows, self._records(rows, shard.places), strict=True):
            if isinstance(record, BadImage):
                skipped.append(Skipped(shard.split, row.name, record.reason, str(record)))
                continue
            writer.write(record)
            num_examples += 1
            num_bytes += len(record)
            max_labels = max(max_labels, len(row.classes))
        writer.close()
        return WrittenShard(
            shard.split, shard.path.name, path.stat().st_size, sha256(path),
            num_examples, num_bytes, max_labels, skipped,
        )  # fmt: skip

    def _rows(self, shard: ShardPlan) -> list[LabelRow]:
        """Returns the rows with the labels to store."""
        if self.closed_over is None:
            return list(shard.rows)
        close = self.closed_over.close
        return [LabelRow(row.name, *close(row.classes, row.confidences)) for row in shard.rows]

    def _records(
        self, rows: Sequence[LabelRow], places: Sequence[Place]
    ) -> Iterator[bytes | BadImage]:
        """Verifies in threads (the decoders release the GIL), in row order."""
        waiting: collections.deque[concurrent.futures.Future[list[bytes | BadImage]]]
        waiting = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(rows), _ROWS_PER_TASK):
                some = slice(start, start + _ROWS_PER_TASK)
                waiting.append(pool.submit(self._some_records, rows[some], places[some]))
                if len(waiting) > 2 * self.threads:  # a complete shard may not fit into memory
                    yield from waiting.popleft().result()
            for task in waiting:
                yield from task.result()

    def _some_records(
        self, rows: Sequence[LabelRow], places: Sequence[Place]
    ) -> list[bytes | BadImage]:
        return list(map(self._record, rows, places))

    def _record(self, row: LabelRow, place: Place) -> bytes | BadImage:
        try:
            image = stored_jpeg(
                place.read(), short_side=self.short_side, check=self.check,
                chroma=self.chroma, sequential=True, restart_markers=self.restart_markers,
                orientation=self.orientation,
            )  # fmt: skip
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            found = f"there is no file {error.filename}" if error.filename else str(error)
            return BadImage("missing", found)
        except (OSError, ArchiveError) as error:
            if lacking(error):
                raise  # the next build would take it for a fault of the image, and not read it
            return BadImage("unreadable", str(error))
        except BadImage as bad:
            return bad
        return records.serialize(row, image)
