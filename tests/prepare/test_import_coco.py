# SPDX-License-Identifier: BSD-3-Clause
import copy
import json

import pytest
import tyro

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.coco import import_coco

OUTLINE = [[1.5, 2.5, 3.5, 4.5]]
CONTENT = {
    "info": {"year": 2017},
    "licenses": [{"id": 1, "name": "by"}],
    "images": [
        {"id": 9, "file_name": "000000000009.jpg", "height": 2, "width": 3, "license": 1},
        {"id": 2, "file_name": "two of them.jpg"},
        {"id": 5, "file_name": "000000000005.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 2, "category_id": 18, "segmentation": OUTLINE, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 1, "iscrowd": 1,
         "segmentation": {"counts": [1, 2], "size": [3, 4]}},
        {"id": 3, "image_id": 9, "category_id": 17},
        {"id": 4, "image_id": 2, "category_id": 18},
    ],
    "categories": [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 18, "name": "dog", "supercategory": "animal"},
        {"id": 17, "name": "cat", "supercategory": "animal"},
        {"id": 3, "name": "thing"},
    ],
}  # fmt: skip


def _import(folder, content=CONTENT, *options: str) -> Hierarchy:
    (folder / "train.json").write_text(json.dumps(content))
    arguments = ["--output", str(folder / "out"), "--train", str(folder / "train.json"), *options]
    tyro.cli(import_coco, args=arguments)
    return Hierarchy.from_file(folder / "out" / "dictionary.txt")


def test_categories_shown_by_hand(tmp_path):
    classes = _import(tmp_path)
    assert classes.ids == ("person", "animal", "dog", "cat", "thing")
    assert classes.parents.tolist() == [-1, -1, 1, 1, -1]
    assert (tmp_path / "out" / "train_image_list.txt").read_text() == (
        "000000000009.jpg\t3:1\n"
        "two of them.jpg\t0:1\t2:1\n"  # two dogs and a crowd
        "000000000005.jpg\t\n"  # looked at, and empty
    )
    assert (tmp_path / "out" / "unlisted.txt").read_text().split() == ["absent"]


def test_closed_over_super_categories(tmp_path):
    _import(tmp_path, CONTENT, "--closed")
    assert (tmp_path / "out" / "train_image_list.txt").read_text().splitlines() == [
        "000000000009.jpg\t1:1\t3:1",
        "two of them.jpg\t0:1\t1:1\t2:1",
        "000000000005.jpg\t",
    ]


def test_two_splits_of_one_set(tmp_path):
    val = {**CONTENT, "images": CONTENT["images"][:1], "annotations": CONTENT["annotations"][2:3]}
    val["categories"] = CONTENT["categories"][::-1]  # in another order
    (tmp_path / "val.json").write_text(json.dumps(val))
    _import(tmp_path, CONTENT, "--val", str(tmp_path / "val.json"))
    assert (tmp_path / "out" / "val_image_list.txt").read_text() == "000000000009.jpg\t3:1\n"

    val["categories"] = [{**entry, "supercategory": "object"} for entry in val["categories"]]
    (tmp_path / "val.json").write_text(json.dumps(val))
    with pytest.raises(PrepareError, match=r"val\.json: the categories differ from .*train"):
        _import(tmp_path, CONTENT, "--val", str(tmp_path / "val.json"))


def test_a_super_category_may_be_a_category_of_its_own(tmp_path):
    content = {**CONTENT, "annotations": []}
    content["categories"] = [
        {"id": 0, "name": "poodle", "supercategory": "dog"},
        {"id": 1, "name": "dog", "supercategory": "animal"},
        {"id": 2, "name": "animal", "supercategory": "none"},
    ]
    classes = _import(tmp_path, content)
    assert classes.ids == ("dog", "poodle", "animal")
    assert [classes.ids[i] for i in classes.ancestors(1)] == ["dog", "animal"]


def _without(key, place, name):
    def change(content):
        del content[key][place][name]

    return change


def _with(key, place, **values):
    def change(content):
        content[key][place].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("images", 1, "id"), 'images[1]: "id" is missing; it must be a number or text'),
        (_without("images", 1, "file_name"), 'images[1]: "file_name" is missing'),
        (_without("annotations", 2, "image_id"), 'annotations[2]: "image_id" is missing'),
        (_without("annotations", 2, "category_id"), 'annotations[2]: "category_id" is missing'),
        (_without("categories", 0, "id"), 'categories[0]: "id" is missing'),
        (_without("categories", 0, "name"), 'categories[0]: "name" is missing'),
        (_with("annotations", 0, image_id=77), '"image_id" 77 does not exist'),
        (_with("annotations", 0, category_id=77), '"category_id" 77 does not exist'),
        (_with("annotations", 0, category_id=1.5), '"category_id" is 1.5; it must be a number'),
        (_with("annotations", 0, category_id=True), '"category_id" is True; it must be a number'),
        (_with("images", 2, id=9), "images[2]: has the id 9 of another image, 000000000009.jpg"),
        (_with("images", 2, file_name="../b.jpg"), "image 5: file_name: the path '../b.jpg'"),
        (_with("categories", 2, id=1), "categories[2]: has the id 1 of another category, 'person'"),
        (_with("categories", 2, name=" "), "categories[2]: the name is empty"),
        (_with("categories", 2, supercategory=3), 'categories[2]: "supercategory" is 3'),
        (_with("categories", 3, name="animal", supercategory="dog"), "form a cycle: "),
        (lambda content: content.pop("annotations"), 'no list "annotations"'),
        (lambda content: content.update(images={}), 'no list "images"'),
        (lambda content: content["images"].append(3), "images[3]: is not an object"),
        (lambda content: content.update(categories=[], annotations=[]), "no categories"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    content = copy.deepcopy(CONTENT)
    change(content)
    with pytest.raises(PrepareError) as error:
        _import(tmp_path, content, "--max-skipped", "0")
    assert str(tmp_path / "train.json") in str(error.value)
    assert message in str(error.value)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '{"images": "' + "x" * 9, "[" * 100_000])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "val.json").write_text(text)
    with pytest.raises(PrepareError, match=r"val\.json: (not (JSON|an object)|the file is empty)"):
        _import(tmp_path, CONTENT, "--val", str(tmp_path / "val.json"))


def test_without_files_it_says_which_options_there_are(tmp_path):
    with pytest.raises(PrepareError, match="--train, --val or --test"):
        import_coco(output=tmp_path)
