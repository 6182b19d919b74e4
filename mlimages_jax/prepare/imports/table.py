# SPDX-License-Identifier: BSD-3-Clause
"""A plain table of pictures and labels to the files that our builder takes."""

import functools
import hashlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.list_rows import check_row
from mlimages_jax.labels.lists import LabelRow
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.manual_dir import (
    ManualDirWriter,
    Unlisted,
    check_split,
    what_came_and_what_is_next,
    write_manual_dir,
)
from mlimages_jax.prepare.imports.table_rows import TableRow, read_table

_PATH = " > "  # between the names in the id of a collected class


class ClassFinder:
    """Finds the class that a label means: by id, else by whole name, else by one of its synonyms.

    Args:
        hierarchy: the classes.
        separator: between the names of a label that is a path, such as "animal > dog".
    """

    def __init__(self, hierarchy: Hierarchy, *, separator: str):
        self._hierarchy = hierarchy
        self._separator = separator
        self._of_id = {id_: i for i, id_ in enumerate(hierarchy.ids)}
        self._of_name: dict[str, set[int]] = defaultdict(set)
        self._of_synonym: dict[str, set[int]] = defaultdict(set)
        for i, name in enumerate(hierarchy.names):
            self._of_name[name].add(i)
            for synonym in name.split(","):
                self._of_synonym[synonym.strip()].add(i)
        self._found: dict[str, int] = {}

    def find(self, label: str) -> int:
        """Returns the class index.

        Raises:
            ValueError: no class has this id or name, or several have the name.
        """
        if label not in self._found:
            self._found[label] = self._find(label)
        return self._found[label]

    def _find(self, label: str) -> int:
        for id_ in (label, _PATH.join(_names(label, self._separator))):
            if id_ in self._of_id:
                return self._of_id[id_]
        classes = self._of_name.get(label) or self._of_synonym.get(label) or set()
        if not classes:
            raise ValueError(
                f"no class has the id or name {label!r}; correct it, or add it to the dictionary"
            )
        if len(classes) > 1:
            ids = ", ".join(self._hierarchy.ids[i] for i in sorted(classes))
            raise ValueError(f"{label!r} is the name of several classes; give an id: {ids}")
        return next(iter(classes))


def import_table(
    tables: Positional[list[Path]],
    /,
    *,
    output: Path,
    dictionary: Path | None = None,
    label_separator: str = ";",
    hierarchy_separator: str = ">",
    split: str = "train",
    split_column: str | None = None,
    val_fraction: float = 0.0,
    unlisted: Unlisted = "absent",
) -> None:
    """Turns tables of picture files and labels into label lists.

    Tables are CSV with the columns path and labels (and any others), or JSON lines (.jsonl):

        path,labels
        1.jpg,animal > dog;ball:0.8

        {"path": "1.jpg", "labels": {"animal > dog": 1, "ball": 0.8}}
        {"path": "2.jpg", "labels": ["ball"]}

    For example, with every tenth picture for validation:

        python -m mlimages_jax.prepare import table photos.csv --output photos
            --val-fraction 0.1

    A label may carry a confidence: 1 present (the default), 0 absent, -1 nobody knows, or between.
    One row holds all labels of a picture. Of the same label twice in a row the highest counts.

    Without a dictionary the classes are what the tables name. A label such as "animal > dog" puts
    dog below animal, and the class animal is there too, though the list names dog alone: the
    builder adds it if asked for closed labels. "dog" by itself would be another class, without a
    parent. For more pictures of the same classes, give the dictionary.txt that this wrote.

    Args:
        tables: .csv, .jsonl or .ndjson files, in UTF-8.
        output: the folder to write to: the `--manual_dir` of `python -m tfds_builders.ml_images`.
        dictionary: category file of the classes; labels are their ids, their names as a whole, or
            single synonyms that only one class has.
        label_separator: between the labels of a row of CSV.
        hierarchy_separator: between the names of a label that tells its place in the hierarchy.
        split: to which all rows belong.
        split_column: column (or key) with the name of the split of each row, instead.
        val_fraction: share of the rows that goes to val, the others to train, instead: chosen by a
            hash of the path, so that a picture always falls to the same side.
        unlisted: what a class is that a picture does not list.
    """
    if not tables:
        raise PrepareError("no table is given; name at least one")
    if not (label_separator and hierarchy_separator):
        raise PrepareError("a separator is empty; leave the option out for the default")
    split_of = _split_rule(split, split_column, val_fraction)
    read = functools.partial(read_table, label_separator=label_separator, split_column=split_column)
    if dictionary:
        hierarchy = Hierarchy.from_file(dictionary)
    else:
        hierarchy = collect_classes(tables, read, separator=hierarchy_separator)
    finder = ClassFinder(hierarchy, separator=hierarchy_separator)
    with write_manual_dir(output, hierarchy, unlisted=unlisted) as writer:
        repeated = _write_rows(writer, tables, read, finder, split_of)
    if repeated:
        print(
            f"{repeated:,} rows have the path of an earlier row, and count as further pictures: "
            "put all labels of a picture into one row"
        )
    print(what_came_and_what_is_next(output, hierarchy, writer, unlisted=unlisted))


