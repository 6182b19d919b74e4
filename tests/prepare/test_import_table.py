# SPDX-License-Identifier: BSD-3-Clause
import csv
import io
import json
import re
import shlex

import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from mlimages_jax.labels.same_names import normal
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare import __main__ as prepare
from mlimages_jax.prepare.imports.table import import_table, in_val
from mlimages_jax.prepare.imports.table_rows import read_table
from tests.support import fuzzing, image_files
from tfds_builders import ml_images

CSV = """\
path,width,labels
b.jpg,3,animal > dog;ball:0.8
a/b c.jpg,4,
d.jpg,5," animal>dog : 0.25 ; animal > dog ; animal> dog:0.5; animal > cat:-1;"
"""
JSON_LINES = """\
{"path": "b.jpg", "labels": {"animal > dog": 1, "ball": 0.8}, "width": 3}

{"path": "a/b c.jpg", "labels": []}
{"labels": {"animal>dog": 1, "animal > dog": 0.25, "animal > cat": -1}, "path": "d.jpg"}
"""
DICTIONARY = """\
category_index\tcategory_id\tindex_of_parent_category\tcategory name
0\tn0\t-1\tanimal
1\tn1\t0\tdog, domestic dog
2\tn2\t0\tcrane
3\tn3\t-1\tmachine
4\tn4\t3\tcrane
5\tn5\t0\tcat, true cat
"""


def _import(folder, name: str, text: str, *options: str) -> tuple[Hierarchy, dict[str, str]]:
    """Runs the command on a table with this text; returns the classes and the lists."""
    (folder / name).write_text(text, errors="surrogateescape")
    tyro.cli(import_table, args=[str(folder / name), "--output", str(folder / "out"), *options])
    lists = {
        path.name.removesuffix("_image_list.txt"): path.read_text()
        for path in (folder / "out").glob("*_image_list.txt")
    }
    return Hierarchy.from_file(folder / "out" / "dictionary.txt"), lists


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", CSV),
        ("t.jsonl", JSON_LINES),
        ("t.ndjson", "\ufeff" + JSON_LINES),
        ("t.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
    ],
)
def test_the_labels_make_the_hierarchy(tmp_path, name, text):
    classes, lists = _import(tmp_path, name, text)
    assert classes.ids == ("animal", "animal > cat", "animal > dog", "ball")
    assert classes.names == ("animal", "cat", "dog", "ball")
    assert classes.parents.tolist() == [-1, 0, 0, -1]
    assert lists == {"train": "b.jpg\t2:1\t3:0.8\na/b c.jpg\t\nd.jpg\t2:1\t1:-1\n"}
    assert (tmp_path / "out" / "unlisted.txt").read_text().split() == ["absent"]


def test_a_name_that_ends_like_a_confidence_needs_one(tmp_path):
    classes, lists = _import(tmp_path, "t.csv", "path,labels\n1.jpg,film 16:9:1;a:b\n")
    assert classes.ids == ("a:b", "film 16:9")
    assert lists == {"train": "1.jpg\t1:1\t0:1\n"}


def test_other_separators(tmp_path):
    text = "labels,path\nzoo/animal/dog|toy; new,1.jpg\n"
    options = [
        "--label-separator",
        "|",
        "--hierarchy-separator",
        "/",
        "--missing-labels",
        "unknown",
    ]
    classes, lists = _import(tmp_path, "t.csv", text, *options)
    assert classes.ids == ("toy; new", "zoo", "zoo > animal", "zoo > animal > dog")
    assert lists == {"train": "1.jpg\t3:1\t0:1\n"}
    assert (tmp_path / "out" / "unlisted.txt").read_text().split() == ["unknown"]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["a,b", "a,b"], {"a", "b"}),
        (["crane, bird", "crane, bird"], {"crane, bird"}),
        (["a,b"], {"a,b"}),  # one row tells nothing
        (["a,b", "b"], {"a,b", "b"}),  # fewer parts than cells recur
        (["a,b", "b", "a"], {"a", "b"}),
    ],
)
def test_commas_part_labels_where_all_cells_are_the_same(tmp_path, cells, labels):
    rows = "".join(f"{i}.jpg;{cell}\n" for i, cell in enumerate(cells))
    classes, _ = _import(tmp_path, "t.csv", f"path;labels\n{rows}")
    assert set(classes.ids) == labels


