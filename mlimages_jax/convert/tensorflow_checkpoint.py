# SPDX-License-Identifier: BSD-3-Clause
"""Reads and writes TensorFlow's checkpoint format V2 without TensorFlow.

A checkpoint PREFIX consists of a sorted table, PREFIX.index, and files of raw little-endian
numbers, PREFIX.data-00000-of-00001 and so on. The values of the table are protocol buffers from
tensor_bundle.proto: a BundleHeaderProto under the empty key, and a BundleEntryProto under the name
of every variable.
    BundleHeaderProto  1: number of data files, 2: byte order (0: little), 3: version {1: producer}
    BundleEntryProto   1: dtype, 2: shape {2: dimension {1: size}}, 3: data file, 4: offset,
                       5: size in bytes, 6: checksum (fixed32), 7: slices
"""

import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.sorted_table import (
    MAGIC,
    SortedTableError,
    masked_crc,
    read_table,
    read_varint,
    varint,
    write_table,
)
from mlimages_jax.files.atomic import complete_file

# types.proto: DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT64
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8"),
}  # fmt: skip
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_MAX_INDEX = 64 << 20  # bytes; that of the release has 40,000
_HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one data file, producer 1
_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_LATEST = re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)


class Entry(NamedTuple):
    """The location, type and shape of a stored variable.

    Attributes:
        dtype: Its dtype; None for types that are not supported.
        shape: Its shape.
        file: Number of the data file.
        offset: Offset in the data file, in bytes.
        size: Size in bytes.
        checksum: Masked CRC-32C of the bytes.
        is_sliced: Whether it is stored in several parts, under other keys.
    """

    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    file: int
    offset: int
    size: int
    checksum: int
    is_sliced: bool

    def __str__(self) -> str:
        """Returns for example "float32[7, 7, 3, 64]"."""
        kind = "unsupported type" if self.dtype is None or self.is_sliced else str(self.dtype)
        return layout.describe(kind, self.shape)


class TensorFlowCheckpoint:
    """The variables of a checkpoint, read one by one.

    Attributes:
        prefix: Common prefix of the file names.
        entries: Entries by variable name, sorted.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Opens a checkpoint.

        Args:
            path: The prefix, one of the files, or a folder that has a single checkpoint or whose
                file `checkpoint` names the latest one.

        Raises:
            ConvertError: If there is no checkpoint, it has format V1, or its index is damaged.
        """
        self.prefix = find_prefix(Path(path))
        index = Path(f"{self.prefix}.index")
        if index.stat().st_size > _MAX_INDEX:
            raise ConvertError(f"{index} has more than {_MAX_INDEX:,} bytes: no index of a network")
        try:
            table = read_table(index.read_bytes())
            header = dict(_fields(table.pop(b"", b"")))
            # proto3 omits fields that are 0, here and in the entries.
            self._files = _integer(header.get(1, 0))
            self.entries = {
                key.decode(errors="backslashreplace"): _entry(value) for key, value in table.items()
            }
        except (SortedTableError, IndexError, struct.error, TypeError) as error:
            raise ConvertError(f"{index} is damaged: {error}; copy it again") from error
        if header.get(2, 0):
            raise ConvertError(f"{index} was written on a big-endian machine: not supported")

    def read(self, name: str) -> np.ndarray:
        """Reads a variable and verifies its checksum.

        Raises:
            ConvertError: If its data file is missing or damaged, or its type is not supported.
        """
        entry = self.entries[name]
        if entry.dtype is None or entry.is_sliced:
            raise ConvertError(
                f"{self.prefix}: variable {name} has a type that is not supported (text, say) or "
                "is saved in slices"
            )
        path = Path(f"{self.prefix}.data-{entry.file:05d}-of-{self._files:05d}")
        if not path.exists():
            raise ConvertError(f"{path} is missing: copy it next to the .index file")
        size = entry.dtype.itemsize * math.prod(entry.shape)
        data = b""
        # Before anything is read: the numbers may be of any size.
        if size == entry.size and entry.offset + size <= path.stat().st_size:
            with path.open("rb") as file:
                file.seek(entry.offset)
                data = file.read(size)
        if len(data) != size or masked_crc(data) != entry.checksum:
            raise ConvertError(
                f"{path} is damaged: the checksum of {name}, {entry.size:,} bytes from byte "
                f"{entry.offset:,}, does not match; copy it again"
            )
        return np.frombuffer(data, entry.dtype).reshape(entry.shape)


