# SPDX-License-Identifier: BSD-3-Clause
"""Tables as JSON lines, as one JSON value, and as Parquet: rows come as mappings.

Each comes with its line or number, from 1; in place of an unusable one, what is wrong with it.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.text_lines import Lines, check_decoded, open_text

_OBJECT = 'not an object such as {"path": "a.jpg", "labels": ["dog", "cat"]}'
_PARQUET_ROWS = 1_000  # held at once

Record = tuple[int, dict[str, Any] | str]


def read_lines(
    path: Path, *, encoding: str | None = None, limit: int | None = None
) -> Iterator[Record]:
    """Yields the objects of a file with one on each line; blank lines are skipped.

    Args:
        path: of the file.
        encoding: as for `text_lines.open_text`.
        limit: stop after so many lines; None: never.
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
    """Yields the objects of a list, or {path: labels} entries of an object, with their number.

    Raises:
        PrepareError: the file is no JSON, or another kind.
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
        PrepareError: it is no JSON.
    """
    try:
        with open_text(path, encoding) as file:
            return json.load(file, object_hook=object_hook)
    except (ValueError, RecursionError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PrepareError(f"{path}: not JSON ({error}); is the file complete?") from error


def read_parquet(path: Path, *, limit: int | None = None) -> Iterator[Record]:
    """Yields the rows of a Parquet file, with their number from 1.

    Bytes of images are left out: they may be gigabytes.

    Raises:
        PrepareError: it is no Parquet file, or damaged.
    """
    number = 0
    try:
        # By an open file: pyarrow takes no paths whose bytes are not UTF-8.
        with path.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as file:
            columns = [field.name for field in file.schema_arrow if not _holds_bytes(field.type)]
            for batch in file.iter_batches(_PARQUET_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
                    if number == limit:
                        return
    except (pyarrow.ArrowException, OSError) as error:
        raise PrepareError(f"{path}: Parquet cannot read row {number + 1} ({error})") from error


def embedded_images(path: Path) -> list[str]:
    """The columns of a Parquet file that hold images themselves.

    Raises:
        PrepareError: it is no Parquet file.
    """
    try:
        with path.open("rb") as file:
            schema = pyarrow.parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise PrepareError(f"{path}: not a Parquet file ({error})") from error
    return [field.name for field in schema if _holds_bytes(field.type)]


def columns_of(rows: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """The keys of some rows, in the order in which they appear."""
    return tuple(dict.fromkeys(key for row in rows for key in row))


def _record(number: int, entry: Any) -> Record:
    return number, entry if isinstance(entry, dict) else _OBJECT


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
