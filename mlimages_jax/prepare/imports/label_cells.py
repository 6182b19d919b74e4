# SPDX-License-Identifier: BSD-3-Clause
"""The labels that a cell of a table holds, however people write several into one."""

import ast
import contextlib
import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from mlimages_jax.labels.same_names import normal
from mlimages_jax.prepare.imports.columns import number_of

_REMEMBERED = 100_000  # labels that are looked at once only
_NUMBER = re.compile(r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
_NUMBERS = re.compile(r" *[0-9]+(?: +[0-9]+)+ *")  # "16 0": classes by their numbers
# A comma between labels; that of "dog:0,8" is a decimal one.
_COMMA = re.compile(r"(?<!:[01]),|,(?![0-9])")


def find_separator(texts: Sequence[str]) -> str:
    """What parts labels: a semicolon, unless cells have bars, or commas between parts that recur.

    Blanks only between numbers: those between words are mostly part of a name.
    """
    if any(";" in text for text in texts):
        return ";"
    if any("|" in text for text in texts):
        return "|"
    filled = [text for text in texts if text.strip()]
    if any(map(_NUMBERS.fullmatch, texts)) and all(_NUMBERS.fullmatch(f"0 {t}") for t in filled):
        return " "
    parts = Counter(part.strip() for text in set(texts) for part in text.split(","))
    return "," if len(parts) < len(set(texts)) and any("," in text for text in texts) else ";"


def labels_of(values: Mapping[str, object], column: str, separator: str) -> list[tuple[str, float]]:
    """The labels of a cell: a text, a list, or an object of names and confidences.

    Raises:
        ValueError: it is something else, or a confidence is out of range.
    """
    cell = values.get(column)
    if isinstance(cell, dict) and (inner := _categories(cell)) is not None:
        cell = inner
    if isinstance(cell, str):
        text = cell.strip()
        if text.startswith("[") and text.endswith("]"):
            cell = _listed(text)
        elif (held := _object_in(text)) is not None:
            cell = held
        else:
            return [parse_label(part) for part in _split(text, separator) if part.strip()]
    if isinstance(cell, int) and not isinstance(cell, bool):
        return [_label(str(cell), 1.0)]
    if isinstance(cell, list) and all(type(label) in (str, int) for label in cell):
        return [_label(str(label), 1.0) for label in cell]
    if isinstance(cell, dict) and all(type(value) in (int, float) for value in cell.values()):
        return [_label(label, value) for label, value in cell.items()]
    raise ValueError(
        f'"{column}" must be a list of texts, or an object of texts and numbers: {{"dog": 0.9}}'
    )


@functools.lru_cache(_REMEMBERED)
def parse_label(text: str) -> tuple[str, float]:
    """Reads "dog" or "dog:0.8".

    Raises:
        ValueError: the name is empty, or the confidence out of range.
    """
    name, colon, number = text.rpartition(":")
    if colon and _NUMBER.fullmatch(number.strip()):
        return _label(name, float(number.replace(",", ".")))
    return _label(text, 1.0)


@functools.lru_cache(_REMEMBERED)
def _label(label: str, confidence: float) -> tuple[str, float]:
    name = normal(" ".join(label.split()))
    if not name:
        raise ValueError("a label is empty; name it or remove it")
    if not (confidence == -1 or 0 <= confidence <= 1):
        raise ValueError(
            f"confidence {confidence} of {name!r} is neither -1 (unknown) nor between 0 and 1; "
            "correct it, or if it is part of the name put a confidence behind it"
        )
    return name, float(confidence)


def one_hot_label(values: Mapping[str, object], name: str) -> tuple[str, float] | None:
    """The label that a one-hot column stands for, and its confidence; None where it is empty.

    Raises:
        ValueError: the cell is no number from 0 to 1.
    """
    cell = values.get(name)
    if cell is None or (isinstance(cell, str) and not cell.strip()) or cell != cell:
        return None
    number = number_of(cell)
    if number is None:
        raise ValueError(f"{name!r} is {cell!r}; the column has numbers: 1 present, 0 absent")
    return _label(name, number)


def _split(text: str, separator: str) -> list[str]:
    return _COMMA.split(text) if separator == "," else text.split(separator)


def _listed(text: str) -> list[object]:
    """The list that a cell such as "['dog', 'cat']" means; without quotes, what commas part."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    return list(value) if isinstance(value, list) else [text]


def _object_in(text: str) -> dict[str, object] | None:
    """The object that a cell such as '{"dog": 0.5}' holds; None: it is a text in braces."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = parse(text)
            if isinstance(value, dict) and all(isinstance(key, str) for key in value):
                return value
    return None


def _categories(cell: Mapping[str, object]) -> list[object] | None:
    """What boxes of Hugging Face's objects show: {"bbox": [...], "categories": [...]}."""
    for key in ("categories", "category", "labels", "label"):
        if isinstance(inner := cell.get(key), list):
            return list(dict.fromkeys(inner)) if all(map(_is_name, inner)) else inner
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str | int)