def test_later_images_of_the_same_classes(tmp_path):
    _, first = _import(tmp_path, "t.csv", CSV)
    options = ["--dictionary", str(tmp_path / "out" / "dictionary.txt"), "--split", "val"]
    _, lists = _import(tmp_path, "t.csv", "path,labels\ne.jpg,ball;animal>cat\n", *options)
    assert lists == {**first, "val": "e.jpg\t3:1\t1:1\n"}


def test_labels_are_ids_or_names_or_synonyms_of_a_dictionary(tmp_path):
    (tmp_path / "classes.txt").write_text(DICTIONARY)
    text = 'path,labels\n1.jpg,"n4;domestic dog:0.5;cat, true cat"\n'
    _, lists = _import(tmp_path, "t.csv", text, "--dictionary", str(tmp_path / "classes.txt"))
    assert lists == {"train": "1.jpg\t4:1\t1:0.5\t5:1\n"}
    for label, message in [
        ("crane", "'crane' is the name of several classes; give an id: n2, n4"),
        ("wolf", "no class has the id or name 'wolf'"),
    ]:
        with pytest.raises(PrepareError, match=rf"t\.csv:3: {message}"):
            _import(
                tmp_path, "t.csv", f"path,labels\n1.jpg,n0\n2.jpg,{label}\n",
                "--dictionary", str(tmp_path / "classes.txt"), "--max-skipped", "0",
            )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "part,path,labels\ntrain,1.jpg,a\nheld_out,2.jpg,a\ntrain,3.jpg,a\n"),
        ("t.jsonl", '{"path": "1.jpg", "labels": ["a"], "part": "train"}\n'
         '{"path": "2.jpg", "labels": ["a"], "part": "held_out"}\n'
         '{"path": "3.jpg", "labels": ["a"], "part": "train"}\n'),
    ],
)  # fmt: skip
def test_a_column_of_splits(tmp_path, name, text):
    _, lists = _import(tmp_path, name, text, "--split-column", "part")
    assert lists == {"train": "1.jpg\t0:1\n3.jpg\t0:1\n", "held_out": "2.jpg\t0:1\n"}


def test_a_share_for_validation_depends_on_the_path_alone(tmp_path):
    paths = [f"{i}.jpg" for i in range(400)]
    rows = [f"{path},{i % 7}\n" for i, path in enumerate(paths)]
    text = "path,labels\n" + "".join(rows)
    _, lists = _import(tmp_path, "t.csv", text, "--val-fraction", "0.25")
    val = {line.split("\t")[0] for line in lists["val"].splitlines()}
    assert val == {path for path in paths if in_val(path, 0.25)}
    assert 70 <= len(val) <= 130
    assert val <= {path for path in paths if in_val(path, 0.4)}  # a larger share adds some
    assert len(lists["train"].splitlines()) == 400 - len(val)
    text = "path,labels\n" + "".join(reversed(rows[:200]))
    _, lists = _import(tmp_path, "t.csv", text, "--val-fraction", "0.25")
    assert {line.split("\t")[0] for line in lists["val"].splitlines()} == val & set(paths[:200])
    assert in_val("0.jpg", 0.297) and not in_val("0.jpg", 0.296)  # not the process's hash
    assert in_val("caf\udce9/1.jpg", 1.0)  # a name that is not UTF-8


def test_repeated_images_are_told(tmp_path, capsys):
    _import(tmp_path, "t.csv", "path,labels\n1.jpg,a\n2.jpg,a\n1.jpg,b\n1.jpg,c\n")
    said = capsys.readouterr().out
    assert "2 rows have the path of an earlier row of the same split" in said
    assert "are in" not in said
    merge = next(line for line in said.splitlines() if "--merge" in line)
    prepare.main(shlex.split(merge)[2:])
    written = (tmp_path / "out" / "train_image_list.txt").read_text()
    assert written == "1.jpg\t0:1\t1:1\t2:1\n2.jpg\t0:1\n"


