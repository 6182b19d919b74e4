# SPDX-License-Identifier: BSD-3-Clause
"""Reads plain tables of pictures and labels, CSV or JSON lines, row by row."""

import csv
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.progress import progress

_REMEMBERED = 100_000  # labels that are looked at once only
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class TableRow(NamedTuple):
    """One picture.

    Attributes:
        line: where the row ends in its file, from 1.
        path: of the picture.
        labels: (label, confidence), in the order of the row.
        split: what the column of splits says; None without such a column.
    """

    line: int
    path: str
    labels: list[tuple[str, float]]
    split: str | None


def read_table(
    path: Path, *, label_separator: str = ";", split_column: str | None = None
) -> Iterator[TableRow]:
    """Reads CSV (.csv) or JSON lines (.jsonl, .ndjson); blank lines are skipped.

    CSV has a header with the columns path and labels, others are passed over. In labels a name may
    be followed by a colon and a number, its confidence. A line of JSON is an object with the keys
    path and labels; labels are a list of names, or an object of names and confidences.

    Args:
        path: of the table.
        label_separator: between the labels of a row of CSV.
        split_column: column, or key, that says to which split a row belongs.

    Raises:
        PrepareError: with path and line, at the first bad row.
    """
    lines = _Lines(path)
    if path.suffix == ".csv":
        rows = _csv_rows(lines, label_separator, split_column)
    elif path.suffix in (".jsonl", ".ndjson"):
        rows = _json_rows(lines, split_column)
    else:
        raise PrepareError(f"{path}: not named .csv, .jsonl or .ndjson; rename it to what it is")
    try:
        yield from rows
    except (ValueError, RecursionError, csv.Error) as error:
        raise PrepareError(f"{path}:{lines.number}: {error}") from error


class _Lines:
    """The lines of a file, with their ends; `number` is that of the latest one, from 1."""

    def __init__(self, path: Path):
        self.number = 1
        self._path = path

    def __iter__(self) -> Iterator[str]:
        size = self._path.stat().st_size
        with (
            self._path.open("rb") as file,
            progress(size, what=self._path.name, unit=" bytes") as bar,
        ):
            for self.number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig" if self.number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(f"not UTF-8 ({error}); save the table as UTF-8") from error
                bar.update(len(line))


def _csv_rows(lines: _Lines, label_separator: str, split_column: str | None) -> Iterator[TableRow]:
    reader = csv.reader(lines, strict=True)
    header = [name.strip() for name in next(reader, [])]
    wanted = ["path", "labels", *([split_column] if split_column else [])]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise ValueError(f"the header {','.join(header)[:80]!r} lacks {' and '.join(missing)}")
    places = [header.index(name) for name in wanted]
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{len(row)} columns where the header has {len(header)}; put a text with commas "
                'into quotes: "a,b"'
            )
        path, labels, *split = (row[place].strip() for place in places)
        parsed = [_csv_label(text) for text in labels.split(label_separator) if text.strip()]
        yield _row(lines.number, path, parsed, split[0] if split else None)


@functools.lru_cache(_REMEMBERED)
def _csv_label(text: str) -> tuple[str, float]:
    name, colon, number = text.rpartition(":")
    if colon and _NUMBER.fullmatch(number.strip()):
        return _label(name, float(number))
    return _label(text, 1.0)


@functools.lru_cache(_REMEMBERED)
def _label(label: str, confidence: float) -> tuple[str, float]:
    name = " ".join(label.split())
    if not name:
        raise ValueError("a label is empty; name it or remove it")
    if not (confidence == -1 or 0 <= confidence <= 1):
        raise ValueError(
            f"confidence {confidence} of {name!r} is neither -1 (unknown) nor between 0 and 1; "
            "correct it, or if it is part of the name put a confidence behind it"
        )
    return name, float(confidence)


def _json_rows(lines: _Lines, split_column: str | None) -> Iterator[TableRow]:
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg}, column {error.colno}") from error
        if not isinstance(entry, dict):
            raise ValueError('not an object such as {"path": "a.jpg", "labels": ["dog", "cat"]}')
        split = None if split_column is None else _text(entry, split_column)
        yield _row(lines.number, _text(entry, "path"), _json_labels(entry.get("labels")), split)


def _text(entry: dict[str, Any], key: str) -> str:
    if not isinstance(value := entry.get(key), str):
        what = f"is {value!r}" if key in entry else "is missing"
        raise ValueError(f'"{key}" {what}; it must be a text')
    return value


def _json_labels(labels: Any) -> list[tuple[str, float]]:
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return [_label(label, 1.0) for label in labels]
    if isinstance(labels, dict) and all(type(value) in (int, float) for value in labels.values()):
        return [_label(label, value) for label, value in labels.items()]
    raise ValueError(
        '"labels" must be a list of texts, or an object of texts and numbers: {"dog": 0.9}'
    )


def _row(line: int, path: str, labels: list[tuple[str, float]], split: str | None) -> TableRow:
    if not path:
        raise ValueError("the path is empty; name the file of the picture")
    return TableRow(line, path, labels, split)
