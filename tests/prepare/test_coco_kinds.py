# SPDX-License-Identifier: BSD-3-Clause
"""COCO files as other programs write them, and any others."""

import copy
import json

import pytest
import tyro
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import read_label_list
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.coco import import_coco
from tests.support import fuzzing

PLAIN = {
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7},
        {"id": 2, "image_id": 1, "category_id": 8},
    ],
    "categories": [
        {"id": 7, "name": "dog", "supercategory": "animal"},
        {"id": 8, "name": "cat", "supercategory": "animal"},
    ],
}
MEANT = {"1.jpg": {"dog", "cat"}, "2.jpg": set()}


def _rows(out, split: str = "train") -> dict[str, set[str]]:
    ids = Hierarchy.from_file(out / "dictionary.txt").ids
    rows = read_label_list(out / f"{split}_image_list.txt", num_classes=len(ids))
    return {row.name: {ids[class_] for class_ in row.classes} for row in rows}


def _import(folder, content, *options: str) -> dict[str, set[str]]:
    folder.mkdir(exist_ok=True)
    (folder / "c.json").write_text(json.dumps(content))
    arguments = ["--output", str(folder / "out"), "--train", str(folder / "c.json"), *options]
    tyro.cli(import_coco, args=arguments)
    return _rows(folder / "out")


def _ids_as_texts(content):
    for image in content["images"]:
        image["id"] = str(image["id"])
    for annotation in content["annotations"]:
        annotation["category_id"] = float(annotation["category_id"])


def _same_name_twice(content):
    content["categories"].append({"id": 9, "name": "dog", "supercategory": "none"})
    content["annotations"][0]["category_id"] = 9


def _same_category_twice(content):
    content["categories"] *= 2


def _an_image_twice(content):
    content["images"].append({"id": 3, "file_name": "1.jpg"})
    content["annotations"][0]["image_id"] = 3


def _lvis(content):
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"


def _panoptic(content):
    content["annotations"] = [
        {"image_id": 1, "file_name": "1.png",
         "segments_info": [{"id": 5, "category_id": 7}, {"id": 6, "category_id": 8}]},
    ]  # fmt: skip


def _segmentation_only(content):
    for annotation in content["annotations"]:
        annotation["segmentation"] = {"size": [3, 4], "counts": "a"}
        annotation["iscrowd"] = 1
        del annotation["id"]


def _nulls(content):
    content["licenses"] = content["info"] = None
    content["images"][0] |= {"license": None, "coco_url": None, "date_captured": None}


KINDS = [
    _ids_as_texts, _same_name_twice, _same_category_twice, _an_image_twice, _panoptic,
    _segmentation_only, _nulls,
]  # fmt: skip


@pytest.mark.parametrize("change", KINDS)
def test_all_of_these_mean_the_same(tmp_path, change):
    content = copy.deepcopy(PLAIN)
    change(content)
    assert _import(tmp_path, content) == MEANT
    hierarchy = Hierarchy.from_file(tmp_path / "out" / "dictionary.txt")
    assert hierarchy.ids == ("animal", "dog", "cat")
    assert hierarchy.parents.tolist() == [-1, 0, 0]


def test_lvis_has_addresses_in_the_place_of_names(tmp_path):
    content = copy.deepcopy(PLAIN)
    _lvis(content)
    assert _import(tmp_path, content) == {f"train2017/{name}": MEANT[name] for name in MEANT}
    content["images"][0]["coco_url"] = "http://[broken"
    content["images"][0]["flickr_url"] = "http://farm1.staticflickr.com/9/7_z.jpg"
    assert "7_z.jpg" in _import(tmp_path / "b", content)


def test_prefixes_of_the_splits_are_found(tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        (tmp_path / f"{split}2017" / "1.jpg").write_bytes(b"-")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path = tmp_path / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(PLAIN))
    files = {
        split: tmp_path / "annotations" / f"instances_{split}2017.json"
        for split in ("train", "val")
    }
    import_coco(output=tmp_path / "out", **files)
    assert _rows(tmp_path / "out") == {f"train2017/{name}": MEANT[name] for name in MEANT}
    assert _rows(tmp_path / "out", "val") == {f"val2017/{name}": MEANT[name] for name in MEANT}
    assert (tmp_path / "out" / "images" / "val2017" / "1.jpg").is_file()
    assert "images leads to the images" in capsys.readouterr().out


