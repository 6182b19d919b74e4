# SPDX-License-Identifier: BSD-3-Clause
"""Tables as other programs write them: each kind gives the lists that it means, or is named."""

import gzip
import json
import re

import pyarrow
import pyarrow.parquet
import pytest
import tyro
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from mlimages_jax.labels.same_names import normal
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.table import import_table
from mlimages_jax.prepare.imports.table_rows import Table, TableOptions
from tests.support import fuzzing

MEANT = {"1.jpg": {"dog": 1.0, "cat": 1.0}, "2.jpg": {"cat": 1.0}, "3.jpg": {}}


def _import(folder, name: str, content: str | bytes, *options: str) -> dict[str, dict[str, float]]:
    """Runs the command on a table with this content; returns {name: {class: confidence}}."""
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    tyro.cli(import_table, args=[str(folder / name), "--output", str(folder / "out"), *options])
    return _rows(folder / "out")


def _rows(out, split: str = "train") -> dict[str, dict[str, float]]:
    ids = Hierarchy.from_file(out / "dictionary.txt").ids
    rows = read_label_list(out / f"{split}_image_list.txt", num_classes=len(ids))
    return {
        row.name: {
            ids[class_]: round(confidence, 4)
            for class_, confidence in zip(row.classes, row.confidences.tolist(), strict=True)
        }
        for row in rows
    }