def test_images_of_several_splits_are_told(tmp_path, capsys):
    text = "path,labels,part\n1.jpg,a,train\n1.jpg,a,val\n2.jpg,a,val\n3.jpg,a,train\n2.jpg,b,val\n"
    _import(tmp_path, "t.csv", text, "--split-column", "part")
    said = capsys.readouterr().out
    assert "1 row has the path of an earlier row of the same split" in said
    assert "1 image is in train and in val" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv:1: the table is empty"),
        ("path;labels\n", "t.csv: no row has a label"),
        (
            "path,a,b\n",
            "t.csv:1: the table lacks labels, and no other column looks like it; its "
            "columns are 'path', 'a', 'b': name it with --label-columns NAME",
        ),
        ("a,labels,labels\n1.jpg,a,b\n", "t.csv:1: the column 'labels' occurs twice"),
        ("path,labels\n1.jpg,a\n2.jpg,b,c\n", "t.csv:3: 3 columns, but the header has 2"),
        ("path,labels\n1.jpg,a\n\n2.jpg\n", "t.csv:4: 1 columns, but the header has 2"),
        ("path,labels\n1.jpg,a\n,b\n", "t.csv:3: the path is empty"),
        ("path,labels\n1.jpg,a:1.5\n", "t.csv:2: confidence 1.5 of 'a' is neither -1"),
        ("path,labels\n1.jpg,16:9\n", "t.csv:2: confidence 9.0 of '16' is neither -1"),
        ("path,labels\n1.jpg,:0.5\n", "t.csv:2: a label is empty"),
        ("path,labels\n1.jpg,a > > b\n", "t.csv:2: 'a > > b' has an empty name"),
        ("path,labels\n1.jpg,a\n2.jpg,b >\n", "t.csv:3: 'b >' has an empty name"),
        ('path,labels\n1.jpg,"a\n;b"\n2.jpg,"c\n', "t.csv:4: a quote opened here is not"),
        ("path,labels\n1.jpg,a\n2\udcff.jpg,b\n", "t.csv:3: not UTF-8"),
        ('path,labels\n1.jpg,a\n"../2.jpg",b\n', "t.csv:3: the path '../2.jpg' is empty or"),
        ("path,labels\n1.jpg,\n", "t.csv: no row has a label, and there is no --dictionary"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, message):
    with pytest.raises(PrepareError, match=re.escape(message)):
        _import(tmp_path, "t.csv", text, "--max-skipped", "0")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("3", "not an object such as"),
        ('{"labels": []}', '"path" is missing'),
        ('{"path": 3.5, "labels": []}', '"path" is 3.5; it must be text'),
        ('{"path": "", "labels": []}', "the path is empty"),
        ('{"path": "2.jpg"}', 'there is no label: "labels" is missing'),
        ('{"path": "2.jpg", "labels": null}', 'there is no label: "labels" is empty'),
        ('{"path": "2.jpg", "labels": 1.5}', '"labels" must be'),
        ('{"path": "2.jpg", "labels": [1.5]}', '"labels" must be'),
        ('{"path": "2.jpg", "labels": {"a": true}}', '"labels" must be'),
        ('{"path": "2.jpg", "labels": {"a": NaN}}', "confidence nan of 'a'"),
        ('{"path": "2.jpg", "labels": [" "]}', "a label is empty"),
        ('{"path": "2.jpg", "labels": ["\\ud800"]}', "surrogates not allowed"),
        ('{"path": "../a.jpg", "labels": ["a"]}', "leads out of its folder"),
    ],
)
def test_bad_json_lines_are_named(tmp_path, line, message):
    text = '{"path": "1.jpg", "labels": ["a"]}\n' + line + "\n"
    with pytest.raises(PrepareError, match=rf"t\.jsonl:2: .*{re.escape(message)}"):
        _import(tmp_path, "t.jsonl", text, "--max-skipped", "0")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val-fraction", "1"], "--val-fraction 1.0 is not at least 0 and below 1"),
        (["--val-fraction", "0.1", "--split", "test"], "give only one of"),
        (["--split-column", "path", "--val-fraction", "0.1"], "give only one of"),
        (["--split-column", "part"], "lacks part"),
        (["--path-column", "part"], "lacks part"),
        (["--label-columns", "part"], "lacks part"),
        (["--delimiter", ";;"], "--delimiter ';;' is not one character"),
        (["--encoding", "no-such"], "--encoding 'no-such' is unknown"),
        (["--max-skipped", "2"], "--max-skipped 2.0 is not from 0 to 1"),
        (
            ["--split-column", "x", "--max-skipped", "0"],
            "t.csv:3: '' cannot be the name of a split",
        ),
        (["--split", "all"], "'all' cannot be the name of a split"),
        (["--label-separator", ""], "a separator is empty"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path, options, message):
    with pytest.raises(PrepareError, match=re.escape(message)):
        _import(tmp_path, "t.csv", "path,labels,x\n1.jpg,a,a\n2.jpg,,\n", *options)


