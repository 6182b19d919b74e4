# SPDX-License-Identifier: BSD-3-Clause
"""The formats, letter by letter."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlimages_jax.inference import tag_files
from mlimages_jax.inference.tag_files import TagFileError, error_line, tags_line
from mlimages_jax.inference.tagging import Tag

SHARK = Tag(2, "n01484850", "great white shark, white shark", float(np.float32(0.83)),
            ("fish", "great white shark, white shark"))  # fmt: skip
FISH = Tag(0, "n01440764", "fish", float(np.float32(1e-5)), ("fish",))
LINES = [
    tags_line("a b.jpg", [SHARK, FISH]),
    error_line('say "x", y.jpg', "truncated: it ends"),
    tags_line("größe\n.jpg", []),
]

JSONL = """\
{"image": "a b.jpg", "tags": [{"index": 2, "id": "n01484850", \
"name": "great white shark, white shark", "score": 0.83, \
"path": ["fish", "great white shark, white shark"]}, \
{"index": 0, "id": "n01440764", "name": "fish", "score": 1e-05, "path": ["fish"]}]}
{"image": "say \\"x\\", y.jpg", "error": "truncated: it ends"}
{"image": "größe\\n.jpg", "tags": []}
"""

CSV = """\
image,rank,index,id,name,score,path,error
a b.jpg,1,2,n01484850,"great white shark, white shark",0.83,"fish > great white shark, white shark",
a b.jpg,2,0,n01440764,fish,1e-05,fish,
"say ""x"", y.jpg",,,,,,,truncated: it ends
größe\\n.jpg,,,,,,,
"""

LABEL_PRED = """\
+++ the predictions of a b.jpg is:
2 great white shark, white shark: 0.830
0 fish: 0.000
open pic say "x", y.jpg failed
+++ the predictions of größe\\n.jpg is:
"""


def _write(path, file_format, lines=LINES):
    tag_files.write(path, file_format, map(json.loads, lines))


@pytest.mark.parametrize(
    ("file_format", "text"), [("jsonl", JSONL), ("csv", CSV), ("label_pred", LABEL_PRED)]
)
def test_text_formats(tmp_path, file_format, text):
    _write(tmp_path / "tags", file_format)
    assert (tmp_path / "tags").read_bytes().decode() == text


def test_text_of_others_is_one_line_and_no_formula(tmp_path):
    odd = Tag(1, "=1+1", "-\ntoys\x1b[2J", 0.5, ("@SUM(A1)", "x"))
    lines = [
        tags_line("=cmd()\t\u2028.jpg", [odd]),
        tags_line(r"caf\xe9.jpg", []),
        error_line("\rb.jpg", "corrupt: \x1b]0;title\x07\udce9"),
    ]
    assert all(line.isprintable() for line in lines)
    _write(tmp_path / "tags", "csv", lines)
    assert (tmp_path / "tags").read_bytes().decode().split("\n")[1:] == [
        r"'=cmd()\t\u2028.jpg,1,1,'=1+1,'-\ntoys\x1b[2J,0.5,'@SUM(A1) > x,",
        r"caf\xe9.jpg,,,,,,,",
        r"'\rb.jpg,,,,,,,corrupt: \x1b]0;title\x07\udce9",
        "",
    ]
    _write(tmp_path / "pred", "label_pred", lines)
    assert (tmp_path / "pred").read_bytes().decode().split("\n") == [
        r"+++ the predictions of =cmd()\t\u2028.jpg is:", r"1 -\ntoys\x1b[2J: 0.500",
        r"+++ the predictions of caf\xe9.jpg is:", r"open pic \rb.jpg failed", "",
    ]  # fmt: skip
    _write(tmp_path / "parquet", "parquet", lines)
    first = pq.read_table(tmp_path / "parquet").to_pylist()[0]
    assert first["image"] == "=cmd()\t\u2028.jpg"
    assert first["tags"][0]["name"] == odd.name


def test_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(tag_files, "_ROW_GROUP", 2)
    _write(tmp_path / "tags.parquet", "parquet")
    table = pq.read_table(tmp_path / "tags.parquet")
    rows = [json.loads(line) for line in JSONL.splitlines()]
    expected = [{"tags": None, "error": None} | row for row in rows]
    for row in expected:
        for tag in row["tags"] or ():
            tag["score"] = float(np.float32(tag["score"]))
    assert table.to_pylist() == expected
    assert str(table.schema.field("tags").type).count("float") == 1
    assert pq.ParquetFile(tmp_path / "tags.parquet").num_row_groups == 2


def test_no_rows_at_all(tmp_path):
    for file_format in tag_files.ENDINGS:
        _write(tmp_path / file_format, file_format, lines=[])
    assert (tmp_path / "jsonl").read_text() == (tmp_path / "label_pred").read_text() == ""
    assert pq.read_table(tmp_path / "parquet").num_rows == 0


def test_the_ending_says_the_format(tmp_path):
    names = ["a.jsonl", "b.CSV", "c.parquet", "d.txt"]
    found = [tag_files.format_of(tmp_path / name) for name in names]
    assert found == ["jsonl", "csv", "parquet", "label_pred"]
    with pytest.raises(TagFileError, match=r"cannot tell the format of .*e.json: .*\.jsonl, \.csv"):
        tag_files.format_of(tmp_path / "e.json")
    with pytest.raises(TagFileError, match="format='json' is not one of jsonl, csv, parquet"):
        tag_files.ending_of("json")