def test_names_by_a_template(tmp_path):
    rows = _import(tmp_path, PLAIN, "--name", "{split}2017/{file_name}")
    assert rows == {f"train2017/{name}": MEANT[name] for name in MEANT}
    assert "000/1.png" in _import(tmp_path, PLAIN, "--name", "000/{id}.png")
    for template in ("same.jpg", "{nothing}", "{id.x}", "{"):
        with pytest.raises(PrepareError, match="is not a file name"):
            _import(tmp_path, PLAIN, "--name", template)


def test_odd_entries_are_set_aside(tmp_path, capsys):
    content = copy.deepcopy(PLAIN)
    content["annotations"] += [
        {"image_id": 77, "category_id": 7}, {"image_id": 1}, 3,
        {"image_id": 2, "category_id": None}, {"image_id": 2, "category_id": 99},
    ]  # fmt: skip
    assert _import(tmp_path, content) == MEANT
    lines = (tmp_path / "out" / "set_aside.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines[1:]] == [f"annotations[{i}]" for i in range(2, 7)]
    assert "5 of 11 rows set aside" in capsys.readouterr().out
    content["images"].append({})
    with pytest.raises(PrepareError, match="6 of 12 rows unusable"):
        _import(tmp_path, content)


def test_an_id_of_two_categories_means_neither(tmp_path):
    content = copy.deepcopy(PLAIN)
    content["categories"].append({"id": 7, "name": "cow"})
    rows = _import(tmp_path, content)
    assert rows == {"1.jpg": {"cat"}, "2.jpg": set()}
    text = (tmp_path / "out" / "set_aside.tsv").read_text()
    assert "has the id 7 of another category, 'dog'" in text and "belongs to two categories" in text


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text(max_size=3)
    | st.sampled_from(["1.jpg", "../1.jpg", "/1.jpg", "dog", "7", "http://a/b.jpg", "http://["]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(["id", "name", "category_id"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
_changes = st.lists(
    st.tuples(
        st.sampled_from(["images", "annotations", "categories"]),
        st.integers(0, 1),
        st.sampled_from(["id", "file_name", "image_id", "category_id", "name", "supercategory",
                         "coco_url", "segments_info", None]),
        _values,
    ),
    max_size=4,
)  # fmt: skip


def _assert_nothing_else_than_an_error_that_names_it(folder, changes):
    content = copy.deepcopy(PLAIN)
    for key, place, field, value in changes:
        if field is None:
            content[key][place] = value
        elif isinstance(content[key][place], dict):
            content[key][place][field] = value
    (folder / "c.json").write_text(json.dumps(content))
    try:
        import_coco(output=folder / "out", train=folder / "c.json")
    except PrepareError as error:
        assert str(folder / "c.json") in str(error)
        return
    assert _rows(folder / "out")


@pytest.mark.slow
@given(_changes)
def test_no_file_crashes(tmp_path_factory, changes):
    _assert_nothing_else_than_an_error_that_names_it(tmp_path_factory.mktemp("c"), changes)


@pytest.mark.slow
@pytest.mark.parametrize("part", fuzzing.PARTS)
def test_ten_thousand_files(tmp_path, part):
    @seed(part)
    @given(_changes)
    @settings(max_examples=1_000, deadline=None, database=None)
    def every(changes):
        _assert_nothing_else_than_an_error_that_names_it(tmp_path, changes)

    every()


def test_numbers_are_names(tmp_path):
    content = copy.deepcopy(PLAIN)
    for number, category in enumerate(content["categories"], start=3):
        category["name"] = number
    assert _import(tmp_path, content) == {"1.jpg": {"3", "4"}, "2.jpg": set()}


def test_why_nothing_is_left_is_told(tmp_path):
    content = copy.deepcopy(PLAIN) | {"categories": [{"id": 7, "name": ["dog"]}]}
    message = r"no categories \(.*c\.json: categories\[0\]: \"name\" is \['dog'\]; it must be text"
    with pytest.raises(PrepareError, match=message):
        _import(tmp_path, content)
