# SPDX-License-Identifier: BSD-3-Clause
"""Detects a table's columns of paths, labels and splits: by name, then by value."""

import re
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from mlimages_jax.prepare.imports.delimited import is_image_path

PATHS = (
    "path", "file_name", "filename", "filepath", "file_path", "file", "image_path", "img_path",
    "image_file", "image_name", "img_name", "image", "img", "image_id", "imageid", "id_code",
    "images", "name", "id", "url", "image_url",
)  # fmt: skip
LABELS = (
    "labels", "label", "tags", "tag", "classes", "class", "categories", "category", "class_name",
    "classname", "label_name", "class_id", "target", "targets", "attributes", "species", "breed",
    "objects", "finding labels",
)  # fmt: skip
SPLITS = ("split", "subset", "partition", "set", "dataset", "data set", "phase", "usage")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val",
               "validation": "val", "dev": "val", "test": "test", "testing": "test"}  # fmt: skip
_SPLIT_FLAGS = {"is_valid": "val", "is_val": "val", "is_validation": "val", "is_test": "test"}
_CERTAIN_PATHS = PATHS[:5]  # columns with these names are paths, whatever their values look like
KNOWN = (*PATHS, *LABELS, *SPLITS, *_SPLIT_FLAGS)
# Spreadsheets write TRUE and FALSE in the language of their menus.
TRUE = {"true", "yes", "x", "y", "t", "\u2713", "\u2714", "wahr", "ja", "vrai", "oui", "vero",
        "verdadero"}  # fmt: skip
FALSE = {"false", "no", "n", "f", "falsch", "nein", "faux", "non", "falso"}
_INDEX = re.compile(r"column 1|unnamed: 0|index|level_0", re.IGNORECASE)  # written by pandas
NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)?")


class Columns(NamedTuple):
    """The meaning of the columns of a table.

    Attributes:
        path: Column of the image's path.
        labels: Columns whose values are labels.
        one_hot: Columns that are labels themselves, with a number for every image.
        split: Column with the split of the image.
        why: How the columns were recognised, for the user.
    """

    path: str
    labels: tuple[str, ...]
    one_hot: tuple[str, ...]
    split: str | None
    why: str


def choose_columns(
    names: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    *,
    path: str | None = None,
    labels: Sequence[str] = (),
    split: str | None = None,
    find_split: bool = False,
) -> Columns:
    """Decides the meaning of each column.

    Args:
        names: Names of the columns.
        rows: Some rows of the table.
        path: Path column given by the user; None: detect it.
        labels: Label columns given by the user; empty: detect them. Several columns of numbers
            between 0 and 1 are one-hot.
        split: Split column given by the user; None: there is none, unless `find_split`.
        find_split: Whether to look for a column with the words train, val and test.

    Raises:
        ValueError: A column is missing, occurs twice or cannot be detected; the message lists the
            columns.
    """
    there = set(names)  # a list would be slow with 100,000 columns
    for name in filter(None, (path, *labels, split)):
        _check_name(name, names, there)
    if split is None and find_split:
        split = _find_split(names, rows)
    said = set(labels)
    path_column = path or _find_path([name for name in names if name not in said], rows)
    rest = [name for name in names if name not in (path_column, split) and not _is_flag(name)]
    chosen, why = (list(labels), "as asked") if labels else _find_labels(rest, rows)
    if path_column is None or not chosen:
        what = "path" if path_column is None else "labels"
        option = "--path-column" if path_column is None else "--label-columns"
        columns = ", ".join(map(repr, names)) or "none"
        raise ValueError(
            f"the table lacks {what}, and no other column looks like it; its columns are "
            f"{columns[:400]}: name it with {option} NAME"
        )
    for name in (path_column, *chosen):
        _check_name(name, names, there)
    if split is None and find_split:
        left = [name for name in _by_name(rest, (*SPLITS, "fold")) if name not in chosen]
        if left:
            why += f"; {left[0]!r} is not a split column: its words are not train, val and test"
    one_hot = {name: None for name in chosen if len(chosen) > 1 and _is_one_hot(name, rows)}
    if rows and 0 < len(one_hot) < len(chosen):
        texts = [name for name in chosen if name not in one_hot]
        why += f"; {', '.join(map(repr, texts[:5]))} contain names, the others 0 and 1"
    return Columns(
        path_column, tuple(n for n in chosen if n not in one_hot), tuple(one_hot), split, why
    )


