# SPDX-License-Identifier: BSD-3-Clause
"""Reads tables stored as JSON lines, as one JSON value, or as Parquet; rows are mappings.

Each row comes with its line or number, from 1; an unusable row is replaced by an error message.
"""

import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.arrow_files import ArrowFile, holds_bytes
from mlimages_jax.prepare.imports.class_names import ClassNames, classes_in, features_of
from mlimages_jax.prepare.imports.records import Record
from mlimages_jax.prepare.imports.text_lines import Lines, check_decoded, open_text

_OBJECT = 'not an object such as {"path": "a.jpg", "labels": ["dog", "cat"]}'
_PARQUET_ROWS = 1_000  # rows in memory


def read_lines(
    path: Path, *, encoding: str | None = None, limit: int | None = None
) -> Iterator[Record]:
    """Yields the objects of a file with one object per line; skips blank lines.

    Args:
        path: The file.
        encoding: As for `text_lines.open_text`.
        limit: Stop after this many lines; None: never.
    """
    lines = Lines(path, encoding=encoding, limit=limit)
    for number, line in enumerate(lines, start=1):
        lines.needed = number
        if line.isspace():
            continue
        try:
            if number <= lines.not_text:
                check_decoded(line)
            yield _record(number, json.loads(line))
        except json.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg}, column {error.colno}"
        except (ValueError, RecursionError) as error:
            yield number, str(error)


def read_json(path: Path, *, encoding: str | None = None) -> Iterator[Record]:
    """Yields the numbered objects of a list, or the entries of an object {path: labels}.

    Raises:
        PrepareError: The file is not JSON, or contains something else.
    """
    content = load_json(path, encoding=encoding)
    if isinstance(content, Mapping):
        content = [{"path": key, "labels": value} for key, value in content.items()]
    if not isinstance(content, list):
        raise PrepareError(f"{path}: neither a list of objects nor an object of paths and labels")
    for number, entry in enumerate(content, start=1):
        yield _record(number, entry)


def load_json(path: Path, *, encoding: str | None = None, object_hook: Any = None) -> Any:
    """Reads a JSON file in any of the encodings of `open_text`.

    Raises:
        PrepareError: The file is empty, or not JSON.
    """
    try:
        with open_text(path, encoding) as file:
            text = file.read()
        if not text or text.isspace():
            raise PrepareError(f"{path}: the file is empty; copy or download it again")
        return json.loads(text, object_hook=object_hook)
    except PrepareError:
        raise
    except (ValueError, RecursionError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PrepareError(f"{path}: not JSON ({error}); is the file complete?") from error


def read_parquet(path: Path, *, limit: int | None = None) -> Iterator[Record]:
    """Yields the rows of a Parquet file, with their number from 1.

    Columns of bytes are left out: embedded images may be gigabytes. Classes that the metadata of
    `datasets` names are their names.

    Raises:
        PrepareError: The file is damaged or not Parquet.
    """
    file = ArrowFile(path)
    columns = [field.name for field in file.schema if not holds_bytes(field.type)]
    classes = parquet_classes(path)
    batches = file.batches(columns, pyarrow.RecordBatch.to_pylist, rows=_PARQUET_ROWS)
    rows = itertools.islice(itertools.chain.from_iterable(batches), limit)
    for number, row in enumerate(rows, start=1):
        try:
            yield number, row | {name: one.labels_of(row[name]) for name, one in classes.items()}
        except ValueError as error:
            yield number, str(error)


def parquet_classes(path: Path) -> dict[str, ClassNames]:
    """Returns the names of classes of the columns that have some.

    Raises:
        PrepareError: The file is not Parquet.
    """
    schema = ArrowFile(path).schema
    return classes_in(features_of(path, schema.metadata), schema.names)


def embedded_images(path: Path) -> list[str]:
    """Returns the columns of a Parquet file that may contain images themselves.

    Raises:
        PrepareError: The file is not Parquet.
    """
    return [field.name for field in ArrowFile(path).schema if holds_bytes(field.type)]


def columns_of(rows: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """Returns the keys of some rows, in order of appearance."""
    return tuple(dict.fromkeys(key for row in rows for key in row))


def _record(number: int, entry: Any) -> Record:
    return number, entry if isinstance(entry, dict) else _OBJECT
