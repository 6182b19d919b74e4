# SPDX-License-Identifier: BSD-3-Clause
"""The records of TensorFlow's TFRecord files, read without TensorFlow.

A file is a row of frames, all numbers little-endian:

    uint64 length, uint32 checksum of these 8 bytes, the data, uint32 checksum of the data

A checksum is a CRC-32C, rotated and shifted so that a file of checksums does not look sound.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c

MAX_RECORD_BYTES = 2**28  # an image has some 0.1 MB, a dense label of ML-Images 44,664 bytes
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_GZIP = b"\x1f\x8b"


class TFRecord(NamedTuple):
    """A record whose checksums are right.

    Attributes:
        number: in its file, from 0.
        offset: of its frame in the file, in bytes.
        data: usually a serialised tf.train.Example.
    """

    number: int
    offset: int
    data: bytes


class TFRecordError(ValueError):
    """Damage; the message names file, record and byte.

    Attributes:
        number: of the record in its file, from 0.
        offset: of its frame in the file, in bytes.
        message: what is wrong, without the place.
    """

    def __init__(self, path: str | os.PathLike[str], number: int, offset: int, message: str):
        super().__init__(f"{path}: record {number} at byte {offset}: {message}")
        self.number = number
        self.offset = offset
        self.message = message


def read_tfrecords(path: str | os.PathLike[str]) -> Iterator[TFRecord | TFRecordError]:
    """Reads a file record by record, one in memory at a time.

    Args:
        path: an uncompressed TFRecord file.

    Yields:
        In the place of a damaged record, an error. The next record follows, except where the
        damage hides where that begins: then the error is the last that comes.

    Raises:
        OSError: the file cannot be read.
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
            elif _masked_crc(data := file.read(length)) != _unpacked(file.read(_CHECKSUM.size)):
                yield TFRecordError(path, number, offset, "the checksum of its data is wrong")
            else:
                yield TFRecord(number, offset, data)
            file.seek(end)
            number, offset = number + 1, end


def _end_of_frame(header: bytes, offset: int, size: int) -> int:
    """Returns the offset of the next frame; ValueError where the header cannot be believed."""
    if len(header) < _HEADER.size:
        raise ValueError(f"truncated: the file ends after {len(header)} bytes of its header")
    length, checksum = _HEADER.unpack(header)
    if checksum != _masked_crc(header[:8]):
        if offset == 0 and header.startswith(_GZIP):
            raise ValueError("the file is compressed: run gunzip on it")
        hint = "; is this a TFRecord file?" if offset == 0 else ""
        raise ValueError(f"the checksum of its length is wrong{hint}")
    end = offset + _HEADER.size + length + _CHECKSUM.size
    if end > size:
        raise ValueError(f"truncated: it ends at byte {end}, the file has {size} bytes")
    return end


def _unpacked(checksum: bytes) -> int | None:
    """None: the file has become shorter since it was opened."""
    return _CHECKSUM.unpack(checksum)[0] if len(checksum) == _CHECKSUM.size else None


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
