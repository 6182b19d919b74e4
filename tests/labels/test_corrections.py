# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.files.text_files import TextFileError
from mlimages_jax.labels import corrections
from mlimages_jax.labels.closure import close_rows
from mlimages_jax.labels.corrections import (
    PUBLISHED,
    Correction,
    correct,
    count_changes,
    read_corrections,
)
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.labels.lists import LabelList

# food > sandwich > {hamburger, cheeseburger}; pet
FOOD = Hierarchy(
    ("food", "sandwich", "hamburger", "cheeseburger", "pet"),
    ("food", "sandwich", "hamburger", "cheeseburger", "pet"),
    np.array([-1, 0, 1, 1, -1]),
)
NEARER = Correction("cheeseburger", "hamburger", "sandwich")


def _file(tmp_path, text, mark=""):
    path = tmp_path / "corrections.tsv"
    path.write_text(f"{mark}category_id\tparent_id\tinstead_of\tnote\n{text}", encoding="utf-8")
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file(tmp_path, line_end):
    path = _file(tmp_path, "cheeseburger\thamburger\tsandwich\ta note\n\npet\tfood\t-\n", "\ufeff")
    path.write_bytes(path.read_bytes().replace(b"\n", line_end.encode()))
    assert read_corrections(path) == [NEARER, Correction("pet", "food", None)]
    assert read_corrections(_file(tmp_path, "sandwich\t-\tfood\n")) == [
        Correction("sandwich", None, "food")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n", r"tsv:2: write three ids"),
        ("a\t\tb\n", r"tsv:2: write three ids"),
        ("-\ta\tb\n", r"tsv:2: write three ids"),
        ("a\tb\tc\na\td\tc\n", r"tsv:3: 'a' already has a line"),
    ],
)
def test_lines_that_say_nothing_are_named(tmp_path, text, message):
    with pytest.raises(HierarchyError, match=message):
        read_corrections(_file(tmp_path, text))
    (tmp_path / "other.tsv").write_text("0\tn01\t-1\ta\n")
    with pytest.raises(HierarchyError, match=r"other\.tsv:1: the header must start"):
        read_corrections(tmp_path / "other.tsv")


def test_a_class_gets_its_new_parent_where_it_has_the_old_one():
    assert correct(FOOD, [NEARER]).hierarchy.parents.tolist() == [-1, 0, 1, 2, -1]
    assert correct(FOOD, [NEARER])[1:] == (1, 0)
    others = [
        Correction("cheeseburger", "hamburger", "food"),  # its parent is sandwich
        Correction("cheeseburger", "hamburger", None),
        Correction("cheeseburger", "sushi", "sandwich"),
        Correction("sushi", "food", None),
    ]
    same = correct(FOOD, others)
    assert same.hierarchy.parents.tolist() == FOOD.parents.tolist()
    assert same[1:] == (0, 4)
    root = correct(FOOD, [Correction("sandwich", None, "food"), Correction("pet", "food", None)])
    assert root.hierarchy.parents.tolist() == [-1, -1, 1, 1, 0]
    with pytest.raises(HierarchyError, match=r"with the corrections: class 0.*cycle"):
        correct(FOOD, [Correction("food", "cheeseburger", None)])


def test_changes_of_closed_rows_are_counted(monkeypatch):
    rows = [
        ("a", [3], [1]), ("b", [3, 2], [0.5, 1]), ("c", [3], [0]), ("d", [4], [1]), ("e", [], []),
        ("f", [3, 4], [0.9, 1]),
    ]  # fmt: skip
    label_list = LabelList.from_rows(rows, num_classes=5)
    after = correct(FOOD, [NEARER, Correction("sandwich", None, "food")]).hierarchy
    for block in (1, 2, 100):
        monkeypatch.setattr(corrections, "MAX_ROWS", block)
        changes = count_changes(label_list, FOOD, after)
        assert changes == (2, 3, 3)  # hamburger of a and f; food of a, b and f
    assert str(changes) == "2 labels added and 3 removed in 3 rows"
    assert count_changes(label_list, FOOD, FOOD) == (0, 0, 0)


def test_corrections_of_the_published_dictionary_only_add_labels(tencent_dir):
    before = Hierarchy.from_file(tencent_dir / "dictionary_and_semantic_hierarchy.txt")
    after = correct(before, read_corrections(PUBLISHED))
    assert after[1:] == (534, 0)
    assert str(after) == "534 classes have another parent"
    for class_ in range(len(before)):
        assert set(before.ancestors(class_)) <= set(after.hierarchy.ancestors(class_))
    every = LabelList.from_rows(
        [(str(class_), [class_], [1]) for class_ in range(len(before))], num_classes=len(before)
    )
    changes = count_changes(every, before, after.hierarchy)
    added = len(close_rows(every, after.hierarchy).classes) - len(close_rows(every, before).classes)
    assert changes == (added, 0, changes.rows)
    assert changes.rows >= 534


def test_the_file_that_comes_along():
    ours = read_corrections(PUBLISHED)
    assert read_corrections(type(PUBLISHED)("published")) == ours
    assert Correction("n01318894", "n01317541", "n00015388") in ours  # pet
    assert len({correction.category_id for correction in ours}) == len(ours) == 534


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", ":1: the header must"),
        (b"\xef\xbb\xbf", ":1: the header must"),
        (b"a\n\0", ":2: a NUL"),
    ],
)
def test_empty_and_damaged_files_are_named(tmp_path, data, message):
    path = tmp_path / "c.tsv"
    path.write_bytes(data)
    with pytest.raises((HierarchyError, TextFileError), match=rf"c\.tsv{message}"):
        read_corrections(path)
