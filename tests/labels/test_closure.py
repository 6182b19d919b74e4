# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels import label_keys
from mlimages_jax.labels.closure import close_rows
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, read_label_list
from tests.support import drawn_lists
from tests.support.drawn_lists import STEADY, as_rows, hierarchies, label_lists, make_hierarchy

# animal(3) -> dog(1) -> {puppy(0), hound(4)}; plant(2)
SMALL = make_hierarchy([1, 3, -1, -1, 1])


def test_rows_worked_by_hand():
    rows = [
        ("b.jpg", [4, 0], [0.5, 0.75]),  # the larger of two children
        ("none.jpg", [], []),
        ("a b.jpg", [3, 1, 4], [1, -1, 0.5]),  # known beats unknown, 1 stays
        ("no.jpg", [4, 0, 2], [0, -1, 1]),  # absent and unknown stay where they are
    ]
    closed = close_rows(LabelList.from_rows(rows, num_classes=5), SMALL)
    assert as_rows(closed) == [
        ("b.jpg", {0: 0.75, 1: 0.75, 3: 0.75, 4: 0.5}),
        ("none.jpg", {}),
        ("a b.jpg", {1: 0.5, 3: 1, 4: 0.5}),
        ("no.jpg", {0: -1, 2: 1, 4: 0}),
    ]
    assert closed.classes.tolist() == [0, 1, 3, 4, 1, 3, 4, 0, 2, 4]  # ascending in each row
    drawn_lists.assert_well_formed(closed)


@STEADY
@given(st.data())
def test_equals_closing_row_by_row(data):
    hierarchy = data.draw(hierarchies())
    rows = data.draw(label_lists(len(hierarchy)))
    closed = close_rows(rows, hierarchy)
    drawn_lists.assert_well_formed(closed)
    assert len(closed) == len(rows)
    for row, expected in zip(closed, rows, strict=True):
        classes, confidences = hierarchy.close(expected.classes, expected.confidences)
        assert row.name == expected.name
        np.testing.assert_array_equal(row.classes, classes)
        np.testing.assert_array_equal(row.confidences, confidences)


def test_more_rows_than_one_block_holds():
    count = 2 * label_keys.MAX_ROWS + 3
    rows = [(f"{i}", [i % 5], [(i % 7) / 7]) for i in range(count)]
    closed = close_rows(LabelList.from_rows(rows, num_classes=5), SMALL)
    drawn_lists.assert_well_formed(closed)
    for i in (0, 1, label_keys.MAX_ROWS - 1, label_keys.MAX_ROWS, count - 1):
        classes, confidences = SMALL.close(np.array(rows[i][1]), np.array(rows[i][2]))
        assert (closed[i].name, closed[i].classes.tolist()) == (str(i), classes.tolist())
        np.testing.assert_array_equal(closed[i].confidences, confidences)


def test_a_class_that_does_not_exist_is_refused():
    with pytest.raises(IndexError):
        close_rows(LabelList.from_rows([("a", [5], [1])], num_classes=6), SMALL)


def test_65_of_the_100_published_rows_are_not_closed(tencent_dir):
    hierarchy = Hierarchy.from_file(tencent_dir / "dictionary_and_semantic_hierarchy.txt")
    rows = read_label_list(tencent_dir / "train_im_list_tiny.txt", num_classes=len(hierarchy))
    closed = close_rows(rows, hierarchy)
    assert np.count_nonzero(np.diff(closed.offsets) - np.diff(rows.offsets)) == 65
    for row, expected in zip(closed, rows, strict=True):
        one_by_one = hierarchy.close(expected.classes, expected.confidences)
        np.testing.assert_array_equal((row.classes, row.confidences), one_by_one)
    assert as_rows(close_rows(closed, hierarchy)) == as_rows(closed)
