# SPDX-License-Identifier: BSD-3-Clause
"""Reads tables of images and labels, whatever their columns are called, row by row."""

import ast
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.labels.same_names import normal
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.columns import KNOWN, choose_columns, number_of
from mlimages_jax.prepare.imports.delimited import (
    SAMPLE_LINES,
    Format,
    Record,
    find_format,
    read_records,
)
from mlimages_jax.prepare.imports.json_records import (
    columns_of,
    embedded_images,
    read_json,
    read_lines,
    read_parquet,
)

DELIMITED = (".csv", ".tsv", ".tab", ".psv", ".txt", ".data")
JSON_LINES = (".jsonl", ".ndjson")
KINDS = (*DELIMITED, *JSON_LINES, ".json", ".parquet")
_REMEMBERED = 100_000  # labels that are looked at once only
_NUMBER = re.compile(r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
# A comma between labels; that of "dog:0,8" is a decimal one.
_COMMA = re.compile(r"(?<!:[01]),|,(?![0-9])")

OnBad = Callable[[int, str], None]


class TableRow(NamedTuple):
    """One image.

    Attributes:
        line: where the row begins in its file, from 1.
        path: of the image.
        labels: (label, confidence), in the order of the row.
        split: what the column of splits says; None without such a column.
    """

    line: int
    path: str
    labels: list[tuple[str, float]]
    split: str | None


class TableOptions(NamedTuple):
    """What somebody has said about a table; what is None is found out.

    Attributes:
        path_column: of the image's path.
        label_columns: of its labels, or one column a label with 0 and 1.
        split_column: of its split; None: there is none, unless `find_split`.
        label_separator: between the labels of a cell.
        delimiter: between the columns.
        encoding: of the text.
        find_split: whether to look for a column of splits.
    """

    path_column: str | None = None
    label_columns: tuple[str, ...] = ()
    split_column: str | None = None
    label_separator: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    find_split: bool = False


class Table:
    """A table whose format and columns are known.

    Args:
        path: of the table: delimited text, JSON or Parquet, by its suffix (before .gz).
        options: what is known about it.

    Attributes:
        path: the same.
        columns: what each column is.
        separator: between the labels of a cell.

    Raises:
        PrepareError: it is of another kind, empty, or lacks a column.
    """

    def __init__(self, path: Path, options: TableOptions = TableOptions()):  # noqa: B008
        self.path = path
        self._options = options
        self._suffix = table_suffix(path)
        if self._suffix not in KINDS:
            raise PrepareError(
                f"{path}: not named {', '.join(KINDS[:-1])} or {KINDS[-1]}; rename it to what it "
                "is, or save it as CSV in UTF-8"
            )
        self._format = self._find_format()
        sample = [record.values for record in self._records(SAMPLE_LINES) if record.values]
        names = self._names(sample)
        if self._suffix == ".parquet" and (images := embedded_images(path)):
            self._refuse_embedded(images)
        try:
            self.columns = choose_columns(
                names,
                sample,
                path=options.path_column,
                labels=options.label_columns,
                split=options.split_column,
                find_split=options.find_split,
            )
        except ValueError as error:
            raise PrepareError(f"{path}:1: {error}") from error
        self.separator = options.label_separator or self._find_separator(sample)

    @property
    def format(self) -> str:
        """How it is written, for people."""
        if self._format is None:
            return {".json": "JSON", ".parquet": "Parquet"}.get(self._suffix, "JSON lines")
        name = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
        between = name.get(self._format.delimiter, repr(self._format.delimiter))
        return f"columns between {between}" + (", no header" * (not self._format.has_header))

    def rows(self, on_bad: OnBad | None = None, *, limit: int | None = None) -> Iterator[TableRow]:
        """Yields the rows.

        Args:
            on_bad: takes line and reason of a row that cannot be used; None: that is an error.
            limit: stop after so many lines; None: never.

        Raises:
            PrepareError: with path and line; at the first bad row without `on_bad`.
        """
        for record in self._records(limit):
            try:
                if record.values is None:
                    raise ValueError(record.error)
                row = self._row(record.line, record.values)
            except (ValueError, RecursionError) as error:
                if on_bad is None:
                    raise PrepareError(f"{self.path}:{record.line}: {error}") from error
                on_bad(record.line, str(error))
                continue
            yield row

    def _row(self, line: int, values: Mapping[str, object]) -> TableRow:
        columns = self.columns
        path = _path_of(values, columns.path)
        labels = [
            label for name in columns.labels for label in labels_of(values, name, self.separator)
        ]
        labels += [
            (_label(name, 0.0)[0], confidence)
            for name in columns.one_hot
            if (confidence := _confidence(values, name)) is not None
        ]
        split = None if columns.split is None else _text(values, columns.split)
        return TableRow(line, path, labels, split)

    def _find_format(self) -> Format | None:
        if self._suffix not in DELIMITED:
            return None
        options = self._options
        said = (options.path_column, *options.label_columns, options.split_column)
        return find_format(
            self.path,
            encoding=options.encoding,
            delimiter=options.delimiter,
            known=[*KNOWN, *filter(None, said)],
        )

    def _records(self, limit: int | None) -> Iterator[Record]:
        encoding = self._options.encoding
        if self._format is not None:
            return read_records(self.path, self._format, encoding=encoding, limit=limit)
        if self._suffix == ".parquet":
            return read_parquet(self.path, limit=limit)
        if self._suffix == ".json":
            return read_json(self.path, encoding=encoding)
        return read_lines(self.path, encoding=encoding, limit=limit)

    def _names(self, sample: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
        if self._format is not None:
            return self._format.columns
        names = columns_of(Record(0, dict(values)) for values in sample)
        # In JSON a first object without a key, or no object at all, must not hide what is usual.
        return names or ("path", "labels")

    def _find_separator(self, sample: Sequence[Mapping[str, object]]) -> str:
        """A semicolon, unless the cells have bars, or commas between parts that recur."""
        texts = [
            cell
            for name in self.columns.labels
            for values in sample
            if isinstance(cell := values.get(name), str) and not cell.startswith("[")
        ]
        if any(";" in text for text in texts):
            return ";"
        if any("|" in text for text in texts):
            return "|"
        parts = Counter(part.strip() for text in set(texts) for part in text.split(","))
        return "," if len(parts) < len(set(texts)) and any("," in text for text in texts) else ";"

    def _refuse_embedded(self, names: Sequence[str]) -> None:
        raise PrepareError(
            f"{self.path}: holds the images themselves, in {', '.join(names)}; write them to files "
            "first, with a column of their paths: for row in datasets.load_dataset(...): "
            'row["image"].save(...)'
        )


def table_suffix(path: Path) -> str:
    """The suffix that says what kind of table it is: .csv of a.CSV and of a.csv.gz."""
    inner = Path(path.stem) if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower()


def read_table(
    path: Path, *, label_separator: str | None = None, split_column: str | None = None
) -> Iterator[TableRow]:
    """Yields the rows of a table, see `Table`.

    Raises:
        PrepareError: with path and line, at the first bad row.
    """
    options = TableOptions(label_separator=label_separator, split_column=split_column)
    yield from Table(path, options).rows()


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


def _confidence(values: Mapping[str, object], name: str) -> float | None:
    """Of a one-hot column; None where it is empty."""
    cell = values.get(name)
    if cell is None or (isinstance(cell, str) and not cell.strip()) or cell != cell:
        return None
    number = number_of(cell)
    if number is None:
        raise ValueError(f"{name!r} is {cell!r}; the column has numbers: 1 present, 0 absent")
    return _label(name, number)[1]


def _split(text: str, separator: str) -> list[str]:
    return _COMMA.split(text) if separator == "," else text.split(separator)


def _listed(text: str) -> list[object]:
    """The list that a cell such as "['dog', 'cat']" means; without quotes, what commas part."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    return list(value) if isinstance(value, list) else [text]


def _categories(cell: Mapping[str, object]) -> list[object] | None:
    """What boxes of Hugging Face's objects show: {"bbox": [...], "categories": [...]}."""
    for key in ("categories", "category", "labels", "label"):
        if isinstance(inner := cell.get(key), list):
            return list(dict.fromkeys(inner)) if all(map(_is_name, inner)) else inner
    return None


def _is_name(value: object) -> bool:
    return isinstance(value, str | int)


def _path_of(values: Mapping[str, object], column: str) -> str:
    cell = values.get(column)
    if isinstance(cell, dict) and "path" in cell:
        return _path_of(cell, "path")
    path = _text(values, column).strip()
    if not path:
        raise ValueError("the path is empty; name the file of the image")
    return path


def _text(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a number that names a file
    if not isinstance(value, str):
        what = f"is {value!r}" if key in values else "is missing"
        raise ValueError(f'"{key}" {what}; it must be a text')
    return value
