# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
from hypothesis import given

from mlimages_jax.labels import label_keys
from mlimages_jax.labels.lists import LabelList, read_label_list
from mlimages_jax.labels.merging import merge_rows
from mlimages_jax.labels.rows import join_lists
from tests.support import drawn_lists
from tests.support.drawn_lists import STEADY, as_rows, label_lists


def merged(label_list: LabelList) -> LabelList:
    return join_lists(list(merge_rows(label_list)))


def test_rows_worked_by_hand():
    rows = LabelList.from_rows(
        [
            ("b", [5, 1], [0.5, -1]),
            ("a", [2], [1]),
            ("b", [1, 3], [0, -1]),
            ("ab", [], []),
            ("b", [3, 5], [0.25, 0.75]),
            ("a", [], []),
        ],
        num_classes=6,
    )
    assert as_rows(merged(rows)) == [("b", {1: 0, 3: 0.25, 5: 0.75}), ("a", {2: 1}), ("ab", {})]


@STEADY
@given(label_lists(6, max_rows=12))
def test_equals_a_dictionary_of_rows(rows):
    expected: dict[str, dict[int, float]] = {}
    for name, labels in as_rows(rows):
        row = expected.setdefault(name, {})
        for class_, confidence in labels.items():
            row[class_] = max(row.get(class_, -1), confidence)
    result = merged(rows)
    drawn_lists.assert_well_formed(result)
    assert as_rows(result) == list(expected.items())  # the order of first appearance


def test_an_image_in_rows_far_apart():
    count = label_keys.MAX_ROWS + 5
    rows = [(f"{i}", [i % 9], [0.5]) for i in range(count)]
    rows += [("7", [1], [1]), (str(count - 1), [2], [1])]
    parts = list(merge_rows(LabelList.from_rows(rows, num_classes=9)))
    assert [len(part) for part in parts] == [label_keys.MAX_ROWS, 5]
    result = join_lists(parts)
    drawn_lists.assert_well_formed(result)
    assert len(result) == count
    assert as_rows(result)[7] == ("7", {7: 0.5, 1: 1})
    assert as_rows(result)[-1] == (str(count - 1), {(count - 1) % 9: 0.5, 2: 1})
    np.testing.assert_array_equal(
        np.diff(result.offsets) == 2, np.isin(range(count), (7, count - 1))
    )


def test_the_stamps_list_repeats_images(stamps_dir):
    rows = read_label_list(stamps_dir / "train_image_list.txt", num_classes=109)
    names = [row.name for row in rows]
    assert [row.name for row in merged(rows)] == list(dict.fromkeys(names))
