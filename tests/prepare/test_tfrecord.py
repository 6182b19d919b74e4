# SPDX-License-Identifier: BSD-3-Clause
"""The reader against frames made bit by bit, and every single damage to a small file."""

import gzip
import struct
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from mlimages_jax.prepare.imports import tfrecord
from mlimages_jax.prepare.imports.tfrecord import TFRecord, TFRecordError, read_tfrecords
from tests.support import fuzzing

RECORDS = [b"first", b"", b"the third record"]
OFFSETS = [0, 21, 37, 69]  # a frame has 16 bytes more than its data


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, a bit at a time (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = (crc >> 15) + (crc << 17) % 2**32
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def frame(data: bytes, *, length: int | None = None) -> bytes:
    header = struct.pack("<Q", len(data) if length is None else length)
    return header + masked(header) + data + masked(data)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "a.tfrecords"
    path.write_bytes(content)
    return path


@pytest.fixture
def content() -> bytes:
    return b"".join(map(frame, RECORDS))


def test_the_oracle_knows_the_published_checksum():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_records_come_with_their_number_and_offset(tmp_path, content):
    records = list(read_tfrecords(written(tmp_path, content)))
    assert records == [
        TFRecord(number, offset, data)
        for number, (offset, data) in enumerate(zip(OFFSETS, RECORDS, strict=False))
    ]
    assert list(read_tfrecords(written(tmp_path, b""))) == []


def test_the_originals_files(tencent_dir):
    for name, sizes in (("0.tfrecords", [59_444, 59_444]), ("1.tfrecords", [140_215, 59_444])):
        records = list(read_tfrecords(tencent_dir / "tfrecords" / name))
        assert [len(record.data) for record in records] == sizes


def test_a_changed_byte_costs_its_record_or_the_rest(tmp_path, content):
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        *before, error = _until_error(written(tmp_path, bytes(damaged)))
        number = sum(offset <= position for offset in OFFSETS[1:])
        assert [record.data for record in before] == RECORDS[:number]
        assert (error.number, error.offset) == (number, OFFSETS[number])
        after = list(read_tfrecords(tmp_path / "a.tfrecords"))[number + 1 :]
        in_header = position - OFFSETS[number] < 12
        assert [record.data for record in after] == ([] if in_header else RECORDS[number + 1 :])


def test_a_cut_keeps_what_is_before_it(tmp_path, content):
    for size in range(len(content)):
        records = list(read_tfrecords(written(tmp_path, content[:size])))
        whole = sum(offset <= size for offset in OFFSETS[1:])
        assert [record.data for record in records[:whole]] == RECORDS[:whole]
        if size in OFFSETS:
            assert len(records) == whole
        else:
            (error,) = records[whole:]
            assert f"a.tfrecords: record {whole} at byte {OFFSETS[whole]}: trunc" in str(error)


@pytest.mark.parametrize("length", [6, 2**40, 2**63, 2**64 - 1])
def test_a_length_beyond_the_file_is_refused_without_reading(tmp_path, length):
    content = frame(b"good") + frame(b"short", length=length)
    good, error = read_tfrecords(written(tmp_path, content))
    assert good.data == b"good"
    assert error.offset == 20
    assert "truncated" in str(error)


def test_an_enormous_record_is_passed_over(tmp_path, content, monkeypatch):
    monkeypatch.setattr(tfrecord, "MAX_RECORD_BYTES", 10)
    first, second, error = read_tfrecords(written(tmp_path, content))
    assert [first.data, second.data] == RECORDS[:2]
    assert "16 bytes, more than the 10 allowed" in str(error)
    *_, error, last = read_tfrecords(written(tmp_path, content + frame(b"last")))
    assert error.number == 2
    assert last == TFRecord(3, 69, b"last")


def test_what_is_no_tfrecord_file_is_said(tmp_path, content):
    (error,) = read_tfrecords(written(tmp_path, b"<!DOCTYPE html><html>404</html>"))
    assert "is this a TFRecord file?" in str(error)
    (error,) = read_tfrecords(written(tmp_path, gzip.compress(content)))
    assert "run gunzip" in str(error)
    with pytest.raises(FileNotFoundError):
        list(read_tfrecords(tmp_path / "absent"))


PIECES = st.lists(st.one_of(st.binary(max_size=30), st.binary(max_size=20).map(frame)), max_size=5)


def _any_bytes_end(folder: Path, pieces: list[bytes]) -> None:
    """Whatever comes, the records are frames of the file, and an error is the last or passed."""
    content = b"".join(pieces)
    for record in read_tfrecords(written(folder, content)):
        if isinstance(record, TFRecord):
            assert content[record.offset :].startswith(frame(record.data))
        else:
            assert isinstance(record, TFRecordError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tfrecords")


@hypothesis.given(PIECES)
@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
def test_any_bytes(folder, pieces):
    _any_bytes_end(folder, pieces)


@pytest.mark.slow
@hypothesis.given(PIECES)
@hypothesis.settings(max_examples=fuzzing.fraction(10_000), deadline=None)
def test_any_bytes_ten_thousand_times(folder, pieces):
    _any_bytes_end(folder, pieces)


def _until_error(path: Path) -> list[TFRecord | TFRecordError]:
    found = []
    for record in read_tfrecords(path):
        found.append(record)
        if isinstance(record, TFRecordError):
            break
    return found