def test_without_a_table_it_says_so(tmp_path):
    with pytest.raises(PrepareError, match="no table given"):
        import_table([], output=tmp_path)


def test_a_table_of_another_kind_is_refused(tmp_path):
    with pytest.raises(
        PrepareError, match=r"t\.xlsx: the name does not end in \.csv, .* or \.parquet"
    ):
        _import(tmp_path, "t.xlsx", "")


# ---------- any table

_names = st.text(  # composed, since those of the classes are
    st.characters(exclude_categories=("C", "Z"), exclude_characters=":;>\\"), min_size=1, max_size=4
).map(normal)
_labels = st.dictionaries(
    st.lists(_names, min_size=1, max_size=3).map(" > ".join),
    st.one_of(st.just(-1.0), st.floats(0, 1, width=32)),
    max_size=4,
)
_folders = _names.filter(lambda name: "/" not in name and name.strip("."))  # of plain paths
_tables = st.lists(st.tuples(_folders.map("{}/a.jpg".format), _labels), min_size=1, max_size=6)


def _csv_text(rows) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["path", "labels"])
    for path, labels in rows:
        writer.writerow([path, ";".join(f"{label}:{value!r}" for label, value in labels.items())])
    return file.getvalue()


def _json_text(rows) -> str:
    return "\n".join(json.dumps({"path": path, "labels": labels}) for path, labels in rows)


def _assert_a_table_survives(folder, rows):
    """Both kinds of it, through the files on disk, against the rows as they were."""
    for name, text in (("t.csv", _csv_text(rows)), ("t.jsonl", _json_text(rows))):
        (folder / name).write_text(text, encoding="utf-8", newline="")
        if not any(labels for _, labels in rows):
            continue
        import_table([folder / name], output=folder / "out", label_separator=";")
        classes = Hierarchy.from_file(folder / "out" / "dictionary.txt")
        named = {label for _, labels in rows for label in labels}
        paths = [label.split(" > ") for label in named]
        above = {" > ".join(path[:n]) for path in paths for n in range(1, len(path) + 1)}
        assert set(classes.ids) == above
        for i, id_ in enumerate(classes.ids):
            *parents, own = id_.split(" > ")
            assert classes.names[i] == own
            above = classes.ids[classes.parents[i]] if classes.parents[i] >= 0 else ""
            assert above == " > ".join(parents)
        written = read_label_list(folder / "out" / "train_image_list.txt", num_classes=len(classes))
        assert [
            (row.name, {classes.ids[class_]: value for class_, value in zip(
                row.classes, row.confidences.tolist(), strict=True)})
            for row in written
        ] == rows  # fmt: skip


@given(_tables)
@settings(max_examples=30, deadline=None)
def test_any_table_survives(tmp_path_factory, rows):
    _assert_a_table_survives(tmp_path_factory.mktemp("any"), rows)


_lines = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b"path,labels", b"a.jpg,b;c:0.5", b'"', b'{"path": "a", "labels": []}']),
    ),
    max_size=5,
)


def _assert_bad_tables_are_named(folder, lines):
    for name in ("t.csv", "t.jsonl"):
        path = folder / name
        path.write_bytes(b"\n".join(lines))
        last = b"\n".join(lines).count(b"\n") + 1
        try:
            for row in read_table(path):
                assert 1 <= row.line <= last
        except PrepareError as error:
            line = re.match(rf"{re.escape(str(path))}:(\d+): ", str(error))
            assert line, error
            assert 1 <= int(line[1]) <= last


@given(_lines)
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_read_or_named(tmp_path_factory, lines):
    _assert_bad_tables_are_named(tmp_path_factory.mktemp("bytes"), lines)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_tables(tmp_path):
    @given(_tables, _lines)
    @settings(max_examples=fuzzing.fraction(1_000), deadline=None)
    def every(rows, lines):
        _assert_a_table_survives(tmp_path, rows)
        _assert_bad_tables_are_named(tmp_path, lines)

    every()


