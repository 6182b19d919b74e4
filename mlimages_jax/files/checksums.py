# SPDX-License-Identifier: BSD-3-Clause
"""Checksums of files, and of the parts of files in TensorFlow's formats."""

import hashlib
from pathlib import Path
from typing import BinaryIO

import google_crc32c

_BLOCK = 1 << 22  # bytes


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32c(file: BinaryIO) -> int:
    """Returns the CRC-32C of what is left of an open file.

    Raises:
        OSError: The file cannot be read.
    """
    checksum = google_crc32c.Checksum()
    while block := file.read(_BLOCK):
        checksum.update(block)
    return int.from_bytes(checksum.digest(), "big")


def masked_crc(data: bytes) -> int:
    """Returns the CRC-32C of bytes, rotated and shifted, uint32.

    A plain CRC of data that contains its own CRCs detects less.
    """
    crc = google_crc32c.value(data)
    # The mask of LevelDB (util/crc32c.h), which TFRecord and TensorFlow's checkpoints took over.
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
