# SPDX-License-Identifier: BSD-3-Clause
"""Reads Parquet and Arrow files batch by batch, also such as hold images, in bounded memory.

Arrow files come in two forms, which the first bytes tell apart: the stream, which `datasets`
writes, and the file with an index. Both are mapped into memory, so a batch costs memory only where
it is read. Of Parquet a page of each column is in memory at a time.

Files come from strangers. Offsets in Arrow's data are trusted by whatever reads them, so every
batch is validated first.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from mlimages_jax.prepare import PrepareError

SUFFIXES = (".parquet", ".arrow")
_PARQUET = b"PAR1"
_WITH_INDEX = b"ARROW1"
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream: a message without content
_PAGE_BUFFER = 1 << 20
# What pyarrow raises for damaged files, besides its own exceptions: for names that are not UTF-8,
# for sizes of more than there is memory, for numbers that are no date.
_DAMAGE = (pyarrow.ArrowException, OSError, ValueError, LookupError, MemoryError, OverflowError)
_Parsed = TypeVar("_Parsed")


class ArrowFile:
    """A Parquet or Arrow file.

    Args:
        path: The file.

    Attributes:
        path: The same.
        is_parquet: Whether it is Parquet.
        schema: Its columns.
        names: Their names.

    Raises:
        PrepareError: It is neither, or its schema is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                self._start = file.read(len(_WITH_INDEX))
            self.is_parquet = self._start.startswith(_PARQUET)
            self.schema = self._read_schema()
            self.names = _checked_names(self.schema)
        except _DAMAGE as error:
            raise PrepareError(
                f"{path}: neither Parquet nor Arrow ({error}); copy or download it again"
            ) from error

    @property
    def format(self) -> str:
        """Name of the format, for the user."""
        return "Parquet" if self.is_parquet else "Arrow"

    def batches(
        self, columns: Sequence[str], parse: Callable[[pyarrow.RecordBatch], _Parsed], *, rows: int
    ) -> Iterator[_Parsed]:
        """Yields some columns of all rows, batch by batch.

        Args:
            columns: Their names.
            parse: What to do with a batch.
            rows: Maximum number of rows of a batch.

        Raises:
            PrepareError: The file is damaged; the message has the last row before.
        """
        read = self._parquet_batches if self.is_parquet else self._arrow_batches
        batches = read(list(columns), rows)
        done = 0
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
                parsed = parse(batch)
            except _DAMAGE as error:
                raise PrepareError(
                    f"{self.path}: damaged after row {done:,} ({error}); copy or download it again"
                ) from error
            yield parsed
            done += batch.num_rows

    def _read_schema(self) -> pyarrow.Schema:
        if self.is_parquet:
            # Opened here, because pyarrow does not accept paths whose bytes are not UTF-8.
            with self.path.open("rb") as file:
                return pyarrow.parquet.read_schema(file)
        return self._reader().schema

    def _parquet_batches(self, columns: list[str], rows: int) -> Iterator[pyarrow.RecordBatch]:
        with (
            self.path.open("rb") as raw,
            pyarrow.parquet.ParquetFile(
                raw, buffer_size=_PAGE_BUFFER, page_checksum_verification=True, pre_buffer=False
            ) as file,
        ):
            # No threads of pyarrow's: one that still holds this file when Python ends makes it hang
            # or abort (github.com/apache/arrow/issues/50482, 34314). `pre_buffer` has some too, and
            # would hold a row group in memory, whatever the size of the buffer.
            yield from file.iter_batches(rows, columns=columns, use_threads=False)

    def _arrow_batches(self, columns: list[str], rows: int) -> Iterator[pyarrow.RecordBatch]:
        reader = self._reader()
        if isinstance(reader, pyarrow.ipc.RecordBatchFileReader):
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = iter(reader)
        for batch in batches:
            chosen = batch.select(columns)
            for start in range(0, batch.num_rows, rows):
                yield chosen.slice(start, rows)
        if isinstance(reader, pyarrow.ipc.RecordBatchStreamReader):
            self._check_end()

    def _reader(self) -> pyarrow.ipc.RecordBatchFileReader | pyarrow.ipc.RecordBatchStreamReader:
        with self.path.open("rb") as file:
            # Not closed: it lives as long as the batches that point into it.
            mapped = pyarrow.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if self._start.startswith(_WITH_INDEX):
            return pyarrow.ipc.open_file(mapped)
        return pyarrow.ipc.open_stream(mapped)

    def _check_end(self) -> None:
        """Refuses a stream that was cut off between two batches, which looks complete otherwise."""
        with self.path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - len(_END)))
            end = file.read()
        if end != _END:
            raise ValueError("the mark of its end is missing")


def holds_bytes(kind: pyarrow.DataType) -> bool:
    """Returns whether a column holds bytes, directly or in its objects."""
    if pyarrow.types.is_struct(kind):
        return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return (
        pyarrow.types.is_binary(kind)
        or pyarrow.types.is_large_binary(kind)
        or pyarrow.types.is_binary_view(kind)
    )


def _checked_names(schema: pyarrow.Schema) -> list[str]:
    """Returns the names of the columns; raises ValueError if one is no text, or is twice there."""
    str(schema)  # reads the names of all levels
    for name in schema.names:
        if schema.get_field_index(name) < 0:
            raise ValueError(f"the column {name!r} occurs twice")
    return list(schema.names)
