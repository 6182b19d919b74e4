# SPDX-License-Identifier: BSD-3-Clause
"""Lines and rows of tables that are longer than what is read at once."""

import gzip

import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports import text_lines
from mlimages_jax.prepare.imports.delimited import find_format, read_records
from mlimages_jax.prepare.imports.json_records import read_lines
from mlimages_jax.prepare.imports.text_lines import Lines


@pytest.fixture(params=[1, 7, 1 << 16])
def block(request, monkeypatch):
    """Characters that are read at once."""
    monkeypatch.setattr(text_lines, "_BLOCK", request.param)


@pytest.mark.usefixtures("block")
def test_lines_end_where_a_file_says_so(tmp_path):
    (path := tmp_path / "t").write_bytes("a\r\nb\u2028\x0cc\rd\n\n\u00e9".encode())
    assert list(Lines(path)) == ["a\n", "b\u2028\x0cc\n", "d\n", "\n", "\u00e9"]
    assert list(Lines(path, limit=3)) == ["a\n", "b\u2028\x0cc\n", "d\n"]
    path.write_bytes(b"")
    assert list(Lines(path)) == []


@pytest.mark.usefixtures("block")
def test_lines_that_are_no_text_are_told(tmp_path):
    (path := tmp_path / "t").write_bytes(b"a\n\xff\n\0\n" + b"b\n" * 3)
    lines = Lines(path)
    for number, line in enumerate(lines, start=1):
        lines.needed = number
        assert lines.between(number, number) == [line]
        assert number in (1, 4, 5, 6) or number <= lines.not_text


@pytest.mark.usefixtures("block")
def test_rows_over_several_blocks(tmp_path):
    text = (
        'path,note,labels\n1.jpg,"two\nlines\n",dog\n\n2.jpg,"a ""b""" ,cat\n,,\n3.jpg,,x,\n4.jpg\n'
    )
    (path := tmp_path / "t.csv").write_bytes(text.encode() + b"\xff.jpg,a,b\n5.jpg,,dog\n")
    rows = dict(read_records(path, find_format(path)))
    assert {line: row for line, row in rows.items() if isinstance(row, list)} == {
        2: ["1.jpg", "two\nlines\n", "dog"],
        6: ["2.jpg", 'a "b"', "cat"],
        8: ["3.jpg", "", "x", ""],
        11: ["5.jpg", "", "dog"],
    }
    assert "is the line complete?" in rows[9] and "not UTF-8" in rows[10] and len(rows) == 6


@pytest.mark.usefixtures("block")
def test_an_unclosed_quote_many_lines_up(tmp_path):
    lines = ["path,labels", "1.jpg,dog", '2.jpg,"dog', *(f"{i}.jpg,dog" for i in range(3, 40))]
    path = tmp_path / "t.csv"
    for end in ("", '\n99.jpg,"cat"\n'):
        path.write_text("\n".join(lines) + end)
        with pytest.raises(PrepareError, match=r"t\.csv:3: a quote opened here is not closed"):
            list(read_records(path, find_format(path)))


@pytest.mark.usefixtures("block")
def test_objects_and_what_is_none(tmp_path):
    data = b'{"a": 1}\n \n{"a": \n[1]\n{"a": "\xff"}\n{"a": 2}'
    (path := tmp_path / "t.jsonl").write_bytes(data)
    rows = dict(read_lines(path))
    assert rows[1] == {"a": 1} and rows[6] == {"a": 2} and len(rows) == 5
    assert "not JSON" in rows[3] and "not an object" in rows[4] and "not UTF-8" in rows[5]


def test_lines_without_an_end_and_archives_without_one_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_lines, "_LONGEST_LINE", 100)
    monkeypatch.setattr(text_lines, "_BLOCK", 10)
    (path := tmp_path / "t").write_text("a\nb\n" + "x" * 200)
    with pytest.raises(PrepareError, match="t:3: the line has more than 100"):
        list(Lines(path))
    packed = gzip.compress(b"".join(b"%d\n" % (i * i) for i in range(9_999)))
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(PrepareError, match=r":\d+: cannot be decompressed from here on"):
        list(Lines(path))
