# SPDX-License-Identifier: BSD-3-Clause
"""Storage formats of exported features: Parquet tables, ArrayRecord files, NumPy arrays.

Each class writes parts, in any order and from several processes, and reads them back. The encoding
is deterministic, so that the same rows give the same bytes. `feature_files` documents the other
files of the folder.
"""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from array_record.python.array_record_data_source import ArrayRecordDataSource
from numpy.lib import format as npy_format
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.features.export import FeatureFilesError, reading
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.record_writer import RecordWriter

FORMATS = ("parquet", "npy", "npz", "array_record")
DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The stored arrays, and their division into parts.

    Attributes:
        images: Number of images, N.
        rows_per_part: Rows per part, R; part i starts at position i R.
        widths: F of every output [N, F] by name.
        dtype: Type of the numbers, float32 or float16; little-endian in files.
        labels: Whether the images have labels.
    """

    images: int
    rows_per_part: int
    widths: dict[str, int]
    dtype: str
    labels: bool

    @property
    def parts(self) -> int:
        """Number of parts."""
        return math.ceil(self.images / self.rows_per_part)

    def positions(self, number: int) -> range:
        """Returns the positions of a part."""
        first = number * self.rows_per_part
        return range(first, min(first + self.rows_per_part, self.images))


class Part(NamedTuple):
    """Consecutive rows.

    Attributes:
        number: Number of the part, from 0.
        names: n names.
        labels: n texts, "" for none.
        errors: Why an image has no features, "" if it has.
        outputs: Arrays [n, F] of the layout's dtype by name, nan in rows with an error.
    """

    number: int
    names: list[str]
    labels: list[str]
    errors: list[str]
    outputs: dict[str, np.ndarray]


class Storage(Protocol):
    """One way to store parts in a folder."""

    def __init__(self, folder: ObjectFolder, layout: Layout, /): ...

    def prepare(self) -> None:
        """Creates what parts are written into; does nothing if it already exists."""
        ...

    def write(self, part: Part) -> None:
        """Writes or overwrites a part; safe to kill at any moment."""
        ...

    def read(self, output: str, number: int) -> np.ndarray:
        """Reads a part, [n, F]; may be read-only."""
        ...


class ParquetParts:
    """`parts/features-00003-of-00010.parquet`, which every data frame library reads.

    Columns: index int64; name; labels (null for none) if there are any; error (null for none); and
    each output as a list of fixed size F, of nan in rows with an error: null instead of a list
    cannot be written by pyarrow before 26, nor read, also by what builds on it.
    """

    def __init__(self, folder: ObjectFolder, layout: Layout):
        self._folder, self._layout = folder, layout

    def prepare(self) -> None:
        """Has nothing to do."""

    def write(self, part: Part) -> None:
        """See `Storage`."""
        positions = self._layout.positions(part.number)
        columns = {
            "index": pa.array(np.arange(positions.start, positions.stop)),
            "name": pa.array(part.names, pa.string()),
        }
        if self._layout.labels:
            columns["labels"] = pa.array([text or None for text in part.labels], pa.string())
        columns["error"] = pa.array([text or None for text in part.errors], pa.string())
        for name, rows in part.outputs.items():
            values = pa.array(np.ascontiguousarray(rows).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
        with self._folder.creating(self._name(part.number)) as path:
            # Floats hardly ever repeat: dictionary encoding would only cost time.
            pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=["labels"])

    def read(self, output: str, number: int) -> np.ndarray:
        """See `Storage`."""
        name = self._name(number)
        with reading(self._folder.path(name)), self._folder.open(name) as file:
            # No threads of pyarrow's: one that still holds this file when Python ends makes it hang
            # or abort (github.com/apache/arrow/issues/50482, 34314). `pq.read_table` has some
            # whatever it is told, `pre_buffer` too.
            parquet = pq.ParquetFile(file, pre_buffer=False)
            table = parquet.read(columns=[output], use_threads=False)
            # Null rows, of version 0.1, contain nulls, which become nan.
            values = table[output].combine_chunks().values
            return values.to_numpy(zero_copy_only=False).reshape(len(table), -1)

    def _name(self, number: int) -> str:
        return f"{_part_name(number, self._layout)}.parquet"


class RecordParts:
    """`parts/features-00003-of-00010.array_record`: one tf.train.Example per image.

    Features: index (int64); name, labels and error if there are any (bytes, UTF-8); and each
    output as the bytes of its F numbers, missing in rows with an error:
    `numpy.frombuffer(value, "<f4")`, or "<f2" for float16.
    """

    def __init__(self, folder: ObjectFolder, layout: Layout):
        self._folder, self._layout = folder, layout

    def prepare(self) -> None:
        """Has nothing to do."""

    def write(self, part: Part) -> None:
        """See `Storage`."""
        with self._folder.creating(self._name(part.number)) as path:
            writer = RecordWriter(path)
            for row, position in enumerate(self._layout.positions(part.number)):
                # True stands for deterministic: the entries of a protobuf map otherwise come in any
                # order.
                writer.write(self._example(part, row, position).SerializeToString(True))
            writer.close()

    def read(self, output: str, number: int) -> np.ndarray:
        """See `Storage`."""
        shape = len(self._layout.positions(number)), self._layout.widths[output]
        rows = np.full(shape, np.nan, self._layout.dtype)
        stored = _little_endian(self._layout.dtype)
        name = self._name(number)
        with reading(self._folder.path(name)), self._folder.local_copy(name) as path:
            records = ArrayRecordDataSource([os.fspath(path)])
            for row, index in zip(rows, range(len(records)), strict=True):
                feature = tf_example_pb2.Example.FromString(records[index]).features.feature
                if "error" not in feature:
                    row[:] = np.frombuffer(feature[output].bytes_list.value[0], stored)
        return rows

    def _example(self, part: Part, row: int, position: int) -> Any:
        example = tf_example_pb2.Example()
        feature = example.features.feature
        feature["index"].int64_list.value.append(position)
        texts = {"name": part.names[row], "labels": part.labels[row], "error": part.errors[row]}
        for name, text in texts.items():
            if text or name == "name":
                feature[name].bytes_list.value.append(text.encode())
        if not part.errors[row]:
            for name, rows in part.outputs.items():
                data = rows[row].astype(_little_endian(self._layout.dtype)).tobytes()
                feature[name].bytes_list.value.append(data)
        return example

    def _name(self, number: int) -> str:
        return f"{_part_name(number, self._layout)}.array_record"


class NumpyArrays:
    """`features.npy`, one array [N, F] per output; every part is written in place.

    Rows with an error are nan. Read it with `numpy.load(path, mmap_mode="r")`.

    Raises:
        FeatureFilesError: If the folder is in a bucket, where nothing can be written in place.
    """

    def __init__(self, folder: ObjectFolder, layout: Layout):
        if folder.local is None:
            raise FeatureFilesError(
                f"{folder}: a NumPy array is written in place, which buckets cannot do: give "
                "--format=parquet or array_record"
            )
        self._folder, self._layout = folder.local, layout

    def prepare(self) -> None:
        """Creates sparse files of the full size, which use disk space as they are filled."""
        for output in self._layout.widths:
            path = self._path(output)
            if not path.exists():
                with complete_file(path) as unfinished, unfinished.open("wb") as file:
                    npy_format.write_array_header_2_0(file, self._header(output))
                    file.truncate(file.tell() + self._bytes(output, self._layout.images))

    def write(self, part: Part) -> None:
        """See `Storage`; the rows are on disk when it returns."""
        first = self._layout.positions(part.number).start
        for output, rows in part.outputs.items():
            with self._path(output).open("r+b") as file:
                # From the end: the header's length is then irrelevant.
                file.seek(-self._bytes(output, self._layout.images - first), os.SEEK_END)
                file.write(np.ascontiguousarray(rows, _little_endian(self._layout.dtype)).data)
                file.flush()
                os.fsync(file.fileno())

    def read(self, output: str, number: int) -> np.ndarray:
        """See `Storage`."""
        positions = self._layout.positions(number)
        return self.array(output)[positions.start : positions.stop]

    def array(self, output: str) -> np.ndarray:
        """Returns a read-only memory-mapped array, [N, F].

        Raises:
            FeatureFilesError: If the file is missing or damaged.
        """
        with reading(self._path(output)):
            return np.load(self._path(output), mmap_mode="r")

    def remove(self) -> None:
        """Deletes the files."""
        for output in self._layout.widths:
            self._path(output).unlink(missing_ok=True)

    def _path(self, output: str) -> Path:
        return self._folder / f"{output}.npy"

    def _header(self, output: str) -> dict[str, Any]:
        shape = self._layout.images, self._layout.widths[output]
        descr = np.dtype(_little_endian(self._layout.dtype)).str
        return {"descr": descr, "fortran_order": False, "shape": shape}

    def _bytes(self, output: str, rows: int) -> int:
        return rows * self._layout.widths[output] * np.dtype(self._layout.dtype).itemsize


def _part_name(number: int, layout: Layout) -> str:
    return f"parts/features-{number:05d}-of-{layout.parts:05d}"


def _little_endian(dtype: str) -> str:
    return {"float32": "<f4", "float16": "<f2"}[dtype]
