# SPDX-License-Identifier: BSD-3-Clause
"""Reads TensorFlow's TFRecord files without TensorFlow.

A file is a sequence of frames, all numbers little-endian:

    uint64 length, uint32 checksum of these 8 bytes, the data, uint32 checksum of the data

A checksum is a CRC-32C, rotated and offset, so that the CRC of data that contains CRCs stays
meaningful.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.files.checksums import masked_crc

MAX_RECORD_BYTES = 2**28  # an image has about 0.1 MB, a dense label of ML-Images 44,664 bytes
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_GZIP = b"\x1f\x8b"


class TFRecord(NamedTuple):
    """A record with correct checksums.

    Attributes:
        number: Number of the record in its file, from 0.
        offset: Offset of its frame in the file, in bytes.
        data: Usually a serialised tf.train.Example.
    """

    number: int
    offset: int
    data: bytes


class TFRecordError(ValueError):
    """A damaged record; the message names file, record and byte.

    Attributes:
        number: Number of the record in its file, from 0.
        offset: Offset of its frame in the file, in bytes.
        message: What is wrong, without the position.
    """

    def __init__(self, path: str | os.PathLike[str], number: int, offset: int, message: str):
        super().__init__(f"{path}: record {number} at byte {offset}: {message}")
        self.number = number
        self.offset = offset
        self.message = message


def read_tfrecords(path: str | os.PathLike[str]) -> Iterator[TFRecord | TFRecordError]:
    """Reads a file record by record, with one record in memory at a time.

    Args:
        path: An uncompressed TFRecord file.

    Yields:
        Records in file order. A damaged record is replaced by an error, after which the next record
        follows, unless the damage hides where that starts: then the error is the last item.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        number = offset = 0
        while header := file.read(_HEADER.size):
            try:
                end = _end_of_frame(header, offset, size)
            except ValueError as error:
                yield TFRecordError(path, number, offset, f"{error}; the rest of the file is lost")
                return
            length = end - offset - _HEADER.size - _CHECKSUM.size
            if length > MAX_RECORD_BYTES:
                message = f"{length:,} bytes, more than the {MAX_RECORD_BYTES:,} allowed"
                yield TFRecordError(path, number, offset, message)
            elif masked_crc(data := file.read(length)) != _unpacked(file.read(_CHECKSUM.size)):
                yield TFRecordError(path, number, offset, "wrong checksum of the data")
            else:
                yield TFRecord(number, offset, data)
            # Data above the limit were not read, so the file may still be before the end of the
            # frame.
            file.seek(end)
            number, offset = number + 1, end


def _end_of_frame(header: bytes, offset: int, size: int) -> int:
    """Returns the offset of the next frame; raises ValueError if the header is damaged."""
    if len(header) < _HEADER.size:
        raise ValueError(f"truncated: the file ends after {len(header)} bytes of its header")
    length, checksum = _HEADER.unpack(header)
    if checksum != masked_crc(header[:8]):
        if offset == 0 and header.startswith(_GZIP):
            raise ValueError("the file is compressed: run gunzip on it")
        hint = "; is this a TFRecord file?" if offset == 0 else ""
        raise ValueError(f"wrong checksum of the length{hint}")
    end = offset + _HEADER.size + length + _CHECKSUM.size
    if end > size:
        raise ValueError(f"truncated: the record ends at byte {end}, the file has {size} bytes")
    return end


def _unpacked(checksum: bytes) -> int | None:
    """Returns None if the file was truncated after it was opened."""
    return _CHECKSUM.unpack(checksum)[0] if len(checksum) == _CHECKSUM.size else None
