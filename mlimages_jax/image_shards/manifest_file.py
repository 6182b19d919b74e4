# SPDX-License-Identifier: BSD-3-Clause
"""The manifest of one image shard: a Parquet file with a row for every name that was handled.

    duckdb -c "select error, count(*) from 'shards/*.parquet' group by error"

It may come from an untrusted source: schema, sizes and types are checked before a row is used.
"""

import contextlib
import json
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.index import ALL_NAMES, NameSlice
from mlimages_jax.image_shards.layout import RECORDS, ImageShardError
from mlimages_jax.image_shards.outcome import COLUMNS, FAILED, OK, Image, storable

_FORMAT = 1
_KEY = b"mlimages.shard"  # in the metadata of the schema
_TYPES = {
    "time": pa.float64(), "http_status": pa.int64(), "num_bytes": pa.int64(),
    "sha256": pa.binary(32), "width": pa.int64(), "height": pa.int64(),
    "file_sha256": pa.binary(32), "rotation": pa.float64(),
}  # fmt: skip
_REQUIRED = ("name", "status", "time")
_FIELDS = {name: _TYPES.get(name, pa.string()) for name in COLUMNS}
_FIELDS |= {"shard": pa.string(), "record": pa.int64()}
_SCHEMA = pa.schema(
    pa.field(name, kind, nullable=name not in _REQUIRED) for name, kind in _FIELDS.items()
)
_TEXT_COLUMNS = [name for name, kind in _FIELDS.items() if kind == pa.string()]
_MAX_ROWS = 1 << 20
_MAX_BYTES = 1 << 30  # of the decompressed columns
_BLOCK = 4096  # rows in memory at a time
_MAX_TEXT = 64 << 20  # bytes of a column of them


class ShardFile(NamedTuple):
    """The file of records that a manifest belongs to.

    Attributes:
        file: Its name; "" if no image arrived.
        num_bytes: Its size.
        crc32c: CRC-32C of its bytes.
        num_images: Number of its records.
        notes: What the job wants to remember with these rows, such as archives that it has read.
    """

    file: str
    num_bytes: int
    crc32c: int
    num_images: int
    notes: Sequence[str] = ()


class Row(NamedTuple):
    """A row of a manifest, and the number of the image's record; None unless it has one."""

    image: Image
    record: int | None


def write(path: Path, rows: Sequence[Row], shard: ShardFile) -> None:
    """Writes a manifest to a local file."""
    columns: dict[str, list[Any]] = {
        name: [storable(getattr(row.image, name)) for row in rows] for name in COLUMNS
    }
    columns["shard"] = [None if row.record is None else shard.file for row in rows]
    columns["record"] = [row.record for row in rows]
    about = json.dumps({"format": _FORMAT, **shard._asdict()})
    table = pa.table(columns, schema=_SCHEMA.with_metadata({_KEY: about.encode()}))
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


