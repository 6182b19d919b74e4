# SPDX-License-Identifier: BSD-3-Clause
import gzip
import json
import random
import shutil

import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.open_images import import_open_images
from mlimages_jax.prepare.imports.open_images_classes import read_tree, to_forest

HEADER = "ImageID,Source,LabelName,Confidence\n"
DESCRIPTIONS = """\
LabelName,DisplayName
/m/animal,Animal
/m/dog,"Dog, or ""hound\"""
/m/pet,Pet
/m/paw,Paw
/m/sky,Sky
"""
TREE = {
    "LabelName": "/m/entity",
    "Subcategory": [
        {
            "LabelName": "/m/animal",
            "Subcategory": [
                {"LabelName": "/m/pet", "Subcategory": [{"LabelName": "/m/dog"}]},
                {"LabelName": "/m/dog", "Part": [{"LabelName": "/m/paw"}]},
            ],
        },
        {"LabelName": "/m/toy", "Subcategory": [{"LabelName": "/m/dog"}]},
    ],
}
ONE, TWO, LAST = "0001eeaf4aed83f9", "00000000000000ff", "ffffffffffffffff"
PEOPLE = f"""\
{LAST},verification,/m/sky,1
{ONE},verification,/m/dog,1
{ONE},crowdsource-verification,/m/pet,0
{TWO},verification,/m/sky,0
{ONE},verification,/m/new,1
{TWO},crowdsource-verification,/m/sky,1
"""
MACHINE = f"""\
{ONE},machine,/m/pet,0.9
{ONE},machine,/m/sky,0.6
{ONE},machine,/m/sky,0.7
{TWO},machine,/m/paw,0.25
0000000000000100,machine,/m/dog,0.5
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "descriptions.csv").write_text(DESCRIPTIONS)
    (tmp_path / "tree.json").write_text(json.dumps(TREE))
    (tmp_path / "people.csv").write_text(HEADER + PEOPLE)
    with gzip.open(tmp_path / "machine.csv.gz", "wt") as file:
        file.write(HEADER + MACHINE)
    return tmp_path


def _import(files, *options: str, tree: bool = True):
    """Runs the command on files of the folder; returns classes and rows {split: {name: labels}}."""
    words = ["--output", "out", "--descriptions", "descriptions.csv", *options]
    words += ["--hierarchy", "tree.json"] if tree else []
    is_file = {path.name for path in files.iterdir()} | {"out"}
    tyro.cli(
        import_open_images, args=[str(files / word) if word in is_file else word for word in words]
    )
    classes = Hierarchy.from_file(files / "out" / "dictionary.txt")
    return classes, {
        path.name.removesuffix("_image_list.txt"): {
            row.name: {
                classes.ids[class_]: round(float(confidence), 4)
                for class_, confidence in zip(row.classes, row.confidences, strict=True)
            }
            for row in read_label_list(path, num_classes=len(classes))
        }
        for path in sorted((files / "out").glob("*_image_list.txt"))
    }


def test_what_people_said_becomes_0_and_1(files, capsys):
    _, rows = _import(
        files, "--train", "people.csv", "machine.csv.gz", "--missing-labels", "unknown"
    )
    assert rows == {
        "train": {
            f"{TWO}.jpg": {"/m/sky": 1},
            f"{ONE}.jpg": {"/m/dog": 1, "/m/pet": 0, "/m/new": 1},
            f"{LAST}.jpg": {"/m/sky": 1},
        }
    }
    assert list(rows["train"]) == [f"{TWO}.jpg", f"{ONE}.jpg", f"{LAST}.jpg"]  # by id
    assert (files / "out" / "unlisted.txt").read_text().split() == ["unknown"]
    assert "5 rows of machine, dropped" in capsys.readouterr().out


def test_machines_fill_in_where_no_person_spoke(files):
    _, rows = _import(files, "--val", "machine.csv.gz", "people.csv", "--machine", "keep")
    assert rows == {
        "val": {
            f"{TWO}.jpg": {"/m/sky": 1, "/m/paw": 0.25},
            "0000000000000100.jpg": {"/m/dog": 0.5},
            f"{ONE}.jpg": {"/m/dog": 1, "/m/pet": 0, "/m/new": 1, "/m/sky": 0.7},
            f"{LAST}.jpg": {"/m/sky": 1},
        }
    }
    assert (files / "out" / "unlisted.txt").read_text().split() == ["absent"]


def test_the_classes_and_the_edges_that_had_to_go(files, capsys):
    classes, _ = _import(files, "--train", "people.csv")
    parents = {
        id_: classes.ids[parent] if parent >= 0 else None
        for id_, parent in zip(classes.ids, classes.parents, strict=True)
    }
    assert parents == {
        "/m/animal": None,  # the outermost class has no description
        "/m/pet": "/m/animal",
        "/m/dog": "/m/pet",  # the longest way up
        "/m/paw": None,  # a part is no kind
        "/m/toy": None,
        "/m/sky": None,
        "/m/new": None,
    }
    names = dict(zip(classes.ids, classes.names, strict=True))
    assert names["/m/dog"] == 'Dog, or "hound"'
    assert names["/m/toy"] == "/m/toy"  # in the tree only
    assert names["/m/new"] == "/m/new"  # in the labels only
    table = (files / "out" / "dropped_edges.tsv").read_text().splitlines()
    assert [line.split("\t")[:4] for line in table[1:]] == [
        ["/m/dog", "/m/animal", "/m/pet", "yes"],
        ["/m/dog", "/m/toy", "/m/pet", "no"],
    ]
    printed = capsys.readouterr().out
    assert "2 edges dropped; 1 of them lose nothing" in printed
    assert "/m/entity, was left out" in printed
    assert "2 classes without a description" in printed


def test_a_described_outermost_class_stays(files):
    with (files / "descriptions.csv").open("a") as file:
        file.write("/m/entity,Entity\n")
    classes, _ = _import(files, "--train", "people.csv")
    assert classes.ids[classes.roots[0]] == "/m/entity"
    assert classes.depth[classes.index("/m/dog")] == 3


def test_splits_share_their_classes_and_files_may_lie_in_folders(files):
    (files / "val.csv").write_text(f"{HEADER}{TWO},verification,/m/other,1\n\n")
    (files / "descriptions.csv").write_text(DESCRIPTIONS.split("\n", 1)[1])  # no header
    classes, rows = _import(
        files, "--train", "people.csv", "--val", "val.csv", "--name", "{split}/{id}.png", tree=False
    )
    assert rows["val"] == {f"val/{TWO}.png": {"/m/other": 1}}
    assert f"train/{ONE}.png" in rows["train"]
    assert classes.ids == tuple(
        f"/m/{name}" for name in ("animal", "dog", "pet", "paw", "sky", "new", "other")
    )
    assert len(classes.roots) == len(classes)


def test_many_rows_in_any_order_equal_a_plain_loop(files):
    """Tables of several blocks, in which the rows of an image are scattered."""
    rng = random.Random(0)
    ids = [f"{rng.getrandbits(64):016x}" for _ in range(3_000)]
    classes = [f"/m/{i:x}" for i in range(50)]
    lines, expected = [], {}
    for _ in range(120_000):
        source = rng.choice(["verification", "crowdsource-verification", "machine"])
        value = rng.choice(["0.0", "0.3", "0.55", "1.0"] if source == "machine" else ["0", "1"])
        image, class_ = rng.choice(ids), rng.choice(classes)
        lines.append(f"{image},{source},{class_},{value}\n")
        key = expected.setdefault(f"{image}.jpg", {})
        verdict = (source != "machine", float(value))
        key[class_] = max(key.get(class_, verdict), verdict)
    (files / "people.csv").write_text(HEADER + "".join(lines))
    _, rows = _import(files, "--train", "people.csv", "--machine", "keep")
    assert rows["train"] == {
        name: {class_: confidence for class_, (_, confidence) in labels.items()}
        for name, labels in expected.items()
    }
    assert list(rows["train"]) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0001eeaf4aed83f,verification,/m/dog,1", "row 8: '0001eeaf4aed83f' is not an image id"),
        ("0001EEAF4aed83f9,verification,/m/dog,1", "row 8: '0001EEAF4aed83f9' is not an image id"),
        (f"{ONE},,/m/dog,1", "row 8: '' is not a source"),
        (f"{ONE},verification,dog,1", "row 8: 'dog' is not a class id"),
        (f"{ONE},verification,/m/dog,1.5", "row 8: '1.5' is not a confidence between 0 and 1"),
        (f"{ONE},verification,/m/dog,-1", "row 8: '-1' is not a confidence"),
        (f"{ONE},verification,/m/dog,nan", "row 8: 'nan' is not a confidence"),
        (f"{ONE},verification,/m/dog,", "row 8: '' is not a confidence"),
        (f"{ONE},verification,/m/dog,high", "row 8: 'high' is not a confidence"),
        (f"{ONE},verification,/m/dog", "Row #8: Expected 4 columns, got 3"),
        (f"{ONE},verification,/m/d\udcffg,1", "invalid UTF8"),
        (f"{ONE},verif\0ication,/m/dog,1", "row 8: 'verif\\x00ication' is not a source"),
    ],
)
def test_bad_rows_are_named(files, line, message):
    text = f"{HEADER}{PEOPLE}{line}\n{PEOPLE}"
    (files / "people.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(PrepareError) as error:
        _import(files, "--train", "people.csv")
    assert str(error.value).startswith(f"{files / 'people.csv'}: ")
    assert message in str(error.value)
    assert not (files / "out").exists()


def test_rows_are_numbered_through_all_blocks(files):
    good = f"{ONE},verification,/m/dog,1\n"
    count = 300_000  # more than two blocks
    (files / "people.csv").write_text(HEADER + good * count + good.replace(",1", ",2"))
    with pytest.raises(PrepareError, match=rf"row {count + 2:,}: '2' is not a confidence"):
        _import(files, "--train", "people.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("people.csv", "", "Empty CSV file"),
        ("people.csv", "ImageID,Source,LabelName\n", "'Confidence' in include_columns does not"),
        ("descriptions.csv", "LabelName,DisplayName\n", "no classes"),
        ("descriptions.csv", "/m/a,A\n/m/b\n", "descriptions.csv:2: '/m/b' is not a class id"),
        ("descriptions.csv", "/m/a,A\n/m/a,B\n", "csv:2: /m/a already has the name 'A'"),
        ("descriptions.csv", '/m/a,"A\n', "descriptions.csv:1: unexpected end of data"),
        ("tree.json", "{", "not the hierarchy as JSON"),
        ("tree.json", "[]", 'the outermost node has no "LabelName"'),
        ("tree.json", '{"LabelName": "/m/a", "Subcategory": [{"LabelName": "/m/b"}, {}]}',
         'Subcategory[1] has no "LabelName"'),
        ("tree.json", '{"LabelName": "/m/a", "Part": [{"LabelName": "/m/b", "Subcategory": [3]}]}',
         'Part[0].Subcategory[0] has no "LabelName"'),
        ("tree.json", '{"LabelName": "/m/x", "Subcategory": [{"LabelName": "/m/a", "Subcategory": '
         '[{"LabelName": "/m/b", "Subcategory": [{"LabelName": "/m/a"}]}]}]}',
         "classes are their own descendants: /m/"),
    ],
)  # fmt: skip
def test_bad_files_are_named(files, name, content, message):
    (files / name).write_text(content)
    with pytest.raises(PrepareError) as error:
        _import(files, "--train", "people.csv")
    assert str(files / name) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings_and_gzip_are_seen_from_the_bytes(files, encoding, packed):
    """Spreadsheets save UTF-16; a decompressed or renamed file may still be called .gz."""
    words = ("--val", "machine.csv.gz", "people.csv", "--machine", "keep")
    classes, rows = _import(files, *words)
    shutil.rmtree(files / "out")
    for name in ("descriptions.csv", "tree.json", "people.csv", "machine.csv.gz"):
        data = (files / name).read_bytes()
        text = (gzip.decompress(data) if name.endswith("gz") else data).decode()
        data = text.encode(encoding)
        (files / name).write_bytes(gzip.compress(data) if packed else data)
    again, rows_again = _import(files, *words)
    assert (again.ids, again.names, rows_again) == (classes.ids, classes.names, rows)


@pytest.mark.parametrize("name", ["x.jpg", "{id} .jpg\t", "{id}{width}.jpg", "{id", "{}{id}"])
def test_impossible_file_names_are_refused_before_anything_is_read(files, name):
    with pytest.raises(PrepareError, match="is not a file name"):
        _import(files, "--train", "missing.csv", "--name", name)


def test_a_damaged_compressed_table_is_named(files):
    data = (files / "machine.csv.gz").read_bytes()
    (files / "machine.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(PrepareError, match=r"machine\.csv\.gz:"):
        _import(files, "--train", "machine.csv.gz", "--machine", "keep")


def test_without_tables_it_says_which_options_there_are(files):
    with pytest.raises(PrepareError, match="--train, --val or --test"):
        _import(files)


@given(
    st.integers(2, 9).flatmap(
        lambda n: st.lists(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] < e[1]),
            max_size=25,
        )
    )
)
def test_the_forest_keeps_every_longest_way(pairs):
    """Against all ways through a small graph, listed one by one."""
    edges = [(f"/m/{parent}", f"/m/{child}") for parent, child in pairs]
    kept, dropped = to_forest(edges)

    def ways_up(class_: str) -> list[list[str]]:
        above = [way for parent, child in edges if child == class_ for way in ways_up(parent)]
        return [[class_, *way] for way in above] or [[class_]]

    def kept_way(class_: str) -> list[str]:
        return [class_, *(kept_way(kept[class_]) if class_ in kept else [])]

    for class_ in {class_ for edge in edges for class_ in edge}:
        ways, way = ways_up(class_), kept_way(class_)
        assert way in ways
        assert len(way) == max(map(len, ways))
        ancestors = {ancestor for each in ways for ancestor in each}
        if any(set(each) == ancestors for each in ways):  # they lie on one way: none is lost
            assert set(way) == ancestors
    assert {(edge.parent, edge.child) for edge in dropped} == set(edges) - {
        (parent, child) for child, parent in kept.items()
    }
    for edge in dropped:
        assert edge.kept == kept[edge.child]
        assert edge.implied == (edge.parent in kept_way(edge.child))


def test_a_class_is_the_same_wherever_it_occurs(tmp_path):
    (tmp_path / "tree.json").write_text(json.dumps(TREE))
    tree = read_tree(tmp_path / "tree.json")
    assert tree.classes == tuple(
        f"/m/{name}" for name in ("entity", "animal", "pet", "dog", "paw", "toy")
    )
    assert len(tree.edges) == 6
    assert tree.parts == 1


def test_of_equally_long_ways_the_first_stays():
    edges = [("/m/a", "/m/c"), ("/m/b", "/m/c")]
    assert to_forest(edges)[0] == {"/m/c": "/m/a"}
    assert to_forest(edges[::-1])[0] == {"/m/c": "/m/b"}


def test_every_float32_confidence_survives(files):
    values = np.float32([1e-7, 0.1, 1 / 3, 0.99999994])
    rows = "".join(
        f"{i:016x},machine,/m/dog,{value!r}\n" for i, value in enumerate(values.tolist())
    )
    (files / "people.csv").write_text(HEADER + rows)
    _import(files, "--train", "people.csv", "--machine", "keep")
    written = read_label_list(files / "out" / "train_image_list.txt", num_classes=9)
    np.testing.assert_array_equal(written.confidences, values)
