# SPDX-License-Identifier: BSD-3-Clause
"""Other parents for some classes of a category file, and what they change in closed labels.

A file of corrections is tab-separated UTF-8 text with a header line: the id of a class, the id of
its new parent, the id of the parent that it has so far ("-" for none), and anything for people. A
line holds for category files in which the class has this parent; others stay as they are.

`corrections.tsv` has those of the published dictionary. In 533 places it hangs a class below a
farther ancestor although a nearer one, by the hypernyms of WordNet, is a class too: "cheeseburger"
is a child of "sandwich", and "hamburger" a leaf. The new parents are below the present ones, so
labels are added and none is lost.
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
_OURS = "published"  # stands for it, where a file is asked for
_NO_PARENT = "-"
_HEADER = ("category_id", "parent_id", "instead_of")


class Correction(NamedTuple):
    """A line of a file.

    Attributes:
        category_id: of the class.
        parent_id: of its new parent; None: it becomes a root.
        instead_of: id of the parent that it has so far; None: it is a root.
    """

    category_id: str
    parent_id: str | None
    instead_of: str | None


class Corrected(NamedTuple):
    """A hierarchy after corrections.

    Attributes:
        hierarchy: the same classes.
        applied: corrections that held for it.
        without_use: corrections that did not: no such class, or another parent than expected.
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
        added: labels that only the second one gives.
        removed: labels that only the first one gives.
        rows: in which there is such a label.
    """

    added: int
    removed: int
    rows: int

    def plus(self, other: "Changes") -> "Changes":
        """Of these rows and of others."""
        return Changes(*map(sum, zip(self, other, strict=True)))

    def __str__(self) -> str:
        return f"{self.added:,} labels more and {self.removed:,} less in {self.rows:,} rows"


def read_corrections(path: Path) -> list[Correction]:
    """Reads a file; "published" stands for the one that comes with this package.

    Raises:
        HierarchyError: with the line that cannot be understood.
        TextFileError: it is not UTF-8.
        OSError: it cannot be read.
    """
    found: dict[str, Correction] = {}
    path = PUBLISHED if str(path) == _OURS else path
    with text_files.open_text(path) as file:
        for number, line in enumerate(file, start=1):
            cells = tuple(cell.strip() for cell in line.rstrip("\n").split("\t")[:3])
            if number == 1 and cells != _HEADER:
                raise HierarchyError(f"{path}:1: the header must begin {' '.join(_HEADER)!r}")
            if number == 1 or not line.strip():
                continue
            if len(cells) < 3 or not all(cells) or cells[0] == _NO_PARENT:
                raise HierarchyError(
                    f"{path}:{number}: write three ids with tabs between: of the class, of its "
                    "new parent, of its parent so far (- for none)"
                )
            if cells[0] in found:
                raise HierarchyError(f"{path}:{number}: {cells[0]!r} has a line already; keep one")
            parent_id, instead_of = (None if id_ == _NO_PARENT else id_ for id_ in cells[1:])
            found[cells[0]] = Correction(cells[0], parent_id, instead_of)
    return list(found.values())


def correct(hierarchy: Hierarchy, corrections: Iterable[Correction]) -> Corrected:
    """Gives classes their new parents.

    Raises:
        HierarchyError: the new parents form a cycle.
    """
    index: dict[str | None, int] = {id_: number for number, id_ in enumerate(hierarchy.ids)}
    index[None] = -1
    parents = hierarchy.parents.copy()
    applied = without_use = 0
    for category_id, parent_id, instead_of in corrections:
        known = all(id_ in index for id_ in (category_id, parent_id, instead_of))
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
    """Counts what another hierarchy changes in rows that are closed, whatever the confidences.

    Args:
        rows: not closed yet; some thousand at a time are in memory as closed ones.
        before: of the classes of `rows`.
        after: of the same classes.
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
    """int64 [nnz]: a number for each pair of row and class."""
    return label_rows(rows) * MAX_CLASSES + rows.classes
