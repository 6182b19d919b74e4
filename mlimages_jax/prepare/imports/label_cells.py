# SPDX-License-Identifier: BSD-3-Clause
"""Parses the labels in a cell of a table, in the many ways in which several are written."""

import ast
import contextlib
import functools
import json
import re
from collections.abc import Mapping, Sequence

from mlimages_jax.labels.same_names import normal
from mlimages_jax.prepare.imports.columns import NUMBER, number_of

_REMEMBERED = 100_000  # labels whose parsed form is cached
_NUMBERS = re.compile(r" *[0-9]+(?: +[0-9]+)+ *")  # "16 0": classes given by their numbers
# A comma between labels; the one in "dog:0,8" is a decimal comma.
_COMMA = re.compile(r"(?<!:[01]),|,(?![0-9])")


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()  # the cell of a column whose key is missing from a JSON object


def find_separator(texts: Sequence[str]) -> str:
    """Detects the separator of labels: semicolon, bar, comma between parts that recur, or space.

    Commas without spaces also separate labels if all cells are the same, as in "a,b". Spaces
    separate numbers only: those between words are usually part of a name.
    """
    if any(";" in text for text in texts):
        return ";"
    if any("|" in text for text in texts):
        return "|"
    filled = [text for text in texts if text.strip()]
    if any(map(_NUMBERS.fullmatch, texts)) and all(_NUMBERS.fullmatch(f"0 {t}") for t in filled):
        return " "
    different = {*filled}
    parts = {part.strip() for text in different for part in text.split(",")}
    if len(different) == 1 < len(filled):  # nothing can recur: a name has a blank behind its comma
        return "," if all("," in text and ", " not in text for text in different) else ";"
    return "," if len(parts) < len(different) and any("," in text for text in texts) else ";"


def labels_of(cell: object, column: str, separator: str) -> list[tuple[str, float]]:
    """Returns the labels of a cell: a text, a list, or an object of names and confidences.

    Raises:
        ValueError: The cell is something else, or a confidence is out of range.
    """
    if isinstance(cell, dict) and (inner := _categories(cell)) is not None:
        cell = inner
    if isinstance(cell, str):
        text = cell.strip()
        if text.startswith("[") and text.endswith("]"):
            cell = _listed(text)
        elif (held := _object_in(text)) is not None:
            cell = held
        else:
            return list(filter(None, map(parse_label, _split(text, separator))))
    if isinstance(cell, int) and not isinstance(cell, bool):
        return [_label(str(cell), 1.0)]
    if isinstance(cell, list) and {*map(type, cell)} <= {str, int}:
        return [_label(str(label), 1.0) for label in cell]
    if isinstance(cell, dict) and {*map(type, cell.values())} <= {int, float}:
        return [*map(_label, cell, cell.values())]
    if cell is None or cell is MISSING:
        state = "missing" if cell is MISSING else "empty"
        raise ValueError(f'there is no label: "{column}" is {state}; fill it in, or give []')
    raise ValueError(
        f'"{column}" must be a list of texts, or an object of texts and numbers: {{"dog": 0.9}}'
    )


@functools.lru_cache(_REMEMBERED)
def parse_label(text: str) -> tuple[str, float] | None:
    """Parses "dog" or "dog:0.8"; returns None for an empty text between separators.

    Raises:
        ValueError: The name is empty, or the confidence is out of range.
    """
    if not text.strip():
        return None
    name, colon, number = text.rpartition(":")
    if colon and NUMBER.fullmatch(number.strip()):
        return _label(name, float(number.replace(",", ".")))
    return _label(text, 1.0)


def label_name(text: str) -> str:
    """Normalises a label: single spaces, composed characters (NFC)."""
    return normal(" ".join(text.split()))


@functools.lru_cache(_REMEMBERED)
def _label(label: str, confidence: float) -> tuple[str, float]:
    name = label_name(label)
    if not name:
        raise ValueError("a label is empty; name it or remove it")
    if not (confidence == -1 or 0 <= confidence <= 1):
        raise ValueError(
            f"confidence {confidence} of {name!r} is neither -1 (unknown) nor between 0 and 1; "
            "correct it, or if it is part of the name append a confidence"
        )
    return name, float(confidence)


def confidences_of(
    cells: Sequence[object], columns: Sequence[str], labels: Sequence[str]
) -> list[tuple[str, float]]:
    """Returns the labels of one-hot columns; an empty cell is no label.

    Args:
        cells: Cells of these columns.
        columns: Names of the columns, for messages.
        labels: Labels of the columns.

    Raises:
        ValueError: A cell is not a confidence.
    """
    try:
        found = [*map(_remembered_confidence, cells)]
    except (ValueError, TypeError):
        # Repeat without the cache: for the message, and because JSON lists are not hashable.
        found = [_confidence(cell, name) for cell, name in zip(cells, columns, strict=True)]
    return [(label, n) for label, n in zip(labels, found, strict=True) if n is not None]


def _confidence(cell: object, column: str) -> float | None:
    if cell is None or cell is MISSING or (isinstance(cell, str) and not cell.strip()):
        return None
    if cell != cell:  # NaN, an empty cell in Parquet, is the only value that differs from itself
        return None
    number = number_of(cell)
    if number is None:
        raise ValueError(f"{column!r} is {cell!r}; the column has numbers: 1 present, 0 absent")
    return _label(column, number)[1]


@functools.lru_cache(_REMEMBERED)
def _remembered_confidence(cell: object) -> float | None:
    return _confidence(cell, "a column")


def _split(text: str, separator: str) -> list[str]:
    if separator == "," and ":" in text:
        return _COMMA.split(text)
    return text.split(separator)


def _listed(text: str) -> list[object]:
    """Parses a list such as "['dog', 'cat']"; without quotes, splits it at commas."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    return list(value) if isinstance(value, list) else [text]


def _object_in(text: str) -> dict[str, object] | None:
    """Parses an object such as '{"dog": 0.5}'; None if it is just a text in braces."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = parse(text)
            if isinstance(value, dict) and all(isinstance(key, str) for key in value):
                return value
    return None


def _categories(cell: Mapping[str, object]) -> list[object] | None:
    """Returns the categories of Hugging Face's objects: {"bbox": [...], "categories": [...]}."""
    for key in ("categories", "category", "labels", "label"):
        if isinstance(inner := cell.get(key), list):
            return list(dict.fromkeys(inner)) if all(map(_is_name, inner)) else inner
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str | int)
