# SPDX-License-Identifier: BSD-3-Clause
import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.convert import sorted_table
from mlimages_jax.convert.sorted_table import SortedTableError, read_table, write_table

ENTRIES = [(b"", b"head"), (b"ab", b"1"), (b"abc", b""), (b"abd", b"3"), (b"b", b"4" * 200)]


def _sealed(block: bytes, kind: int = 0) -> bytes:
    """A block and its trailer; the masking is that of LevelDB's crc32c.h."""
    crc = google_crc32c.value(block + bytes([kind]))
    masked = ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
    return block + bytes([kind]) + struct.pack("<I", masked)


def _by_hand(kind: int = 0) -> bytes:
    """Two blocks: {"ab": "1", "abc": "2"} and {"b": "3"}, each with one restart."""
    first = _sealed(b"\x00\x02\x01ab1" + b"\x02\x01\x01c2" + struct.pack("<II", 0, 1), kind)
    second = _sealed(b"\x00\x01\x01b3" + struct.pack("<II", 0, 1))
    index = _sealed(
        b"\x00\x03\x02abd\x00" + bytes([len(first) - 5])  # "abd": the first block
        + b"\x00\x01\x02c" + bytes([len(first), len(second) - 5])
        + struct.pack("<III", 0, 8, 2)
    )  # fmt: skip
    start = len(first) + len(second)
    footer = bytes([0, 0, start, len(index) - 5]).ljust(40, b"\0")
    return first + second + index + footer + bytes.fromhex("57fb808b247547db")


def test_a_table_written_by_hand_is_read():
    assert read_table(_by_hand()) == {b"ab": b"1", b"abc": b"2", b"b": b"3"}


def test_a_table_of_one_block_is_laid_out_as_leveldb_does():
    table = write_table([(b"ab", b"1"), (b"abc", b"2")])
    block = _sealed(b"\x00\x02\x01ab1" + b"\x02\x01\x01c2" + struct.pack("<II", 0, 1))
    metaindex = _sealed(struct.pack("<II", 0, 1))
    # The key in the index is the shortest that is not before the last one: "b".
    index = _sealed(b"\x00\x01\x02b\x00" + bytes([len(block) - 5]) + struct.pack("<II", 0, 1))
    assert table[:-48] == block + metaindex + index
    handles = [len(block), 8, len(block) + len(metaindex), len(index) - 5]
    assert table[-48:] == bytes(handles).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def test_keys_begin_anew_at_every_sixteenth_entry():
    table = write_table([(f"key{i:02}".encode(), b"") for i in range(33)])
    assert table.count(b"key") == 3
    assert table[table.index(b"key16") - 3] == 0


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=300), min_size=1, max_size=60))
def test_what_is_written_is_read(entries):
    entries.pop(max(entries), None)
    entries = dict(sorted({**entries, b"\xff\xfe": b"last"}.items()))
    assert read_table(write_table(entries.items())) == entries


def test_every_changed_byte_is_noticed():
    table = write_table(ENTRIES)
    unread = table.index(_sealed(struct.pack("<II", 0, 1)))  # the metaindex
    for position in [*range(unread), *range(unread + 13, len(table) - 48)]:
        data = bytearray(table)
        data[position] ^= 1
        with pytest.raises(SortedTableError, match=r"checksum|compressed"):
            read_table(bytes(data))


def test_what_is_no_table_is_refused():
    table = _by_hand()
    for data in (b"", b"short", table[:-1], table[1:], bytes(100), b"\0" * 40 + table[-8:]):
        with pytest.raises(SortedTableError):
            read_table(data)
    with pytest.raises(SortedTableError, match="compressed"):
        read_table(_by_hand(kind=1))


def test_an_entry_that_leaves_its_block_is_refused():
    block = _sealed(b"\x00\x02\x30ab1" + struct.pack("<II", 0, 1))
    index = _sealed(b"\x00\x01\x02b\x00" + bytes([len(block) - 5]) + struct.pack("<II", 0, 1))
    footer = bytes([0, 0, len(block), len(index) - 5]).ljust(40, b"\0")
    with pytest.raises(SortedTableError, match="longer than its block"):
        read_table(block + index + footer + sorted_table.MAGIC)


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, "ff" * 9 + "01")],
)
def test_varints(value, data):
    assert sorted_table.varint(value) == bytes.fromhex(data)
    assert sorted_table.read_varint(bytes.fromhex("77" + data), 1) == (value, 1 + len(data) // 2)
    with pytest.raises(IndexError):
        sorted_table.read_varint(b"\xff" * 11, 0)
