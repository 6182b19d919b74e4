# SPDX-License-Identifier: BSD-3-Clause
"""What img2dataset leaves in its folder: a table, a file of counts, and images for each shard.

    00000.parquet       a row for each address: key, status, error_message, and the user's columns
    00000_stats.json    how many came
    00000/000000012.jpg, 00000.tar, or a column of 00000.parquet: the images that came

Rows whose image did not come are no damage: they are counted, and left out.
"""

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow

from mlimages_jax.files.counting import counted
from mlimages_jax.prepare.imports.arrow_files import ArrowFile
from mlimages_jax.prepare.imports.records import Record

KEY, STATUS, SUCCESS = "key", "status", "success"
IMAGE = "(image)"  # stands for the column of the images, of which these tables have none
STATS = "_stats.json"
FORMATS = ("jpg", "png", "webp")
_COUNTS = ("count", "successes", "failed_to_download", "failed_to_resize")
_MAX_STATS_BYTES = 1 << 20
_ROWS = 1_000  # in memory


def is_status(columns: Collection[str]) -> bool:
    """Returns whether a table with these columns says which images came."""
    return {KEY, STATUS, "error_message"} <= {*columns}


class FetchedFiles:
    """The rows of a shard whose images are files; `Records` with paths such as 00000/000000012.jpg.

    Args:
        path: The table of the shard.
        suffix: Suffix of the images, one of `FORMATS`.

    Attributes:
        path: The same.
        format: As in `Records`, like the following.
        names: Names of the columns.
        classes: Empty: these tables do not describe their columns.

    Raises:
        PrepareError: The table is damaged.
    """

    def __init__(self, path: Path, *, suffix: str):
        self.path = path
        self._file = ArrowFile(path)
        self._suffix = suffix
        self.format = "img2dataset's table"
        self.names = (IMAGE, *self._file.names)
        self.classes: dict[str, Sequence[str]] = {}

    def read(self, limit: int | None, columns: Sequence[str] | None) -> Iterator[Record]:
        """Yields the rows whose image came, see `Records`."""
        chosen = [name for name in columns or self.names if name != IMAGE]
        rows = self._rows(list(dict.fromkeys([*chosen, KEY, STATUS])))
        for number, row in enumerate(itertools.islice(rows, limit), start=1):
            if row[STATUS] != SUCCESS:
                continue
            if not isinstance(row[KEY], str):
                yield number, f"the row has no {KEY}, so its image cannot be found"
                continue
            yield number, row | {IMAGE: f"{self.path.stem}/{row[KEY]}.{self._suffix}"}

    def statuses(self) -> Counter[str]:
        """Counts the rows whose image did not come, by status."""
        counts = Counter(str(row[STATUS]) for row in self._rows([STATUS]))
        counts.pop(SUCCESS, None)
        return counts

    def _rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        batches = self._file.batches(columns, pyarrow.RecordBatch.to_pylist, rows=_ROWS)
        return itertools.chain.from_iterable(batches)


def describe(statuses: Counter[str]) -> list[str]:
    """Returns a line about the addresses whose image did not come, if there are any."""
    if not statuses.total():
        return []
    kinds = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common(5))
    return [f"left out: {counted(statuses.total(), 'address')} without an image ({kinds})"]


def describe_stats(tables: Iterable[Path]) -> list[str]:
    """Returns a line with the sums of the counts beside some shards, if there are any.

    Args:
        tables: The tables or tars of the shards.
    """
    sums: Counter[str] = Counter()
    shards = missing = 0
    for path in tables:
        found = _read_stats(path.with_name(f"{path.stem}{STATS}"))
        shards += bool(found)
        missing += not found
        sums.update(found)
    if not shards:
        return []
    line = (
        f"img2dataset's counts: {counted(sums['count'], 'address')}, "
        f"{counted(sums['successes'], 'image')}, {sums['failed_to_download']:,} not downloaded, "
        f"{sums['failed_to_resize']:,} not resized"
    )
    if missing:
        line += f"; {counted(missing, 'shard')} without counts: img2dataset did not finish there"
    return [line]


def _read_stats(path: Path) -> dict[str, int]:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_STATS_BYTES))
        return {name: int(content.get(name, 0)) for name in _COUNTS}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}  # they are only shown