PLAIN = "file_name,tags\n1.jpg,dog;cat\n2.jpg,cat\n3.jpg,\n"
TABLES = {
    "other names": ("t.csv", PLAIN),
    "semicolons": ("t.csv", "path;labels\n1.jpg;dog|cat\n2.jpg;cat\n3.jpg;\n"),
    "semicolons, quoted": ("t.csv", 'path;labels\n1.jpg;"dog;cat"\n2.jpg;cat\n3.jpg;\n'),
    "tabs": ("t.tsv", "image\tlabel\n1.jpg\tdog;cat\n2.jpg\tcat\n3.jpg\t\n"),
    "tabs, .csv": ("t.csv", "image\tlabel\n1.jpg\tdog;cat\n2.jpg\tcat\n3.jpg\t\n"),
    "bars": ("t.txt", "path|labels\n1.jpg|dog;cat\n2.jpg|cat\n3.jpg|\n"),
    "Excel": ("t.csv", "sep=;\r\npath;labels\r\n1.jpg;dog|cat\r\n2.jpg;cat\r\n3.jpg;\r\n"),
    "blanks before quotes": ("t.csv", 'path, labels\n1.jpg, "dog;cat"\n2.jpg, "cat"\n3.jpg, ""\n'),
    "blanks behind quotes": (
        "t.csv", '"path" ,"labels"\n"1.jpg" ,"dog;cat" \n"2.jpg" ,"cat"\n3.jpg,\n',
    ),
    "commas between labels": ("t.csv", 'path,labels\n1.jpg,"dog, cat"\n2.jpg,cat\n3.jpg,\n'
                              '4.jpg,dog\n'),
    "lists of Python": ("t.csv", "path,labels\n1.jpg,\"['dog', 'cat']\"\n2.jpg,['cat']\n"
                        "3.jpg,[]\n"),
    "one-hot": ("t.csv", "path,dog,cat\n1.jpg,1,1\n2.jpg,0,1\n3.jpg,0,0\n"),
    "one-hot, other words": ("t.csv", "file,dog,cat\n1.jpg,TRUE,yes\n2.jpg,FALSE,yes\n3.jpg,,no\n"),
    "one-hot, decimals": ("t.csv", "file;dog;cat\n1.jpg;1,0;1\n2.jpg;0,0;1\n3.jpg;0;0\n"),
    "byte order mark": ("t.csv", b"\xef\xbb\xbf" + PLAIN.encode()),
    "quoted names and a mark": ("t.csv", b'\xef\xbb\xbf"path","labels"\n1.jpg,dog;cat\n2.jpg,cat\n'
                                b"3.jpg,\n"),
    "UTF-16": ("t.csv", PLAIN.encode("utf-16")),
    "UTF-16 BE": ("t.csv", b"\xfe\xff" + PLAIN.encode("utf-16-be")),
    "UTF-16 without a mark": ("t.csv", PLAIN.encode("utf-16-le")),
    "UTF-32": ("t.csv", PLAIN.encode("utf-32")),
    "UTF-32 without a mark": ("t.csv", PLAIN.encode("utf-32-be")),
    "Windows": ("t.csv", PLAIN.replace("\n", "\r\n")),
    "old Mac": ("t.csv", PLAIN.replace("\n", "\r")),
    "no last line end": ("t.csv", PLAIN.rstrip("\n")),
    "compressed": ("t.csv.gz", gzip.compress(PLAIN.encode())),
    "upper case suffix": ("t.CSV", PLAIN),
    "trailing commas": ("t.csv", "path,labels,\n1.jpg,dog;cat,\n2.jpg,cat,\n3.jpg,,\n"),
    "trailing commas in rows": ("t.csv", "path,labels\n1.jpg,dog;cat,\n2.jpg,cat,,\n3.jpg,,\n"),
    "duplicate columns": ("t.csv", "path,x,x,labels\n1.jpg,a,b,dog;cat\n2.jpg,a,b,cat\n3.jpg,,,\n"),
    "no header": ("t.csv", "1.jpg,dog;cat\n2.jpg,cat\n3.jpg,\n"),
    "no header, semicolons": ("t.csv", "1.jpg;dog|cat\n2.jpg;cat\n3.jpg;\n"),
    "empty rows": ("t.csv", "path,labels\n,\n1.jpg,dog;cat\n\n  \n2.jpg,cat\n,,\n3.jpg,\n"),
    "one-hot, letters": ("t.csv", "file,dog,cat\n1.jpg,T,T\n2.jpg,F,T\n3.jpg,f,F\n"),
    "one-hot, German": ("t.csv", "file;dog;cat\n1.jpg;WAHR;ja\n2.jpg;FALSCH;ja\n3.jpg;;nein\n"),
    "one-hot, French": ("t.csv", "file;dog;cat\n1.jpg;VRAI;oui\n2.jpg;FAUX;oui\n3.jpg;;non\n"),
    "one-hot, an index": (
        "t.csv", "Unnamed: 0,path,dog,cat\n0,1.jpg,1,1\n1,2.jpg,0,1\n2,3.jpg,0,0\n",
    ),
    "one-hot, the flag of fastai": (
        "t.csv", "fname,dog,cat,is_valid\n1.jpg,1,1,True\n2.jpg,0,1,False\n3.jpg,0,0,True\n",
    ),
    "objects of JSON": (
        "t.csv", 'path,labels\n1.jpg,"{""dog"": 1, ""cat"": 1}"\n2.jpg,"{\'cat\': 1}"\n3.jpg,{}\n',
    ),
    "an index": ("t.csv", ",path,labels\n0,1.jpg,dog;cat\n1,2.jpg,cat\n2,3.jpg,\n"),
    "dots before": ("t.csv", "path,labels\n./1.jpg,dog;cat\n././2.jpg,cat\n3.jpg,\n"),
    "two label columns": ("t.csv", "path,a,b\n1.jpg,dog,cat\n2.jpg,cat,\n3.jpg,,\n"),
    "JSON lines": ("t.jsonl", '{"file_name": "1.jpg", "tags": ["dog", "cat"]}\n'
                   '{"file_name": "2.jpg", "tags": "cat"}\n{"file_name": "3.jpg", "tags": []}\n'),
    "JSON list": ("t.json", json.dumps([{"image": "1.jpg", "label": ["dog", "cat"]},
                  {"image": "2.jpg", "label": "cat"}, {"image": "3.jpg", "label": []}])),
    "JSON object": ("t.json", '{"1.jpg": ["dog", "cat"], "2.jpg": "cat", "3.jpg": []}'),
    "boxes of Hugging Face": (
        "metadata.jsonl",
        '{"file_name": "1.jpg", "objects": {"bbox": [[1,2,3,4], [1,2,3,4], [1,2,3,4]], '
        '"categories": ["dog", "cat", "dog"]}}\n'
        '{"file_name": "2.jpg", "objects": {"bbox": [[1,2,3,4]], "categories": ["cat"]}}\n'
        '{"file_name": "3.jpg", "objects": {"bbox": [], "categories": []}}\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_all_of_these_mean_the_same(tmp_path, kind):
    options = ["--label-columns", "a", "b"] if kind == "two label columns" else []
    rows = _import(tmp_path, *TABLES[kind], *options)
    assert {name: rows[name] for name in MEANT} == MEANT
    assert rows.keys() - MEANT <= {"4.jpg"}
    assert not (tmp_path / "out" / "set_aside.tsv").exists()


def test_parquet(tmp_path):
    table = pyarrow.table({"image_path": list(MEANT), "labels": [list(v) for v in MEANT.values()]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    import_table([tmp_path / "t.parquet"], output=tmp_path / "out")
    assert _rows(tmp_path / "out") == MEANT
    inside = pyarrow.array([{"bytes": b"\xff\xd8", "path": "1.jpg"}])
    pyarrow.parquet.write_table(
        pyarrow.table({"image": inside, "label": [1]}), tmp_path / "t.parquet"
    )
    with pytest.raises(
        PrepareError, match=r"contains the images themselves, in image, which `mlim"
    ):
        import_table([tmp_path / "t.parquet"], output=tmp_path / "out")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(PrepareError, match=r"t\.parquet: "):
        import_table([tmp_path / "t.parquet"], output=tmp_path / "out")


def test_one_hot_columns_are_classes_even_if_nothing_shows_them(tmp_path):
    text = "path,dog,cat,cow\n1.jpg,1,0,0\n2.jpg,0.5,-1,0\n3.jpg,,1,0\n"
    assert _import(tmp_path, "t.csv", text) == {
        "1.jpg": {"dog": 1}, "2.jpg": {"dog": 0.5, "cat": -1}, "3.jpg": {"cat": 1},
    }  # fmt: skip
    assert Hierarchy.from_file(tmp_path / "out" / "dictionary.txt").ids == ("cat", "cow", "dog")
    rows = _import(tmp_path, "t.csv", text, "--missing-labels", "unknown")
    assert rows["3.jpg"] == {"cat": 1, "cow": 0}  # an empty cell says nothing about dogs


def test_a_column_of_numbers_alone_is_a_class(tmp_path):
    rows = _import(tmp_path, "t.csv", "id_code,diagnosis\n000c1434,1\n001639a3,0\n")
    assert rows == {"000c1434": {"1": 1}, "001639a3": {"0": 1}}


def test_decimal_commas(tmp_path):
    rows = _import(tmp_path, "t.csv", "path;labels\n1.jpg;dog:0,8|cat:1\n2.jpg;dog:,5\n")
    assert rows == {"1.jpg": {"dog": 0.8, "cat": 1}, "2.jpg": {"dog": 0.5}}
    text = 'path,labels\n1.jpg,"dog:0,8,cat"\n2.jpg,cat\n'
    rows = _import(tmp_path, "t.csv", text, "--label-separator", ",")
    assert rows == {"1.jpg": {"dog": 0.8, "cat": 1}, "2.jpg": {"cat": 1}}


def test_an_index_of_two_rows_is_no_label(tmp_path):
    rows = _import(tmp_path, "t.csv", ",path,dog,cat\n0,1.jpg,1,0\n1,2.jpg,0,1\n")
    assert rows == {"1.jpg": {"dog": 1}, "2.jpg": {"cat": 1}}


def test_blanks_part_numbers_and_no_words(tmp_path):
    rows = _import(tmp_path, "t.csv", "Id,Target\n1.jpg,16 0\n2.jpg,0\n3.jpg,\n4.jpg,7 16 25\n")
    classes = {name: set(labels) for name, labels in rows.items()}
    assert classes == {
        "1.jpg": {"16", "0"}, "2.jpg": {"0"}, "3.jpg": set(), "4.jpg": {"7", "16", "25"},
    }  # fmt: skip
    rows = _import(tmp_path, "t.csv", "path,labels\n1.jpg,12 apostles\n2.jpg,101 11\n")
    assert rows["1.jpg"] == {"12 apostles": 1}
    text = "path,labels\n1.jpg,haze primary\n2.jpg,primary\n"
    rows = _import(tmp_path, "t.csv", text, "--label-separator", " ")
    assert rows["1.jpg"] == {"haze": 1, "primary": 1}


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl", "t.tsv"])
@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            b"PK\x03\x04\x14\0\6\0",
            "is a spreadsheet of Excel or LibreOffice, or a ZIP",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a spreadsheet of an old Excel: save it as CSV"),
        (b"PAR1\x15\4", "is a Parquet file: rename it to .parquet"),
    ],
)
def test_what_is_no_text_is_called_by_its_name(tmp_path, name, start, message):
    with pytest.raises(PrepareError, match=re.escape(f"{name}: {message}")):
        _import(tmp_path, name, start + bytes(100))


def test_a_comma_in_a_name_stays_one(tmp_path):
    rows = _import(tmp_path, "t.csv", 'path,labels\n1.jpg,"shark, white shark"\n2.jpg,dog\n')
    assert rows["1.jpg"] == {"shark, white shark": 1}


@pytest.mark.parametrize(
    "rows",
    [
        [f"{i}.jpg,cat" for i in range(50)],
        [f'{i}.jpg,"cat"' for i in range(50)],
        [f"{i}.jpg,cat;dog,3" for i in range(50)],
    ],
)
@pytest.mark.parametrize("where", ["closed by a later one", "never closed"])
def test_an_unclosed_quote_is_named_with_its_line(tmp_path, rows, where):
    """Line 6 opens one; that of line 51, or none, closes it."""
    header = "path,labels" + ",n" * (rows[0].count(",") - 1)
    broken = list(rows)
    broken[4] = rows[4].replace('"', "").replace(",c", ',"c', 1)
    if where == "closed by a later one":
        broken[49] = '49.jpg,cat"' + ",3" * (rows[0].count(",") - 1)
    with pytest.raises(PrepareError, match=r"t\.csv:6: a quote opened here is not closed"):
        _import(tmp_path, "t.csv", "\n".join([header, *broken]) + "\n")
    assert not list(tmp_path.glob("out/*"))


def test_texts_of_several_lines_are_not_taken_for_unclosed_quotes(tmp_path):
    text = 'path,labels,note\n1.jpg,dog,"one,\n two, three\n\n""four"", 5"\n2.jpg,cat,\n'
    assert _import(tmp_path, "t.csv", text) == {"1.jpg": {"dog": 1}, "2.jpg": {"cat": 1}}


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis"])
def test_other_encodings_are_told_and_can_be_given(tmp_path, encoding):
    word = "犬" if encoding == "shift_jis" else "Bär"
    data = f"path,labels\n1.jpg,{word}\n2.jpg,dog\n".encode(encoding)
    with pytest.raises(PrepareError, match=r"t\.csv:2: not UTF-8 .* --encoding cp1252"):
        _import(tmp_path, "t.csv", data, "--max-skipped", "0")
    rows = _import(tmp_path, "t.csv", data, "--encoding", encoding)
    assert rows == {"1.jpg": {word: 1}, "2.jpg": {"dog": 1}}


def test_odd_rows_are_set_aside(tmp_path, capsys):
    odd = ["x.jpg,a,b,c", ",dog", "y.jpg", "z.jpg,dog:7", "v\x1b[31m.jpg,:1"]
    text = "\n".join(["path,labels", *odd, *(f"{i}.jpg,dog" for i in range(20))]) + "\n"
    rows = _import(tmp_path, "t.csv", text)
    assert len(rows) == 20
    lines = (tmp_path / "out" / "set_aside.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines] == ["place", "2", "3", "4", "5", "6"]
    out = capsys.readouterr().out
    assert "5 of 25 rows set aside" in out and "\x1b" not in out
    with pytest.raises(PrepareError, match="6 of 26 rows unusable; at most 5 may be set aside"):
        _import(tmp_path, "t.csv", text + "w.jpg\n")
    assert _rows(tmp_path / "out") == rows  # what was there stays
    assert len(_import(tmp_path, "t.csv", text + "w.jpg\n", "--max-skipped", "0.5")) == 20
    _import(tmp_path, "t.csv", PLAIN)
    assert not (tmp_path / "out" / "set_aside.tsv").exists()  # of an earlier import


def test_one_percent_may_be_set_aside(tmp_path):
    rows = [f"{i}.jpg,dog" for i in range(990)]
    assert len(_import(tmp_path, "t.csv", "\n".join(["path,labels", *rows, *["x"] * 10]))) == 990
    with pytest.raises(PrepareError, match="11 of 1,001 rows"):
        _import(tmp_path, "t.csv", "\n".join(["path,labels", *rows, *["x"] * 11]))


# ---------- where the images are


def _touch(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"-")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/1.jpg", "b/2.jpg"], ["a/1.jpg", "b/2.jpg"]),
        (["a\\1.jpg", "b\\2.jpg"], ["a/1.jpg", "b/2.jpg"]),
        (["C:\\my\\pics\\a\\1.jpg", "C:\\my\\pics\\b\\2.jpg"], ["a/1.jpg", "b/2.jpg"]),
        (["/home/me/pics/a/1.jpg", "/home/me/pics/b/2.jpg"], ["a/1.jpg", "b/2.jpg"]),
        (["pics/a/1.jpg", "pics/b/2.jpg"], ["a/1.jpg", "b/2.jpg"]),
        (["a/1", "b/2"], ["a/1.jpg", "b/2.jpg"]),
        (["HERE/photos/a/1.jpg", "HERE/photos/b/2.jpg"], ["a/1.jpg", "b/2.jpg"]),
    ],
)  # fmt: skip
def test_images_are_found_beside_the_table(tmp_path, paths, names, capsys):
    _touch(tmp_path, "photos/a/1.jpg", "photos/b/2.jpg")
    lines = [f"{path.replace('HERE', str(tmp_path))},dog" for path in paths]
    rows = _import(tmp_path, "t.csv", "\n".join(["path,labels", *lines]))
    images = tmp_path / "out" / "images"
    assert all((images / name).is_file() for name in rows)
    assert [name.removeprefix("photos/") for name in rows] == names
    assert "leads to the images" in capsys.readouterr().out


def test_paths_do_not_leave_their_folder(tmp_path):
    _touch(tmp_path, "secret.jpg", "set/1.jpg")
    for path in ("../secret.jpg", f"{tmp_path}/secret.jpg", "..\\secret.jpg"):
        rows = _import(tmp_path / "set", "t.csv", f"path,labels\n1.jpg,dog\n{path},dog\n")
        (tmp_path / "set" / "out" / "images").unlink(missing_ok=True)
        assert rows == {"1.jpg": {"dog": 1}}, path


def test_addresses_are_to_be_downloaded_first(tmp_path, capsys):
    text = "url,labels\nhttp://a.org/1.jpg,dog\nhttps://a.org/2.jpg?x=1,cat\n"
    rows = _import(tmp_path, "t.csv", text)
    assert rows == {"http://a.org/1.jpg": {"dog": 1}, "https://a.org/2.jpg?x=1": {"cat": 1}}
    out = capsys.readouterr().out
    assert "mlimages data download" in out
    assert f"--manifests {tmp_path}/out_images/manifest.sqlite" in out


# ---------- whatever a table is


_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
_suffixes = st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet", ".csv.gz"])
_delimiters = st.sampled_from(",;\t|")
_words = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters=":;>|,\"\\'[]/"),
                 min_size=1, max_size=5)  # fmt: skip