def collect_classes(
    tables: Iterable[Path], read: Callable[[Path], Iterable[TableRow]], *, separator: str
) -> Hierarchy:
    """Reads all labels; the classes are they and what their paths name above them.

    The id of a class is its path, the name what is last in it. Classes are sorted by path, each
    after its parent, so that the order of the rows has no influence.

    Raises:
        PrepareError: with path and line, for a label with an empty name in its path; or no labels.
    """
    seen: set[str] = set()
    classes: set[tuple[str, ...]] = set()
    for table in tables:
        for row in read(table):
            for label, _ in row.labels:
                if label not in seen:
                    seen.add(label)
                    try:
                        names = _names(label, separator)
                    except ValueError as error:
                        raise PrepareError(f"{table}:{row.line}: {error}") from error
                    classes.update(names[:depth] for depth in range(1, len(names) + 1))
    if not classes:
        raise PrepareError("the tables name no labels, and there is no --dictionary; give one")
    order = sorted(classes)
    place = {names: i for i, names in enumerate(order)}
    parents = np.array([place.get(names[:-1], -1) for names in order], np.int32)
    ids = tuple(_PATH.join(names) for names in order)
    return Hierarchy(ids, tuple(names[-1] for names in order), parents)


def label_row(row: TableRow, finder: ClassFinder) -> LabelRow:
    """Returns the row with classes in the place of labels, each class once with its maximum.

    Raises:
        ValueError: a label means no class, or the path cannot be a name of a list.
    """
    check_row(row.path, [], [], num_classes=0)
    labels: dict[int, float] = {}
    for label, confidence in row.labels:
        class_ = finder.find(label)
        labels[class_] = max(labels.get(class_, confidence), confidence)
    classes = np.fromiter(labels, np.int32, len(labels))
    return LabelRow(row.path, classes, np.fromiter(labels.values(), np.float32, len(labels)))


def in_val(path: str, fraction: float) -> bool:
    """Whether a picture belongs to this share of all: a function of its path alone."""
    digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _names(label: str, separator: str) -> tuple[str, ...]:
    """The names of a path, from the root on."""
    names = tuple(name.strip() for name in label.split(separator))
    if not all(names):
        raise ValueError(f"{label!r} has an empty name before or after {separator!r}; fill it in")
    label.encode()  # a ValueError where JSON has hidden half a character in it
    return names


def _split_rule(
    split: str, split_column: str | None, val_fraction: float
) -> Callable[[TableRow], str]:
    """Which split a row belongs to."""
    if not 0 <= val_fraction < 1:
        raise PrepareError(f"--val-fraction {val_fraction} is not from 0 to below 1")
    if (split_column is not None) + (val_fraction > 0) + (split != "train") > 1:
        raise PrepareError("give one of --split, --split-column and --val-fraction")
    check_split(split)
    if split_column is not None:
        return lambda row: row.split or ""  # the writer refuses an empty one
    return lambda row: "val" if in_val(row.path, val_fraction) else split


def _write_rows(
    writer: ManualDirWriter,
    tables: Iterable[Path],
    read: Callable[[Path], Iterable[TableRow]],
    finder: ClassFinder,
    split_of: Callable[[TableRow], str],
) -> int:
    """Writes all rows; returns how many have the path of an earlier one."""
    paths = array("q")  # their hashes, 8 bytes each
    for table in tables:
        for row in read(table):
            try:
                writer.write(split_of(row), [label_row(row, finder)])
            except (ValueError, PrepareError) as error:
                raise PrepareError(f"{table}:{row.line}: {error}") from error
            paths.append(hash(row.path))
    return len(paths) - len(np.unique(np.frombuffer(paths, np.int64)))
