# SPDX-License-Identifier: BSD-3-Clause
"""Looks up the rows of label lists in manifests, all of them or those of a slice of the names."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from mlimages_jax.files.escaping import one_line, tsv_row
from mlimages_jax.image_shards.index import ALL_NAMES, NameSlice
from mlimages_jax.image_shards.outcome import OK, Image
from mlimages_jax.labels.lists import ANY_CLASS, LabelList, iter_label_list
from mlimages_jax.labels.rows import row_names, take_rows
from mlimages_jax.prepare.outcomes import Outcomes

NOT_TRIED = "not_tried"


class MissingRows(Protocol):
    """Receives the rows without an image, in the order of the list."""

    def add(self, row: int, line: str) -> None:
        """Receives the number of a row in its list, blank lines not counted, and its line."""


@dataclasses.dataclass
class Coverage:
    """The outcome of the rows of one list, according to manifests.

    Attributes:
        path: Path of the list.
        rows: Number of rows.
        sources: Number of rows with an image, by its source.
        errors: Number of the other rows, by error; `NOT_TRIED` if no manifest has the name.
    """

    path: Path
    rows: int = 0
    sources: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    errors: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def there(self) -> int:
        """Number of rows whose image is present."""
        return self.sources.total()

    def __str__(self) -> str:
        untried = self.errors[NOT_TRIED]
        lines = [f"{self.path}: {self.rows:,} rows", self._line("present", self.there)]
        lines += [self._line(f"  from {source}", n) for source, n in _ranked(self.sources)]
        lines.append(self._line("failed", self.errors.total() - untried))
        lines += [
            self._line(f"  {error}", count)
            for error, count in _ranked(self.errors)
            if error != NOT_TRIED
        ]
        lines.append(self._line("not tried", untried))
        return "\n".join(lines)

    def _line(self, what: str, count: int) -> str:
        return f"  {one_line(what):<40} {count:>12,} {count / max(self.rows, 1):>7.2%}"

    def plus(self, other: "Coverage") -> "Coverage":
        """Returns the counts of two slices of the same list together."""
        return Coverage(
            self.path,
            self.rows + other.rows,
            self.sources + other.sources,
            self.errors + other.errors,
        )


class ClassCoverage:
    """Counts images per class (confidence above 0): listed ones, and those present.

    Args:
        num_classes: C.

    Attributes:
        listed: int64 [C].
        there: int64 [C].
    """

    def __init__(self, num_classes: int):
        self.listed = np.zeros(num_classes, np.int64)
        self.there = np.zeros(num_classes, np.int64)

    def add(self, part: LabelList, there: np.ndarray) -> None:
        """Counts R rows; `there` is bool [R], whether the row's image is present."""
        positive = part.confidences > 0
        label_there = np.repeat(there, np.diff(part.offsets))
        for counts, chosen in (self.listed, positive), (self.there, positive & label_there):
            counts += np.bincount(part.classes[chosen], minlength=len(counts))


def cover(
    path: Path,
    manifests: Sequence[Outcomes],
    *,
    classes: ClassCoverage | None = None,
    missing: MissingRows | None = None,
    names: NameSlice = ALL_NAMES,
    bar: tqdm | None = None,
) -> Coverage:
    """Looks up each row of a list, in memory that does not depend on the length of the list.

    Args:
        path: Path of the list.
        manifests: Manifests to search.
        classes: Counter to add to.
        missing: Receives a line for each row without an image.
        names: The names to look up; rows of others are not counted.
        bar: Progress bar to advance.

    Raises:
        LabelListError: A row cannot be read, or has a class that `classes` does not have.
    """
    result = Coverage(path)
    num_classes = ANY_CLASS if classes is None else len(classes.listed)
    first = 0
    for part in iter_label_list(path, num_classes=num_classes):
        rows = np.flatnonzero(names.mask([name.decode() for name in row_names(part)]))
        chosen = part if len(rows) == len(part) else take_rows(part, rows)
        _cover(chosen, first + rows, manifests, result, classes, missing)
        first += len(part)
        if bar is not None:
            bar.update(len(part))
    return result


def _cover(
    part: LabelList,
    numbers: np.ndarray,
    manifests: Sequence[Outcomes],
    result: Coverage,
    classes: ClassCoverage | None,
    missing: MissingRows | None,
) -> None:
    """Adds R rows, whose numbers in the list are int64 [R]."""
    names = [name.decode() for name in row_names(part)]
    found = _look_up(names, manifests)
    there = np.array([name in found and found[name].status == OK for name in names], bool)
    result.rows += len(names)
    for number, name, is_there in zip(numbers.tolist(), names, there.tolist(), strict=True):
        if is_there:
            result.sources[str(found[name].source)] += 1
            continue
        image = found.get(name)
        error = NOT_TRIED if image is None else str(image.error)
        result.errors[error] += 1
        if missing is not None:
            message = "" if image is None else " ".join(str(image.message).split())
            missing.add(number, tsv_row((name, error, message, result.path.name)))
    if classes is not None:
        classes.add(part, there)


def _look_up(names: list[str], manifests: Sequence[Outcomes]) -> dict[str, Image]:
    """Returns the rows of names: from the first manifest with the image, else the last one."""
    found: dict[str, Image] = {}
    left = sorted(names)  # neighbours are stored on the same page of the database
    for manifest in manifests:
        found |= manifest.get(left)
        left = [name for name in left if name not in found or found[name].status != OK]
    return found


def _ranked(counts: collections.Counter[str]) -> list[tuple[str, int]]:
    """Returns names and counts, the largest first; equal ones by name, in whatever order found."""
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))
