# SPDX-License-Identifier: BSD-3-Clause
"""Sorted tables of keys and values: the file format of LevelDB, as used by TensorFlow.

See LevelDB's doc/table_format.md. A file is a sequence of blocks and a footer of 48 bytes:

    block    entries, restarts (uint32 each), number of restarts (uint32)
    trailer  after every block: compression (1 byte, 0 is none), checksum of the block and this byte
    footer   handles of the metaindex and the index, zeros up to 40 bytes, magic number
    handle   offset and size of a block without its trailer, as varints

    entry    number of bytes shared with the previous key, number of further key bytes, number of
             value bytes (varints), then the further key bytes and the value. At a restart nothing
             is shared.

The last two blocks are the metaindex, which is empty here, and the index. The index has the handle
of every data block, under a key that is at or after the last key of the block. All integers are
little-endian. A checksum is a CRC-32C, rotated and shifted so that the checksum of data that
contains checksums is still reliable.
"""

import struct
from collections.abc import Iterable, Iterator

from mlimages_jax.files.checksums import masked_crc

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_FOOTER_BYTES = 48
_TRAILER = struct.Struct("<BI")
_RESTART_EVERY = 16  # entries; as TensorFlow writes
_MAX_BYTES = 64 << 20  # of all keys and values; an index has 300 bytes a variable
_ENTRY_BYTES = 100  # what Python itself needs for an entry, about
_VARINT_BYTES = 10  # 64 bits need at most this many


class SortedTableError(ValueError):
    """Raised when a table is damaged, or a file is not a table."""


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Reads all entries of a table in order and verifies every checksum.

    Raises:
        SortedTableError: If the table is damaged; the message does not name the file.
    """
    if len(data) < _FOOTER_BYTES or not data.endswith(MAGIC):
        raise SortedTableError("it does not end like a TensorFlow table: is it complete?")
    try:
        _, position = _read_handle(data, len(data) - _FOOTER_BYTES)
        (start, size), _ = _read_handle(data, position)
        entries: dict[bytes, bytes] = {}
        # A key that repeats most of the one before takes three bytes: a small file could unpack to
        # any size, and name the same block again and again.
        left = _MAX_BYTES
        for separator, handle in _entries(_read_block(data, start, size)):
            (start, size), _ = _read_handle(handle, 0)
            left -= len(separator) + size
            for key, value in _entries(_read_block(data, start, size) if left > 0 else b""):
                left -= len(key) + len(value) + _ENTRY_BYTES
                if left < 0:
                    break
                entries[key] = value
            if left < 0:
                raise SortedTableError(f"its names take more than {_MAX_BYTES:,} bytes")
    except (IndexError, struct.error, OverflowError) as error:
        raise SortedTableError("one of its entries points outside the file") from error
    return entries


def write_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns a table with a single data block.

    The bytes are those that TensorFlow writes, as long as it needs one block only (256 KiB).

    Args:
        entries: Keys and values, sorted by key; the last key must not consist of bytes 255 only.
    """
    entries = list(entries)
    last = entries[-1][0]
    # As LevelDB's FindShortSuccessor: the shortest key that is not before the last one.
    shortest = next(i for i, byte in enumerate(last) if byte != 0xFF)
    not_before_last = last[:shortest] + bytes([last[shortest] + 1])
    out = bytearray()
    block = _append_block(out, entries)
    metaindex = _append_block(out, [])
    index = _append_block(out, [(not_before_last, block)])
    return bytes(out) + (metaindex + index).ljust(_FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Reads an unsigned integer with 7 bits per byte, lowest first, and the position after it.

    Raises:
        IndexError: If the data ends within it, or it is too long.
    """
    value = 0
    for i in range(_VARINT_BYTES):
        byte = data[position + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, position + i + 1
    raise IndexError("an integer of more than 64 bits")


def varint(value: int) -> bytes:
    """Encodes an unsigned integer for `read_varint`."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    start, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (start, size), position


def _read_block(data: bytes, start: int, size: int) -> bytes:
    """Returns the entries of a block, without restarts."""
    end = start + size
    kind, checksum = _TRAILER.unpack_from(data, end)
    if checksum != masked_crc(data[start : end + 1]):
        raise SortedTableError(f"the checksum of the block at byte {start} is wrong")
    if kind:  # Snappy, which TensorFlow's tensor_bundle.cc never writes
        raise SortedTableError(f"the block at byte {start} is compressed, which is not supported")
    (restarts,) = struct.unpack_from("<I", data, end - 4)
    return data[start : end - 4 - 4 * restarts]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    position, key = 0, b""
    while position < len(block):
        shared, position = read_varint(block, position)
        further, position = read_varint(block, position)
        size, position = read_varint(block, position)
        end = position + further
        if shared > len(key) or end + size > len(block):
            raise SortedTableError("one of its entries is longer than its block")
        key = key[:shared] + block[position:end]
        position = end + size
        yield key, block[end:position]


def _append_block(out: bytearray, entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Appends a block and its trailer; returns its handle."""
    block, restarts, before = bytearray(), [0], b""
    for number, (key, value) in enumerate(entries):
        shared = _common(before, key)
        if number and number % _RESTART_EVERY == 0:
            restarts.append(len(block))
            shared = 0
        block += varint(shared) + varint(len(key) - shared) + varint(len(value))
        block += key[shared:] + value
        before = key
    block += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    handle = varint(len(out)) + varint(len(block))
    out += block + _TRAILER.pack(0, masked_crc(bytes(block) + b"\0"))
    return handle


def _common(first: bytes, second: bytes) -> int:
    """Returns the length of the common prefix."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