# ---------- from a table to a built data set


def _built(folder) -> dict[str, list[tuple[str, dict[str, float]]]]:
    """What a built set says: {split: (name of the image, {class id: confidence})}, by name."""
    data = DataSet.open(folder)
    ids = Hierarchy.from_file(data.class_list).ids
    return {
        split: [
            (
                record.name,
                {
                    ids[class_]: round(value, 4)
                    for class_, value in zip(
                        record.labels, record.confidences.tolist(), strict=True
                    )
                },
            )
            for record in sorted(map(parse_record, data.records(split)), key=lambda r: r.name)
        ]
        for split in ("train", "val")
    }


def test_from_a_table_to_a_built_set_by_hand(tmp_path):
    text = (
        "path,labels,part\n1.jpg,animal>dog:0.75,train\nb/2.jpg,animal>cat;sky,train\n3.jpg,,val\n"
    )
    _import(tmp_path, "t.csv", text, "--split-column", "part", "--missing-labels", "unknown")
    (tmp_path / "out" / "images" / "b").mkdir(parents=True)
    for name in ("1.jpg", "b/2.jpg", "3.jpg"):
        (tmp_path / "out" / "images" / name).write_bytes(image_files.GOOD["colour"]())
    folder = ml_images.build(tmp_path / "out", tmp_path / "data", labels="closed")
    assert _built(folder) == {
        "train": [
            ("1.jpg", {"animal > dog": 0.75, "animal": 0.75}),
            ("b/2.jpg", {"animal > cat": 1, "animal": 1, "sky": 1}),
        ],
        "val": [("3.jpg", {})],
    }
    assert DataSet.open(folder).missing_labels == -1


def test_stamps_as_a_table_give_the_numbers_of_their_own_list(tmp_path, stamps_dir):
    """Without their dictionary: classes from the most specific labels, closed when it is built."""
    original = Hierarchy.from_file(stamps_dir / "dictionary.txt")
    expected, rows = {}, []
    for split in ("train", "val"):
        stamps = read_label_list(stamps_dir / f"{split}_image_list.txt", num_classes=len(original))
        expected[split] = [
            (row.name, {_path(original, i): 1.0 for i in row.classes})
            for row in sorted(stamps, key=lambda row: row.name)
        ]
        rows += [
            {"path": row.name, "part": split, "labels": [
                _path(original, i) for i in row.classes
                if not any(i in original.ancestors(int(j)) for j in row.classes)
            ]}
            for row in stamps
        ]  # fmt: skip
    text = "\n".join(map(json.dumps, rows))
    classes, _ = _import(tmp_path, "stamps.jsonl", text, "--split-column", "part")
    (tmp_path / "out" / "images").symlink_to(stamps_dir / "images")
    folder = ml_images.build(
        tmp_path / "out", tmp_path / "data", labels="closed", short_side=None, max_skipped=0
    )
    assert _built(folder) == expected
    used = {i for split in expected.values() for _, labels in split for i in labels}
    assert set(classes.ids) == used
    assert {split: len(part) for split, part in expected.items()} == {"train": 822, "val": 196}


def test_stamps_with_their_dictionary_give_their_own_list(tmp_path, stamps_dir):
    original = Hierarchy.from_file(stamps_dir / "dictionary.txt")
    stamps = read_label_list(stamps_dir / "train_image_list.txt", num_classes=len(original))
    text = "path,labels\n" + "".join(
        f"{row.name},{';'.join(original.ids[i] for i in row.classes)}\n" for row in stamps
    )
    options = ["--dictionary", str(stamps_dir / "dictionary.txt")]
    classes, lists = _import(tmp_path, "t.csv", text, *options)
    written = read_label_list(tmp_path / "out" / "train_image_list.txt", num_classes=len(classes))
    for name in ("names", "offsets", "classes", "confidences"):
        np.testing.assert_array_equal(getattr(written, name), getattr(stamps, name))
    assert classes.ids == original.ids
    assert lists.keys() == {"train"}


def _path(hierarchy: Hierarchy, class_: int) -> str:
    way = [*hierarchy.ancestors(int(class_))[::-1], class_]
    return " > ".join(" ".join(hierarchy.names[i].split()) for i in way)
