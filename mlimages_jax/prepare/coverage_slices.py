# SPDX-License-Identifier: BSD-3-Clause
"""Coverage on the workers of an engine: each looks up a slice of the names.

A worker reads all lists and manifests, but keeps and looks up the rows of its slice only, so its
memory and most of its time shrink with the number of slices. Workers share nothing but the input.
"""

import array
import dataclasses
import functools
import gzip
import heapq
import io
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlimages_jax.engines.engine import Engine
from mlimages_jax.image_shards.index import NameSlice
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare.covered_rows import ClassCoverage, Coverage, cover
from mlimages_jax.prepare.outcomes import open_outcomes


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlicedCoverage:
    """Label lists to look up in manifests. May be pickled.

    Attributes:
        lists: The lists.
        manifests: As for `open_outcomes`.
        num_classes: Number of classes whose images are counted; None: count none.
        wants_missing: Whether to return the rows without an image.
    """

    lists: Sequence[Path]
    manifests: Sequence[str]
    num_classes: int | None
    wants_missing: bool

    def run(self, engine: Engine, *, slices: int) -> "SlicedResult":
        """Looks all names up.

        Raises:
            LabelListError: A row cannot be read, or has a class that there is not.
            PrepareError: A place has no manifest; or as for `open_outcomes`.
        """
        parts = [NameSlice(number, slices) for number in range(slices)]
        with progress(slices, what="coverage", unit=" slices") as bar:
            found = {}
            for part, result in engine.map_unordered(functools.partial(_look_up, self), parts):
                found[part] = result
                bar.update()
        return SlicedResult([found[part] for part in parts])

    def look_up(self, names: NameSlice) -> "_Slice":
        """Looks up one slice of the names."""
        classes = None if self.num_classes is None else ClassCoverage(self.num_classes)
        covered, missing = [], []
        with open_outcomes(self.manifests, names=names) as opened:
            for path in self.lists:
                lines = _Lines() if self.wants_missing else None
                covered.append(cover(path, opened, classes=classes, missing=lines, names=names))
                missing += [] if lines is None else [lines.packed()]
        return _Slice(covered, classes, missing)


class _Slice(NamedTuple):
    """The outcome of one slice; of each list the counts, and the missing rows if wanted."""

    lists: list[Coverage]
    classes: ClassCoverage | None
    missing: list["_PackedLines"]


class _PackedLines(NamedTuple):
    """Lines, compressed, and their numbers: int64 [N], ascending."""

    numbers: np.ndarray
    text: bytes

    def unpacked(self) -> Iterator[tuple[int, str]]:
        with gzip.open(io.BytesIO(self.text), "rt", encoding="utf-8", newline="\n") as file:
            yield from zip(self.numbers.tolist(), file, strict=True)


class _Lines:
    """Collects lines and their numbers; see `MissingRows`."""

    def __init__(self) -> None:
        self._numbers = array.array("q")
        self._packed = io.BytesIO()
        self._file = gzip.open(  # noqa: SIM115 closed by `packed`
            self._packed, "wt", compresslevel=1, encoding="utf-8", newline="\n"
        )

    def add(self, row: int, line: str) -> None:
        self._numbers.append(row)
        self._file.write(line)

    def packed(self) -> _PackedLines:
        self._file.close()
        return _PackedLines(np.frombuffer(self._numbers, np.int64), self._packed.getvalue())


class SlicedResult:
    """The outcome of all slices together.

    Args:
        slices: The outcome of each.

    Attributes:
        lists: The outcome of each list.
    """

    def __init__(self, slices: Sequence[_Slice]):
        self._slices = slices
        by_list = zip(*(one.lists for one in slices), strict=True)
        self.lists = [functools.reduce(Coverage.plus, some) for some in by_list]

    def classes(self) -> Iterator[ClassCoverage]:
        """Yields counts of images by class, to be added up."""
        yield from (one.classes for one in self._slices if one.classes is not None)

    def missing(self) -> Iterator[str]:
        """Yields the lines of the rows without an image, in the order of the lists."""
        for some in zip(*(one.missing for one in self._slices), strict=True):
            lines = heapq.merge(*(one.unpacked() for one in some), key=operator.itemgetter(0))
            yield from (line for _, line in lines)


def _look_up(job: SlicedCoverage, names: NameSlice) -> _Slice:
    return job.look_up(names)
