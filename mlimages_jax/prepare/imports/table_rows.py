# SPDX-License-Identifier: BSD-3-Clause
"""Reads tables of images and labels row by row, whatever their columns are called."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.columns import KNOWN, Columns, choose_columns, split_of_cell
from mlimages_jax.prepare.imports.delimited import (
    SAMPLE_LINES,
    Format,
    find_format,
    read_records,
)
from mlimages_jax.prepare.imports.json_records import (
    columns_of,
    embedded_images,
    parquet_classes,
    read_json,
    read_lines,
    read_parquet,
)
from mlimages_jax.prepare.imports.label_cells import (
    MISSING,
    confidences_of,
    find_separator,
    label_name,
    labels_of,
)
from mlimages_jax.prepare.imports.records import Records

DELIMITED = (".csv", ".tsv", ".tab", ".psv", ".txt", ".data")
JSON_LINES = (".jsonl", ".ndjson")
KINDS = (*DELIMITED, *JSON_LINES, ".json", ".parquet")

OnBad = Callable[[int, str], None]


class TableRow(NamedTuple):
    """One image.

    Attributes:
        line: Line where the row starts, from 1.
        path: Path of the image.
        labels: (label, confidence), in the order of the row.
        split: Value of the column of splits; None if there is no such column.
    """

    line: int
    path: str
    labels: list[tuple[str, float]]
    split: str | None


class TableOptions(NamedTuple):
    """The user's options for a table; None means: detect it.

    Attributes:
        path_column: Column of the image's path.
        label_columns: Column of its labels, or one column per label with 0 and 1.
        split_column: Column of its split; None: there is none, unless `find_split`.
        label_separator: Separator between the labels of a cell.
        delimiter: Delimiter between columns.
        encoding: Encoding of the text.
        find_split: Whether to look for a column of splits.
    """

    path_column: str | None = None
    label_columns: tuple[str, ...] = ()
    split_column: str | None = None
    label_separator: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    find_split: bool = False


class _Meaning(NamedTuple):
    """The meaning of columns and cells, as the first rows show it; the fields are `Table`'s."""

    columns: Columns
    separator: str
    is_separated: bool
    has_blanks: bool


