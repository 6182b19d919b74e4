# SPDX-License-Identifier: BSD-3-Clause
"""Counts the rows of label lists, or of a built data set, in parts on an engine.

The sums are integers, and the digests of names are sorted before they are compared, so the result
is the same for any number of workers and any order of parts.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from google.protobuf.message import DecodeError

from mlimages_jax.data.dataset import Shard
from mlimages_jax.data.records import Records, parse_record
from mlimages_jax.engines.engine import Engine
from mlimages_jax.engines.ordered import map_ordered
from mlimages_jax.files.object_folder import local_copy
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.list_rows import check_row
from mlimages_jax.labels.lists import LabelList, ListBlock, iter_list_blocks
from mlimages_jax.labels.statistics import ListStatistics
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.built_set import BuiltSet
from mlimages_jax.prepare.problems import Problem, ProblemList
from mlimages_jax.prepare.url_lists import count_rows

_ROWS_AT_A_TIME = 4096  # of a data set; their images are not kept
_BAD_FILE = (RuntimeError, ValueError)  # raised by ArrayRecord
_BAD_RECORD = (*_BAD_FILE, DecodeError, LookupError, OverflowError)


class Source(NamedTuple):
    """Rows to count.

    Attributes:
        name: Name of the list, or of the data set's split.
        expected: Approximate number of rows, to estimate the remaining time.
        parts: Blocks of the list, or files of the data set.
    """

    name: str
    expected: int
    parts: Iterable[ListBlock] | Iterable[Shard]


def open_lists(paths: Sequence[Path], class_list: Path) -> tuple[Hierarchy, list[Source]]:
    """Opens label lists as sources.

    Raises:
        OSError: A file cannot be read.
        HierarchyError: The class list is malformed.
    """
    hierarchy = Hierarchy.from_file(class_list)
    sources = [Source(str(path), count_rows([path]), iter_list_blocks(path)) for path in paths]
    return hierarchy, sources


def open_data_set(folder: epath.Path, *, split: str | None) -> tuple[Hierarchy, list[Source]]:
    """Opens the splits of a built data set as sources.

    Args:
        folder: The version folder.
        split: The split to open; None: all.

    Raises:
        FileNotFoundError: The folder is not a data set.
        PrepareError: Its metadata is damaged, or it has no such split.
        HierarchyError: Its class list is malformed.
    """
    data_set = BuiltSet.open(folder)
    hierarchy = Hierarchy.from_file(folder / "dictionary.txt")
    shards = data_set.shards_of([] if split is None else [split])
    sources = []
    for name, group in itertools.groupby(shards, key=lambda shard: shard.split):
        files = list(group)
        sources.append(Source(name, sum(shard.num_records for shard in files), files))
    return hierarchy, sources


def count(
    hierarchy: Hierarchy, sources: Sequence[Source], *, engine: Engine, problems: ProblemList
) -> tuple[ListStatistics, dict[str, int]]:
    """Counts all rows.

    Args:
        hierarchy: The classes of the rows.
        sources: The rows.
        engine: What reads and counts the parts.
        problems: Receives records that cannot be read.

    Returns:
        The statistics, and the number of rows of each source.

    Raises:
        PrepareError: There are no rows.
        LabelListError: A row of a list is malformed, or has a class of another hierarchy.
    """
    statistics = ListStatistics(hierarchy)
    counter = _Counter(statistics.emptied())
    rows = {source.name: 0 for source in sources}
    expected = sum(source.expected for source in sources)
    parts = (_Part(source.name, part) for source in sources for part in source.parts)
    with progress(expected, what="statistics", unit=" rows") as bar:
        for part, counted in map_ordered(engine, counter.count, parts):
            statistics.add_sums(counted.sums)
            rows[part.source] += counted.num_rows
            for problem in counted.problems:
                problems.add(problem)
            bar.update(counted.num_rows)
    if not sum(rows.values()):
        raise PrepareError(f"{', '.join(rows)}: no rows to count; are the files complete?")
    return statistics, rows


class _Part(NamedTuple):
    source: str  # its name
    rows: ListBlock | Shard

    def __str__(self) -> str:  # in messages of an engine
        return str(self.rows.path)


class _Counted(NamedTuple):
    sums: dict[str, np.ndarray]
    num_rows: int
    problems: list[Problem]


@dataclasses.dataclass(frozen=True)
class _Counter:
    """Counts the rows of parts, in any process.

    Attributes:
        empty: Statistics without counts.
    """

    empty: ListStatistics

    def count(self, part: _Part) -> _Counted:
        statistics = self.empty.emptied()
        problems: list[Problem] = []
        num_rows = 0
        for rows in self._read(part.rows, problems):
            statistics.update(rows)
            num_rows += len(rows)
        return _Counted(statistics.sums(), num_rows, problems)

    def _read(self, part: ListBlock | Shard, problems: list[Problem]) -> Iterator[LabelList]:
        num_classes = len(self.empty.hierarchy)
        if isinstance(part, ListBlock):
            yield part.rows(num_classes=num_classes)
            return
        rows = _read_shard(part, num_classes=num_classes, problems=problems)
        while some := list(itertools.islice(rows, _ROWS_AT_A_TIME)):
            yield LabelList.from_rows(some, num_classes=num_classes)


def _read_shard(
    shard: Shard, *, num_classes: int, problems: list[Problem]
) -> Iterator[tuple[str, list[int], list[float]]]:
    """Yields the rows of a shard; skips damaged records, or all of it if its index is damaged."""
    with local_copy(shard.path) as path:  # in a bucket, every record would be a request
        try:
            records = Records([os.fspath(path)])
        except _BAD_FILE as error:
            problems.append(Problem(shard.path.name, None, "", "unreadable", str(error)))
            return
        yield from _read_records(shard, records, num_classes=num_classes, problems=problems)


def _read_records(
    shard: Shard, records: Records, *, num_classes: int, problems: list[Problem]
) -> Iterator[tuple[str, list[int], list[float]]]:
    file = shard.path.name
    if len(records) != shard.num_records:
        message = f"{len(records):,} records, but dataset_info.json says {shard.num_records:,}"
        problems.append(Problem(file, None, "", "count", message))
    blocks = records.blocks(range(len(records)))
    for number, data in enumerate(itertools.chain.from_iterable(map(records.read, blocks))):
        try:
            if isinstance(data, Exception):
                raise data
            record = parse_record(data)
            labels, confidences = record.labels.tolist(), record.confidences.tolist()
            check_row(record.name, labels, confidences, num_classes=num_classes)
        except _BAD_RECORD as error:
            problems.append(Problem(file, number, "", "unreadable", str(error)))
        else:
            yield record.name, labels, confidences