class ManifestFile:
    """The manifest of one shard, read in pieces.

    Args:
        folder: A folder of image shards.
        name: Name of the manifest inside of it.

    Attributes:
        shard: Its file of records.
        num_rows: Number of rows.
        part: Name of the part that the shard belongs to.

    Raises:
        ImageShardError: The file is damaged, or no such manifest.
        OSError: It cannot be read.
    """

    def __init__(self, folder: ObjectFolder, name: str):
        self._folder, self._name = folder, name
        self.part = "-".join(posixpath.basename(name).split("-")[:-2])  # see `writer.new_attempt`
        with folder.open(name) as file, self._naming():
            metadata = pq.read_metadata(file)
            self.shard = self._check(metadata)
            self.num_rows = metadata.num_rows

    @property
    def records(self) -> str:
        """Name of the file of records inside of the folder."""
        return posixpath.join(posixpath.dirname(self._name), self.shard.file)

    def rows(self, names: NameSlice = ALL_NAMES) -> Iterator[Row]:
        """Yields all rows, or those of a slice of the names.

        Raises:
            ImageShardError: A row is invalid, or the file is damaged.
        """
        for block in self.blocks(_SCHEMA.names):
            if names != ALL_NAMES:
                block = block.filter(pa.array(names.mask(block.column("name").to_pylist())))
            for values in block.to_pylist():
                yield self._row(values)

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields some columns of all rows: types, texts and times are checked, but not the rows."""
        with self._folder.open(self._name) as file, self._naming():
            # No threads of pyarrow's: one that still holds this file when Python ends makes it hang
            # or abort (github.com/apache/arrow/issues/50482, 34314). Both options are needed.
            parquet = pq.ParquetFile(
                file, page_checksum_verification=True, read_dictionary=_TEXT_COLUMNS,
                pre_buffer=False,
            )  # fmt: skip
            rows = 0
            for coded in parquet.iter_batches(_BLOCK, columns=list(columns), use_threads=False):
                block = _decoded(coded)
                _check_block(block)
                rows += block.num_rows
                yield block
            # Checksums cover the pages alone: a damaged header may hide a page, or rows of it.
            if rows != self.num_rows:
                raise ValueError(f"{rows:,} of its {self.num_rows:,} rows")

    def _check(self, metadata: pq.FileMetaData) -> ShardFile:
        schema = metadata.schema.to_arrow_schema()
        if not schema.equals(_SCHEMA) or _KEY not in (schema.metadata or {}):
            raise ValueError("it has other columns than the manifest of an image shard")
        sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        if not 0 <= metadata.num_rows <= _MAX_ROWS or sum(sizes) > _MAX_BYTES:
            raise ValueError(
                f"{metadata.num_rows:,} rows of {sum(sizes):,} bytes: no shard is so large"
            )
        about = json.loads((schema.metadata or {})[_KEY])
        if not isinstance(about, dict) or about.pop("format", None) != _FORMAT:
            raise ValueError(f"it is not of format {_FORMAT}: use the version that wrote it")
        shard = ShardFile(**about)
        expected = posixpath.basename(self._name).partition(".")[0] + RECORDS
        numbers = (shard.num_bytes, shard.crc32c, shard.num_images)
        notes = shard.notes
        if not isinstance(notes, list | tuple) or not all(isinstance(one, str) for one in notes):
            raise ValueError("its notes are no texts")
        if shard.file not in ("", expected) or not all(
            isinstance(number, int) and number >= 0 for number in numbers
        ):
            raise ValueError(f"it describes {shard.file!r}, not {expected}")
        return shard

    def _row(self, values: dict[str, Any]) -> Row:
        shard, record = values.pop("shard"), values.pop("record")
        image = Image(**values)
        stored = image.status == OK
        if image.status not in (OK, FAILED) or stored != (image.file is not None):
            raise self._invalid(image, "its status is neither ok with a file nor failed")
        if stored and (shard != self.shard.file or record is None):
            raise self._invalid(image, "it names another shard")
        if stored and not 0 <= record < self.shard.num_images:
            raise self._invalid(image, f"record {record} of {self.shard.num_images}")
        return Row(image, record if stored else None)

    def _invalid(self, image: Image, why: str) -> ImageShardError:
        return ImageShardError(
            f"{self._folder.path(self._name)}: the row of {image.name[:200]!r}: {why}; copy the "
            "file again from where it was written"
        )

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Turns what pyarrow and the checks raise into an error that names the file."""
        try:
            yield
        except ImageShardError:
            raise
        except (
            pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError
        ) as error:  # fmt: skip
            # Arrow's OSErrors about what is in a file have no errno; those of the system have one.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ImageShardError(
                f"{self._folder.path(self._name)}: not the intact manifest of an image shard "
                f"({error}): copy it again from where it was written; or delete it, and the run "
                "that wrote it fetches the images of this shard again"
            ) from error


def _decoded(block: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a block with texts in place of numbers of texts.

    Raises:
        ValueError: The texts are too long: a few kilobytes could stand for all of the memory.
    """
    columns = []
    for column in block.columns:
        if pa.types.is_dictionary(column.type):
            lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
            if (pc.sum(lengths).as_py() or 0) > _MAX_TEXT:
                raise ValueError(f"texts of more than {_MAX_TEXT:,} bytes in {_BLOCK:,} rows")
            column = column.dictionary_decode()
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, block.schema.names)


def _check_block(block: pa.RecordBatch) -> None:
    """Checks what no schema says.

    Raises:
        ArrowInvalid: A ValueError: a text is not UTF-8.
        ValueError: A time is not finite, so that no order of rows would follow from it.
    """
    block.validate(full=True)
    if "time" in block.schema.names and not np.isfinite(block.column("time").to_numpy()).all():
        raise ValueError("a time is not a finite number")