class Table:
    """A table whose format and columns are known.

    Args:
        path: The table: delimited text, JSON or Parquet, by its suffix (before .gz).
        options: The user's options.
        records: The rows of a file in another format.
        like: A table with the same columns, which then are not searched for again.

    Attributes:
        path: The same.
        columns: Meaning of the columns.
        separator: Separator between the labels of a cell.
        is_separated: Whether a cell of the first rows contains it.
        has_blanks: Whether one contains a space, which may separate labels or be in a name.

    Raises:
        PrepareError: The table has another format, is empty, or lacks a column.
    """

    def __init__(
        self,
        path: Path,
        options: TableOptions,
        records: Records | None = None,
        *,
        like: "Table | None" = None,
    ):
        self.path = path
        self._options = options
        self._suffix = table_suffix(path)
        self._others = records
        if records is None and self._suffix not in KINDS:
            raise PrepareError(
                f"{path}: the name does not end in {', '.join(KINDS[:-1])} or {KINDS[-1]}; rename "
                "it to its format, or save it as CSV in UTF-8"
            )
        self._format = self._find_format()
        self._needed: tuple[str, ...] | None = None
        self._meaning: _Meaning = self._find_meaning() if like is None else like._meaning
        self.columns, self.separator, self.is_separated, self.has_blanks = self._meaning
        columns = self.columns
        self._needed = (columns.path, *filter(None, [columns.split]), *columns.labels,
                        *columns.one_hot)  # fmt: skip
        self._cells = self._picker()
        self._one_hot_labels = [label_name(name) for name in columns.one_hot]

    def _find_meaning(self) -> _Meaning:
        options = self._options
        sample = self._sample()
        names = self._names(sample)
        if self._others is None and self._suffix == ".parquet":
            self._refuse_embedded()
        try:
            columns = choose_columns(
                names,
                sample,
                path=options.path_column,
                labels=options.label_columns,
                split=options.split_column,
                find_split=options.find_split,
            )
        except ValueError as error:
            raise PrepareError(f"{self.path}:1: {error}") from error
        texts = _label_texts(sample, columns.labels)
        separator = options.label_separator or find_separator(texts)
        return _Meaning(
            columns,
            separator,
            is_separated=any(separator in text for text in texts),
            has_blanks=any(" " in text.strip() for text in texts),
        )

    @property
    def classes(self) -> tuple[str, ...] | None:
        """All classes in the order of the file, if it names those of every column of labels."""
        known: Mapping[str, Sequence[str]] = {}
        if self._others is not None:
            known = self._others.classes
        elif self._suffix == ".parquet":
            known = {name: one.names for name, one in parquet_classes(self.path).items()}
        columns = (*self.columns.labels, *self.columns.one_hot)
        if not columns or not all(name in known for name in columns):
            return None
        return tuple(dict.fromkeys(label_name(one) for name in columns for one in known[name]))

    @property
    def format(self) -> str:
        """Describes the format for the user."""
        if self._others is not None:
            return self._others.format
        if self._format is None:
            return {".json": "JSON", ".parquet": "Parquet"}.get(self._suffix, "JSON lines")
        name = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
        between = name.get(self._format.delimiter, repr(self._format.delimiter))
        return f"columns between {between}" + (", no header" * (not self._format.has_header))

    def rows(self, on_bad: OnBad | None = None, *, limit: int | None = None) -> Iterator[TableRow]:
        """Yields the rows.

        Args:
            on_bad: Called with line and reason of an unusable row; None: raise an error.
            limit: Stop after this many lines; None: never.

        Raises:
            PrepareError: The file cannot be read, or it has a bad row and there is no `on_bad`; the
                message gives path and line.
        """
        for line, values in self._records(limit):
            try:
                if isinstance(values, str):
                    raise ValueError(values)
                row = self._row(line, self._cells(values))
            except (ValueError, RecursionError) as error:
                if on_bad is None:
                    raise PrepareError(f"{self.path}:{line}: {error}") from error
                on_bad(line, str(error))
                continue
            yield row

    def _row(self, line: int, cells: Sequence[object]) -> TableRow:
        columns = self.columns
        path = _path_of(cells[0], columns.path)
        split = None
        if columns.split is not None:
            split = _text(split_of_cell(columns.split, cells[1]), columns.split)
        labels = []
        for name, cell in zip(columns.labels, cells[2:], strict=False):
            labels += labels_of(cell, name, self.separator)
        if columns.one_hot:
            numbers = cells[2 + len(columns.labels) :]
            labels += confidences_of(numbers, columns.one_hot, self._one_hot_labels)
        return TableRow(line, path, labels, split)

    def _picker(self) -> Callable[[Any], Sequence[object]]:
        """Returns a function that picks the cells: path, split (or path again), labels, one-hot."""
        columns = self.columns
        # Two names at least: itemgetter returns a bare cell instead of a tuple for a single one.
        names = (columns.path, columns.split or columns.path, *columns.labels, *columns.one_hot)
        if self._format is not None:
            return operator.itemgetter(*map(self._format.columns.index, names))
        return lambda values: [values.get(name, MISSING) for name in names]

    def _sample(self) -> list[Mapping[str, object]]:
        """Returns the first readable rows, by column."""
        rows = (values for _, values in self._records(SAMPLE_LINES) if not isinstance(values, str))
        if self._format is None:
            return [row for row in rows if row]
        return [dict(zip(self._format.columns, row, strict=False)) for row in rows]

    def _find_format(self) -> Format | None:
        if self._others is not None or self._suffix not in DELIMITED:
            return None
        options = self._options
        said = (options.path_column, *options.label_columns, options.split_column)
        return find_format(
            self.path,
            encoding=options.encoding,
            delimiter=options.delimiter,
            known=[*KNOWN, *filter(None, said)],
        )

    def _records(self, limit: int | None) -> Iterator[tuple[int, Any]]:
        """Yields lines or numbers with rows (lists or mappings) or with error messages."""
        encoding = self._options.encoding
        if self._others is not None:
            return self._others.read(limit, self._needed)
        if self._format is not None:
            return read_records(self.path, self._format, encoding=encoding, limit=limit)
        if self._suffix == ".parquet":
            return read_parquet(self.path, limit=limit)
        if self._suffix == ".json":
            return read_json(self.path, encoding=encoding)
        return read_lines(self.path, encoding=encoding, limit=limit)

    def _names(self, sample: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
        if self._others is not None:
            return self._others.names
        if self._format is not None:
            return self._format.columns
        names = columns_of(sample)
        # Without objects in the sample, assume the usual keys; `rows` then reports what is wrong.
        return names or ("path", "labels")

    def _refuse_embedded(self) -> None:
        names = embedded_images(self.path)
        if names and self._options.path_column is None:
            raise PrepareError(
                f"{self.path}: contains the images themselves, in {', '.join(names)}, which "
                "`mlimages data import FILE_OR_FOLDER` takes; if the images are files, name the "
                "column of their paths with --path-column"
            )


def _label_texts(sample: Sequence[Mapping[str, object]], labels: Sequence[str]) -> list[str]:
    """Returns label cells that are texts, which may contain separators."""
    return [
        cell
        for name in labels
        for values in sample
        if isinstance(cell := values.get(name), str) and not cell.startswith(("[", "{"))
    ]


def table_suffix(path: Path) -> str:
    """Returns the suffix that tells the format: .csv for a.CSV and for a.csv.gz."""
    inner = Path(path.stem) if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower()


def read_table(
    path: Path, *, label_separator: str | None = None, split_column: str | None = None
) -> Iterator[TableRow]:
    """Yields the rows of a table, see `Table`.

    Raises:
        PrepareError: There is a bad row; the message gives path and line of the first.
    """
    options = TableOptions(label_separator=label_separator, split_column=split_column)
    yield from Table(path, options).rows()


def _path_of(cell: object, column: str) -> str:
    if isinstance(cell, dict) and "path" in cell:
        return _path_of(cell["path"], "path")
    path = _text(cell, column).strip()
    if not path:
        raise ValueError("the path is empty; name the file of the image")
    return path


def _text(cell: object, column: str) -> str:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)  # a file named by a number
    if not isinstance(cell, str):
        raise ValueError(f'"{column}" is {cell!r}; it must be text')
    return cell