def number_of(value: object) -> float | None:
    """Returns the number in a cell: 1, 0.5, "0,5", TRUE, no; None if it is not a number."""
    if isinstance(value, bool | int | float):
        return float(value)
    text = str(value).strip().lower() if isinstance(value, str) else ""
    if text in TRUE or text in FALSE:
        return float(text in TRUE)
    return float(text.replace(",", ".")) if NUMBER.fullmatch(text) else None


def _check_name(name: str, names: Sequence[str], there: Set[str]) -> None:
    if name not in there:
        raise ValueError(
            f"the table lacks {name}; its columns are {', '.join(map(repr, names))[:400]}"
        )
    if f"{name} (2)" in there:
        raise ValueError(
            f"the column {name!r} occurs twice: rename one, or choose another with --path-column "
            "or --label-columns"
        )


def _cells(name: str, rows: Sequence[Mapping[str, object]]) -> list[object]:
    """Returns the cells of a column that are not empty."""
    cells = (row.get(name) for row in rows)
    # NaN, which pandas writes into JSON for an empty cell, is not equal to itself.
    return [cell for cell in cells if cell is not None and cell != "" and cell == cell]


def _find_path(names: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str | None:
    def fraction(name: str) -> float:
        cells = _cells(name, rows)
        paths = [cell["path"] if isinstance(cell, dict) and "path" in cell else cell
                 for cell in cells]  # fmt: skip
        return sum(map(is_image_path, paths)) / max(1, len(cells))

    by_name = _by_name(names, PATHS)
    if by_name and by_name[0].strip().lower() in _CERTAIN_PATHS:
        return by_name[0]
    like_paths = [name for name in (*by_name, *names) if fraction(name) >= 0.5]
    return next(iter([*like_paths, *by_name]), None)


def _find_labels(
    names: Sequence[str], rows: Sequence[Mapping[str, object]]
) -> tuple[list[str], str]:
    by_name = _by_name(names, LABELS)
    if by_name:
        return by_name[:1], "by its name"
    numbered = bool(names) and _INDEX.fullmatch(names[0].strip()) and _counts_up(names[0], rows)
    one_hot = [name for name in names[int(bool(numbered)) :] if _is_one_hot(name, rows)]
    if len(one_hot) > 1:
        return one_hot, "they contain 0 and 1"
    return (list(names), "it is the only other one") if len(names) == 1 else ([], "")


def split_of_cell(column: str, cell: object) -> object:
    """Returns the split in a cell; in a column such as is_valid, "val" or "train"."""
    flag = _SPLIT_FLAGS.get(column.strip().lower())
    number = None if flag is None else number_of(cell)
    if flag is None or number is None:
        return cell
    return flag if number else "train"


def _find_split(names: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str | None:
    """Returns the column in which most cells are split names; other words name further splits."""
    for name in (*_by_name(names, SPLITS), *filter(_is_flag, names)):
        cells = [split_of_cell(name, cell) for cell in _cells(name, rows)]
        known = sum(str(cell).strip().lower() in SPLIT_WORDS for cell in cells)
        if cells and known * 2 >= len(cells):
            return name
    return None


def _is_flag(name: str) -> bool:
    return name.strip().lower() in _SPLIT_FLAGS


def _by_name(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns the names that are known, in the order of `known`."""
    # Reversed, so that of names that differ in case only the first remains.
    lower = {name.strip().lower(): name for name in reversed(names)}
    return [lower[name] for name in known if name in lower]


def _counts_up(name: str, rows: Sequence[Mapping[str, object]]) -> bool:
    """Returns whether a column numbers the rows 0, 1, 2; two rows of it would look one-hot."""
    numbers = [number_of(cell) for cell in _cells(name, rows)]
    return any(numbers == [start + i for i in range(len(numbers))] for start in (0, 1))


def _is_one_hot(name: str, rows: Sequence[Mapping[str, object]]) -> bool:
    cells = _cells(name, rows)
    numbers = [number_of(cell) for cell in cells]
    return bool(cells) and all(n is not None and (n == -1 or 0 <= n <= 1) for n in numbers)