_odd_lines = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([
            b"path,labels", b"a.jpg,b;c:0.5", b'"', b'a.jpg,"b', b' "x" ,"y"', b"a.jpg;b;c",
            b"\xef\xbb\xbfpath;labels", b"\xff\xfe", b"file_name\tdog\tcat", b"a.jpg\t1\t0",
            b'{"path": "a.jpg", "labels": ["b"]}', b'[{"image": "a.jpg"', b"{}", b"[]", b"\x00",
            b'{"path": {"path": 3}, "labels": {"b": 2}}', b"/../a.jpg,b", b"C:\\a.jpg,b", b",,,",
            b"http://a/b.jpg,c", b"sep=|", b"path,path,labels,labels", b"a.jpg," + b"x" * 300,
        ]),
    ),
    max_size=8,
)  # fmt: skip


def _assert_no_table_crashes(folder, lines, ends, suffix):
    path = folder / f"t{suffix}"
    path.write_bytes(ends.join(lines))
    try:
        import_table([path], output=folder / "out")
    except PrepareError as error:
        assert str(error)


def _assert_a_delimited_table_survives(folder, delimiter, rows, quote, header):
    """A table is written as some program might; its rows come back."""

    def cell(text):
        return f'"{text}"' if quote else text

    lines = [[f"{i}.jpg", label] for i, label in enumerate(rows)]
    table = [["filename", "species"], *lines] if header else lines
    path = folder / "t.csv"
    path.write_text("\n".join(delimiter.join(map(cell, row)) for row in table), encoding="utf-8")
    found = Table(path, TableOptions(label_separator=";"))
    assert [(row.path, row.labels) for row in found.rows()] == [
        (name, [(normal(" ".join(label.split())), 1.0)]) for name, label in lines
    ]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz", "t.json.gz"])
