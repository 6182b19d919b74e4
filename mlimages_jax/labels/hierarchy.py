# SPDX-License-Identifier: BSD-3-Clause
"""The semantic hierarchy of the classes: a forest in which every class has at most one parent.

The class list is tab-separated UTF-8 text with a header line and four columns: the index of the
class (0, 1, 2, ... in this order), its WordNet id, the index of its parent (-1 for a root) and its
name, a comma-separated list of synonyms. A parent may have a larger index than its child.

The release's imagenet2012_dictionary.txt has neither header nor ids nor parents: an index, then the
words of the name, each preceded by a tab. It can be read too; its classes are roots with the ids
class0, class1, ..., which are mere numbers (`has_made_up_ids`). The released list itself is
recognised (`labels.word_list`): its classes get their WordNet ids, and their names the commas.
"""

import dataclasses
import functools
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlimages_jax.files import text_files
from mlimages_jax.labels import word_list
from mlimages_jax.labels.same_names import SameNames

HEADER = "category_index\tcategory_id\tindex_of_parent_category\tcategory name"
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_BREAKS_A_COLUMN = re.compile(r"[\t\r\n]")


class HierarchyError(ValueError):
    """The classes and parents do not form a forest, or their file is malformed."""


class _ClassError(ValueError):
    """An error of one class; the caller that knows the file turns the class into a line number."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchy:
    """C classes and their parents.

    Attributes:
        ids: Unique WordNet ids; the position is the class index.
        names: Complete synonym strings, such as "great white shark, white shark"; may repeat.
        parents: int32 [C], class index of the parent, -1 for a root. Read-only.

    Raises:
        HierarchyError: Lengths differ, an id repeats, a parent does not exist, or there is a cycle.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: np.ndarray

    def __post_init__(self) -> None:
        parents = np.array(self.parents, np.int32)
        parents.setflags(write=False)
        object.__setattr__(self, "parents", parents)
        if not len(self.ids) == len(self.names) == parents.size or parents.ndim != 1:
            raise HierarchyError(
                f"{len(self.ids)} ids, {len(self.names)} names and parents of shape "
                f"{parents.shape}: give one of each for every class"
            )
        try:
            _check_texts(self.ids, self.names)
            _check_parents(parents)
        except _ClassError as error:
            raise HierarchyError(f"class {error.index}: {error}") from error

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Hierarchy":
        """Reads a class list; blank lines, a byte order mark and Windows line ends are allowed.

        Raises:
            HierarchyError: A row or the hierarchy is invalid; the message has path and line number.
        """
        try:
            text = text_files.read_text(path)
        except text_files.TextFileError as error:
            raise HierarchyError(str(error)) from error
        return cls.from_text(text, where=os.fspath(path))

    @classmethod
    def from_text(cls, text: str, *, where: str) -> "Hierarchy":
        """Parses the content of a class list.

        Args:
            text: Content of the file.
            where: Where the text comes from, for error messages.

        Raises:
            HierarchyError: As for `from_file`.
        """
        ids, names, parents, lines = [], [], [], []
        for line, wordnet_id, parent, name in _read_rows(text, where):
            ids.append(wordnet_id)
            names.append(name)
            parents.append(parent)
            lines.append(line)
        if not ids:
            raise HierarchyError(f"{where}: no classes below the header; is the file complete?")
        if word_list.are_made_up(ids, names) and (known := word_list.of_imagenet(names)):
            ids, names = known
        try:
            return cls(tuple(ids), tuple(names), np.array(parents, np.int32))
        except HierarchyError as error:
            if isinstance(error.__cause__, _ClassError):
                line = lines[error.__cause__.index]
                raise HierarchyError(f"{where}:{line}: {error.__cause__}") from error
            raise

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Writes the class list that `from_file` reads."""
        rows = zip(self.ids, self.parents.tolist(), self.names, strict=True)
        with Path(path).open("w", encoding="utf-8", newline="\n") as file:
            file.write(HEADER + "\n")
            for index, (wordnet_id, parent, name) in enumerate(rows):
                file.write(f"{index}\t{wordnet_id}\t{parent}\t{name}\n")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_made_up_ids(self) -> bool:
        """Whether the ids are class0, class1, ... of a list of words: mere indices."""
        return word_list.are_made_up(self.ids, self.names)

    def index(self, wordnet_id: str) -> int:
        """Returns the class index of a WordNet id; raises KeyError if no class has it."""
        if wordnet_id in self._index_of_id:
            return self._index_of_id[wordnet_id]
        ids = SameNames(self.ids)
        if (same := ids.find(wordnet_id)) is not None:
            return self._index_of_id[same]
        raise KeyError(
            f"no class has the WordNet id {wordnet_id!r}; the {len(self)} ids of this "
            f"hierarchy look like {self.ids[0]!r}{ids.question(wordnet_id)}"
        )

    def ancestors(self, i: int) -> np.ndarray:
        """Returns the ancestors of class `i`, int32 [n], nearest first, without `i` itself.

        Raises:
            IndexError: There is no such class.
        """
        self._check_index(i)
        return self._paths[i, 1 : self.depth[i] + 1]

    def children(self, i: int) -> np.ndarray:
        """Returns the classes whose parent is `i`, int32 [n], ascending.

        Raises:
            IndexError: There is no such class.
        """
        self._check_index(i)
        return np.flatnonzero(self.parents == i).astype(np.int32)

    @functools.cached_property
    def depth(self) -> np.ndarray:
        """int32 [C]: the number of edges between a class and its root."""
        return (self._paths >= 0).sum(axis=1, dtype=np.int32) - np.int32(1)

    @functools.cached_property
    def roots(self) -> np.ndarray:
        """Classes without a parent, int32 [n], ascending."""
        return np.flatnonzero(self.parents == -1).astype(np.int32)

    @functools.cached_property
    def leaves(self) -> np.ndarray:
        """Classes without children, int32 [n], ascending."""
        return np.setdiff1d(np.arange(len(self), dtype=np.int32), self.parents)

    def paths(self) -> np.ndarray:
        """Returns int32 [C, D], D = deepest path in nodes, read-only.

        Row i is i followed by its ancestors, nearest first, then -1. Index it with many classes to
        close many label sets at once.
        """
        return self._paths

    def close(self, classes: np.ndarray, confidences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Closes the labels of one image over ancestors.

        A positive confidence is passed on to every ancestor, which gets the maximum of several.
        Neither -1 (unknown) nor 0 (known to be absent) is passed on: not being a dog says nothing
        about being an animal. Any known confidence replaces -1.

        Args:
            classes: [n] class indices; repetitions are allowed.
            confidences: [n], -1 or between 0 and 1.

        Returns:
            Classes int32 [m], ascending and without repetitions, and confidences float32 [m].

        Raises:
            ValueError: The two arrays differ in length.
            IndexError: A class is none of this hierarchy.
        """
        classes = np.asarray(classes, np.int32)
        confidences = np.asarray(confidences, np.float32)
        if classes.ndim != 1 or classes.shape != confidences.shape:
            raise ValueError(f"classes {classes.shape} and confidences {confidences.shape} differ")
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self):
            raise IndexError(f"classes {classes.tolist()} are not all in 0..{len(self) - 1}")
        paths = self._paths[classes]  # [n, D]
        takes = paths >= 0  # -1 fills the rows of shorter paths
        takes[confidences <= 0, 1:] = False
        values = np.broadcast_to(confidences[:, None], paths.shape)[takes]
        closed = paths[takes]
        order = np.lexsort((values, closed))
        closed, values = closed[order], values[order]
        # Sorted by class, then confidence: the last entry of a class has its maximum.
        last = np.append(closed[1:] != closed[:-1], True)[: len(closed)]
        return closed[last], values[last]

    @functools.cached_property
    def _index_of_id(self) -> dict[str, int]:
        return {wordnet_id: index for index, wordnet_id in enumerate(self.ids)}

    @functools.cached_property
    def _paths(self) -> np.ndarray:
        # All classes step up together: as many NumPy operations as the tree is deep.
        columns = []
        column = np.arange(len(self), dtype=np.int32)
        while (column >= 0).any():
            columns.append(column)
            column = _step_up(self.parents, column)
        paths = np.stack(columns, axis=1) if columns else np.zeros((0, 0), np.int32)
        paths.setflags(write=False)
        return paths

    def _check_index(self, i: int) -> None:
        if not 0 <= i < len(self):
            raise IndexError(f"class {i} is not in 0..{len(self) - 1}")


