# SPDX-License-Identifier: BSD-3-Clause
import bz2
import gzip
import json
import lzma

import pytest

from mlimages_jax.files.text_files import (
    TextFileError,
    decode,
    open_lines,
    open_text,
    read_text,
)

TEXT = "erste Zeile: é, \N{GRINNING FACE}\nzweite\n"


@pytest.fixture(params=["read_text", "open_text"])
def read(request):
    """Both ways to read a file."""

    def opened(path):
        with open_text(path) as file:
            return "".join(file)

    return read_text if request.param == "read_text" else opened


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_mark_and_line_ends_make_no_difference(tmp_path, read, encoding, line_end):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.replace("\n", line_end).encode(encoding))
    assert read(path) == TEXT


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"a", b"\n", b"\xef\xbb\xbfa"])
def test_short_files(tmp_path, read, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read(path) == content.removeprefix(b"\xef\xbb\xbf").decode()


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_other_encodings_are_named(tmp_path, read, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode(encoding))
    family = encoding[:6].upper()
    shown = family if encoding == family.lower() else "UTF-"  # without a mark it is a guess
    with pytest.raises(TextFileError, match=rf"a\.txt.*{shown}.*save"):
        read(path)


def test_bytes_that_are_not_utf8_have_a_line(tmp_path, read):
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\r\ncaf\xe9\r\n")
    with pytest.raises(TextFileError, match=r"a\.txt.*not UTF-8.*xe9.*iconv"):
        read(path)
    with pytest.raises(TextFileError, match=r"name:2: "):
        decode(path.read_bytes(), where="name")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_lines_as_bytes(tmp_path, mark, line_end):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + line_end.join([b"caf\xe9", b"", b"x"]))
    with open_lines(path) as file:
        assert list(file) == [b"caf\xe9\n", b"\n", b"x"]
    path.write_bytes("a\n".encode("utf-16"))
    with pytest.raises(TextFileError, match="UTF-16"):
        open_lines(path)


def test_mixed_line_ends_across_the_buffers(tmp_path):
    path = tmp_path / "a.txt"
    for shift in range(3):
        path.write_bytes(b"x" * shift + b"a\r\nb\rc\n\r" * 40_000)
        with open_lines(path) as file:
            assert file.read() == b"x" * shift + b"a\nb\nc\n\n" * 40_000
    path.write_bytes(b"\r")
    with open_lines(path) as file:
        assert file.read() == b"\n" and file.tell() == 1


def test_line_ends_stay_for_tables(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n")
    with open_text(path, newline="") as file:
        assert file.read() == "a,b\r\n"


def test_json_of_windows_editors(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": "é"}', encoding="utf-8-sig")
    assert json.loads(read_text(path)) == {"a": "é"}


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (gzip.compress(b"a\n", mtime=0), "a gzip file: decompress it"),
        (bz2.compress(b"a\n"), "a bzip2 file"),
        (bz2.compress(b""), "a bzip2 file"),
        (lzma.compress(b"a\n"), "an xz file"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"PK\x03\x04", "a spreadsheet"),
        (b"SQLite format 3\0", "an SQLite database"),
    ],
)
def test_binary_files_are_named(tmp_path, read, start, message):
    path = tmp_path / "a.txt"
    path.write_bytes(start)
    for opened in (read, open_lines):
        with pytest.raises(TextFileError, match=rf"a\.txt: is {message}"):
            opened(path)


@pytest.mark.parametrize("text", ["BZhang.jpg\n", "BZh91.jpg\n", "PAR1s.jpg\n", "PK.jpg\n"])
def test_text_that_begins_like_a_signature_is_text(tmp_path, read, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    assert read(path) == text
    with open_lines(path) as file:
        assert file.read() == text.encode()


def test_a_nul_is_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\r\nsecond\0\r\n")
    with pytest.raises(TextFileError, match=r"a\.txt:2: a NUL byte"):
        read_text(path)