def test_damage_of_compressed_files_is_named(tmp_path, name):
    text = {
        "t.csv.gz": PLAIN,
        "t.jsonl.gz": '{"file_name": "1.jpg", "tags": "dog"}\n',
        "t.json.gz": '{"1.jpg": ["dog"]}',
    }[name]
    data = gzip.compress(text.encode())
    damaged = [data[:length] for length in range(2, len(data), 3)]
    damaged += [data[:i] + bytes([data[i] ^ 64]) + data[i + 1 :] for i in range(2, len(data))]
    for content in damaged:
        try:
            _import(tmp_path, name, content)
        except PrepareError as error:
            assert str(error).startswith(str(tmp_path / name))


@given(_odd_lines, _ends, _suffixes)
@settings(max_examples=150, deadline=None)
def test_no_table_crashes(tmp_path_factory, lines, ends, suffix):
    _assert_no_table_crashes(tmp_path_factory.mktemp("t"), lines, ends, suffix)


@given(_delimiters, st.lists(_words, min_size=1, max_size=6), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_delimiters_are_found(tmp_path_factory, delimiter, rows, quote, header):
    _assert_a_delimited_table_survives(tmp_path_factory.mktemp("t"), delimiter, rows, quote, header)


@pytest.mark.slow
@pytest.mark.parametrize("part", fuzzing.PARTS)
def test_ten_thousand_tables(tmp_path, part):
    @seed(part)
    @given(
        _odd_lines,
        _ends,
        _suffixes,
        _delimiters,
        st.lists(_words, min_size=1, max_size=6),
        st.booleans(),
        st.booleans(),
    )
    @settings(max_examples=1_000, deadline=None, database=None)
    def every(lines, ends, suffix, delimiter, rows, quote, header):
        _assert_no_table_crashes(tmp_path, lines, ends, suffix)
        _assert_a_delimited_table_survives(tmp_path, delimiter, rows, quote, header)

    every()