def _step_up(parents: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the parent of each class; -1 stays -1."""
    return np.where(classes >= 0, parents[classes], np.int32(-1))


def _check_texts(ids: tuple[str, ...], names: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    for index, (wordnet_id, name) in enumerate(zip(ids, names, strict=True)):
        if not wordnet_id.strip() or not name.strip():
            raise _ClassError(index, "the WordNet id or the name is empty; give both")
        if _BREAKS_A_COLUMN.search(wordnet_id + name):
            raise _ClassError(index, f"a tab or line end in {wordnet_id!r}, {name!r}; remove it")
        if first.setdefault(wordnet_id, index) != index:
            raise _ClassError(
                index,
                f"WordNet id {wordnet_id!r} is already class {first[wordnet_id]}; "
                "ids must be unique (names need not be)",
            )


def _check_parents(parents: np.ndarray) -> None:
    dangling = np.flatnonzero((parents < -1) | (parents >= len(parents)))
    if dangling.size:
        index = int(dangling[0])
        raise _ClassError(
            index,
            f"parent {parents[index]} does not exist; give one of 0..{len(parents) - 1}, "
            "or -1 for a root",
        )
    # After at least C steps up, every class is above its root, except those on or below a cycle.
    above = parents
    for _ in range(len(parents).bit_length()):
        above = _step_up(above, above)  # doubles the number of steps
    on_cycle = above[above >= 0]
    if on_cycle.size:
        cycle = [int(on_cycle.min())]
        while (parent := int(parents[cycle[-1]])) != cycle[0]:
            cycle.append(parent)
        way = " -> ".join(map(str, [*cycle, cycle[0]]))
        raise _ClassError(cycle[0], f"the parents form a cycle, {way}; make one of these a root")


def _read_rows(text: str, where: str) -> Iterator[tuple[int, str, int, str]]:
    """Yields (line number, WordNet id, parent, name); checks columns, header and index."""
    parse, expected = _parse_row, 0
    for line, ended in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1):
        row = ended.removesuffix("\n")
        if line == 1 and word_list.is_first_line(row):
            parse = _parse_words
        elif line == 1:
            _check_header(where, row)
            continue
        if row.strip():
            yield line, *parse(row, expected, f"{where}:{line}")
            expected += 1


def _check_header(where: str, row: str) -> None:
    if row.split("\t")[0].strip() != "category_index":
        raise HierarchyError(
            f"{where}:1: the header is {row[:80]!r}; the first line must be {HEADER!r}"
        )


def _parse_row(row: str, expected: int, where: str) -> tuple[str, int, str]:
    columns = row.split("\t")
    if len(columns) != 4:
        raise HierarchyError(
            f"{where}: {len(columns)} columns instead of 4 (index, WordNet id, parent index, "
            f"name); separate them by single tabs: {row[:80]!r}"
        )
    index, wordnet_id, parent, name = columns
    _check_index(index, expected, where)
    if not _INTEGER.fullmatch(parent):
        raise HierarchyError(
            f"{where}: parent {parent!r} is not an index; give a class index, or -1 for a root"
        )
    return wordnet_id, int(parent), name


def _parse_words(row: str, expected: int, where: str) -> tuple[str, int, str]:
    index, *words = row.split("\t")
    _check_index(index, expected, where)
    return f"{word_list.MADE_UP}{index}", -1, " ".join(words)


def _check_index(index: str, expected: int, where: str) -> None:
    if not _INTEGER.fullmatch(index) or int(index) != expected:
        raise HierarchyError(
            f"{where}: index {index!r} instead of {expected}; "
            "number the classes 0, 1, 2, ... without gaps, in order"
        )
