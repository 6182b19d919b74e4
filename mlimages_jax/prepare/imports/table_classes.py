# SPDX-License-Identifier: BSD-3-Clause
"""The classes of tables: collected from their labels, or taken from a dictionary."""

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.labels.same_names import normal
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.label_cells import label_name
from mlimages_jax.prepare.imports.set_aside import BadRow, SetAside
from mlimages_jax.prepare.imports.table_rows import OnBad, Table

_PATH = " > "  # separates the names in the id of a collected class


class ClassFinder:
    """Finds the class of a label: by id, else by full name, else by one of its synonyms.

    Args:
        hierarchy: The classes.
        separator: Separates the names of a label that is a path, such as "animal > dog".
    """

    def __init__(self, hierarchy: Hierarchy, *, separator: str):
        self._hierarchy = hierarchy
        self._separator = separator
        self._of_id = {normal(id_): i for i, id_ in enumerate(hierarchy.ids)}
        self._of_name: dict[str, set[int]] = defaultdict(set)
        self._of_synonym: dict[str, set[int]] = defaultdict(set)
        for i, name in enumerate(map(normal, hierarchy.names)):
            self._of_name[name].add(i)
            for synonym in name.split(","):
                self._of_synonym[synonym.strip()].add(i)
        # Cached, because it is called for every label of every image, and labels recur.
        self.find = functools.cache(self._find)

    def _find(self, label: str) -> int:
        """Returns the class index.

        Raises:
            ValueError: No class has this id or name, or several have the name.
        """
        if label in self._of_id:
            return self._of_id[label]
        path = _PATH.join(_names(label, self._separator))
        if path in self._of_id:
            return self._of_id[path]
        classes = self._of_name.get(label) or self._of_synonym.get(label) or set()
        if not classes:
            raise ValueError(
                f"no class has the id or name {label!r}; correct it, or add it to the dictionary"
            )
        if len(classes) > 1:
            ids = ", ".join(self._hierarchy.ids[i] for i in sorted(classes))
            raise ValueError(f"{label!r} is the name of several classes; give an id: {ids}")
        return next(iter(classes))


def collect_classes(tables: Iterable[Table], *, separator: str) -> Hierarchy:
    """Collects the classes from all labels and from the ancestors that their paths name.

    The id of a class is its path, the name the last part of it. Classes are sorted by path, each
    after its parent, so the order of the rows does not matter. Bad rows are skipped.

    Raises:
        PrepareError: There are no labels.
    """
    seen: set[str] = set()
    classes: set[tuple[str, ...]] = set()
    bad = SetAside()
    for table in tables:

        def set_aside(line: int, reason: str, path: Path = table.path) -> None:
            bad.add(BadRow(str(path), str(line), reason))

        for line, labels in _labels(table, set_aside):
            for label in labels - seen:
                seen.add(label)
                try:
                    names = _names(label, separator)
                except ValueError as error:
                    set_aside(line, str(error))
                else:
                    classes.update(names[:depth] for depth in range(1, len(names) + 1))
    if not classes:
        bad.check()  # if there are bad rows, their errors are the better message
        files = ", ".join(str(table.path) for table in tables)
        raise PrepareError(
            f"{files}: no row has a label, and there is no --dictionary: is the file complete? "
            "Fill in the column of labels, or give a dictionary"
        )
    order = sorted(classes)
    place = {names: i for i, names in enumerate(order)}
    parents = np.array([place.get(names[:-1], -1) for names in order], np.int32)
    ids = tuple(_PATH.join(names) for names in order)
    return Hierarchy(ids, tuple(names[-1] for names in order), parents)


def flat_hierarchy(names: Iterable[str]) -> Hierarchy:
    """Returns classes without parents, in this order, each once; their ids are their names.

    Raises:
        PrepareError: A name cannot be one of a class.
    """
    ids = tuple(dict.fromkeys(names))
    try:
        return Hierarchy(ids, ids, np.full(len(ids), -1, np.int32))
    except HierarchyError as error:
        raise PrepareError(
            f"the names of the classes in the metadata: {error}; give a --dictionary"
        ) from error


def _labels(table: Table, on_bad: OnBad) -> Iterator[tuple[int, set[str]]]:
    """Yields lines and their labels; one-hot columns are classes even if no image shows them."""
    yield 1, set(map(label_name, table.columns.one_hot))
    for row in table.rows(on_bad):
        yield row.line, {label for label, _ in row.labels}


def _names(label: str, separator: str) -> tuple[str, ...]:
    """Returns the names of a path, root first."""
    names = tuple(name.strip() for name in label.split(separator))
    if not all(names):
        raise ValueError(f"{label!r} has an empty name before or after {separator!r}; fill it in")
    label.encode()  # raises ValueError for lone surrogates, which JSON escapes can produce
    return names