def write_checkpoint(prefix: str | os.PathLike[str], variables: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint, its index last, and the file `checkpoint` if there is none.

    Args:
        prefix: Prefix of the files; missing folders are created.
        variables: Arrays by name, in the order of the data file.

    Raises:
        ConvertError: If the checkpoint already exists.
        KeyError: If a dtype is not supported.
    """
    prefix = Path(prefix)
    index = Path(f"{prefix}.index")
    if index.exists():
        raise ConvertError(f"{index} already exists: remove that checkpoint or give another name")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    table, offset = {b"": _HEADER}, 0
    # The data need not be atomic: without an index, which comes last, there is no checkpoint.
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as file:
        for name, array in variables.items():
            dtype = array.dtype.newbyteorder("<")
            data = array.astype(dtype).tobytes()
            file.write(data)
            table[name.encode()] = _entry_bytes(array, _NUMBERS[dtype], offset, data)
            offset += len(data)
    with complete_file(index) as unfinished:
        unfinished.write_bytes(write_table(sorted(table.items())))
    latest = prefix.with_name("checkpoint")
    if not latest.exists():
        keys = ("model_checkpoint_path", "all_model_checkpoint_paths")
        latest.write_text("".join(f'{key}: "{prefix.name}"\n' for key in keys))


def find_prefix(path: Path) -> Path:
    """Returns the prefix of the checkpoint at a path; see `TensorFlowCheckpoint`.

    Raises:
        ConvertError: If there is none; says what was found instead.
    """
    if path.is_dir():
        return _prefix_in(path)
    prefix = Path(_PART.sub("", str(path)))
    if Path(f"{prefix}.index").exists():
        return prefix
    if path.is_file() and _is_table(path):
        raise ConvertError(
            f"{path} is a checkpoint of TensorFlow's format V1, which is not supported: load it "
            "with TensorFlow 1.x and save it with tf.train.Saver(), which writes V2"
        )
    raise ConvertError(
        f"{prefix}.index does not exist: give the prefix of a checkpoint (the path up to .index), "
        "or its folder"
    )


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read() == MAGIC


def _prefix_in(folder: Path) -> Path:
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    latest = folder / "checkpoint"
    if latest.is_file() and (match := _LATEST.search(latest.read_text())):
        named = folder / Path(match[1]).name  # only the name: the folder may have been moved
        if named in prefixes:
            return named
    if len(prefixes) == 1:
        return prefixes[0]
    if not prefixes:
        raise ConvertError(f"{folder} contains no TensorFlow checkpoint (no file ends in .index)")
    found = ", ".join(prefix.name for prefix in prefixes)
    raise ConvertError(f"{folder} contains several TensorFlow checkpoints, {found}: name one")


def _entry(data: bytes) -> Entry:
    fields: dict[int, int | bytes] = dict(_fields(data))
    shape = []
    for number, dimension in _fields(_bytes(fields.get(2, b""))):
        if number == 2:
            shape.append(_integer(dict(_fields(_bytes(dimension))).get(1, 0)))
    return Entry(
        dtype=_DTYPES.get(_integer(fields.get(1, 0))),
        shape=tuple(shape),
        file=_integer(fields.get(3, 0)),
        offset=_integer(fields.get(4, 0)),
        size=_integer(fields.get(5, 0)),
        checksum=_integer(fields.get(6, 0)),
        is_sliced=7 in fields,
    )


def _entry_bytes(array: np.ndarray, dtype: int, offset: int, data: bytes) -> bytes:
    dimensions = [_field(1, size) for size in array.shape]
    shape = b"".join(b"\x12" + varint(len(size)) + size for size in dimensions)
    return (
        _field(1, dtype)
        + b"\x12" + varint(len(shape)) + shape
        + _field(4, offset)
        + _field(5, len(data))
        + b"\x35" + struct.pack("<I", masked_crc(data))
    )  # fmt: skip


def _field(number: int, value: int) -> bytes:
    """Encodes an integer field of a protocol buffer; 0 is omitted."""
    return bytes([number << 3]) + varint(value) if value else b""


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the field numbers and values of a protocol buffer: integers or bytes.

    Raises:
        IndexError: If it ends within a field.
        struct.error: If it ends within a fixed-size field.
        TypeError: If it has a kind of field that this format does not use.
    """
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, position = read_varint(data, position)
        elif kind == 2:
            size, position = read_varint(data, position)
            value = data[position : position + size]
            position += size
            if position > len(data):
                raise IndexError("a field ends outside its message")
        elif kind == 5:
            (value,) = struct.unpack_from("<I", data, position)
            position += 4
        else:
            raise TypeError(f"a field of kind {kind}")
        yield tag >> 3, value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("an integer instead of a message")
    return value


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise TypeError("a message instead of an integer")
    return value
