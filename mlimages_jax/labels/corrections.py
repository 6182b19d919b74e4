# SPDX-License-Identifier: BSD-3-Clause
"""Corrects the parents of some classes of a class list, and counts how closed labels change.

A file of corrections is tab-separated UTF-8 text with a header line. Its columns are the id of a
class, the id of its new parent, the id of its current parent ("-" for none), and an optional
comment. A line applies to class lists in which the class has this current parent; others are
not changed.

`corrections.tsv` contains the corrections of the published dictionary. In 533 places that
dictionary puts a class below a distant ancestor although a closer one, by the hypernyms of WordNet,
is a class too: "cheeseburger" is a child of "sandwich", and "hamburger" is a leaf. The new parents
are below the current ones, so labels are added and none is lost.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlimages_jax.files import text_files
from mlimages_jax.labels.closure import close_rows
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.labels.label_keys import MAX_CLASSES, MAX_ROWS
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.rows import iter_blocks, label_rows

PUBLISHED = Path(__file__).with_name("corrections.tsv")
_OURS = "published"  # the argument that stands for `PUBLISHED`
_NO_PARENT = "-"
_HEADER = ("category_id", "parent_id", "instead_of")


class Correction(NamedTuple):
    """A line of a file of corrections.

    Attributes:
        category_id: Id of the class.
        parent_id: Id of its new parent; None: it becomes a root.
        instead_of: Id of its current parent; None: it is a root.
    """

    category_id: str
    parent_id: str | None
    instead_of: str | None


class Corrected(NamedTuple):
    """A hierarchy after corrections.

    Attributes:
        hierarchy: The corrected hierarchy of the same classes.
        applied: Number of corrections that were applied.
        without_use: Number of corrections that do not apply: no such class, or another parent.
    """

    hierarchy: Hierarchy
    applied: int
    without_use: int

    def __str__(self) -> str:
        rest = f"; {self.without_use:,} corrections do not apply" if self.without_use else ""
        return f"{self.applied:,} classes have another parent{rest}"


class Changes(NamedTuple):
    """Labels of closed rows that differ between two hierarchies of the same classes.

    Attributes:
        added: Number of labels that only the second hierarchy gives.
        removed: Number of labels that only the first hierarchy gives.
        rows: Number of rows with such labels.
    """

    added: int
    removed: int
    rows: int

    def plus(self, other: "Changes") -> "Changes":
        """Returns the sum of two counts over different rows."""
        return Changes(*map(sum, zip(self, other, strict=True)))

    def __str__(self) -> str:
        return f"{self.added:,} labels added and {self.removed:,} removed in {self.rows:,} rows"


def read_corrections(path: Path) -> list[Correction]:
    """Reads a file; "published" stands for the one that comes with this package.

    Raises:
        HierarchyError: A line is malformed; the message names it.
        TextFileError: The file is not UTF-8, or contains a NUL.
        OSError: The file cannot be read.
    """
    found: dict[str, Correction] = {}
    path = PUBLISHED if str(path) == _OURS else path
    for number, line in enumerate(text_files.read_text(path).split("\n"), start=1):
        cells = tuple(cell.strip() for cell in line.split("\t")[:3])
        if number == 1 and cells != _HEADER:
            raise HierarchyError(f"{path}:1: the header must start with {' '.join(_HEADER)!r}")
        if number == 1 or not line.strip():
            continue
        if len(cells) < 3 or not all(cells) or cells[0] == _NO_PARENT:
            raise HierarchyError(
                f"{path}:{number}: write three ids separated by tabs: of the class, of its "
                "new parent, of its current parent (- for none)"
            )
        if cells[0] in found:
            raise HierarchyError(f"{path}:{number}: {cells[0]!r} already has a line; keep one")
        parent_id, instead_of = (None if id_ == _NO_PARENT else id_ for id_ in cells[1:])
        found[cells[0]] = Correction(cells[0], parent_id, instead_of)
    return list(found.values())


def correct(hierarchy: Hierarchy, corrections: Iterable[Correction]) -> Corrected:
    """Gives classes their new parents.

    Raises:
        HierarchyError: The new parents form a cycle.
    """
    index: dict[str | None, int] = {id_: number for number, id_ in enumerate(hierarchy.ids)}
    index[None] = -1
    parents = hierarchy.parents.copy()
    applied = without_use = 0
    for category_id, parent_id, instead_of in corrections:
        known = all(id_ in index for id_ in (category_id, parent_id, instead_of))
        # Compared with the uncorrected parents, so that the order of the corrections is irrelevant.
        if known and hierarchy.parents[index[category_id]] == index[instead_of]:
            parents[index[category_id]] = index[parent_id]
            applied += 1
        else:
            without_use += 1
    try:
        return Corrected(Hierarchy(hierarchy.ids, hierarchy.names, parents), applied, without_use)
    except HierarchyError as error:
        raise HierarchyError(f"with the corrections: {error}") from error


def count_changes(rows: LabelList, before: Hierarchy, after: Hierarchy) -> Changes:
    """Counts which labels of closed rows differ between two hierarchies, ignoring confidences.

    Args:
        rows: Rows that are not closed yet. Some thousand at a time are closed in memory.
        before: Hierarchy of the classes of `rows`.
        after: Another hierarchy of the same classes.
    """
    changes = Changes(0, 0, 0)
    for block in iter_blocks(rows, MAX_ROWS):
        old, new = (_labels(close_rows(block, hierarchy)) for hierarchy in (before, after))
        added = np.setdiff1d(new, old, assume_unique=True)
        removed = np.setdiff1d(old, new, assume_unique=True)
        touched = np.unique(np.concatenate([added, removed]) // MAX_CLASSES)
        changes = changes.plus(Changes(len(added), len(removed), len(touched)))
    return changes


def _labels(rows: LabelList) -> np.ndarray:
    """Returns int64 [nnz]: a number for each pair of row and class."""
    return label_rows(rows) * MAX_CLASSES + rows.classes
