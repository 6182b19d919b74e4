# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels.class_map import map_classes, replace_classes, same_classes
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from tests.support import drawn_lists
from tests.support.drawn_lists import STEADY, as_rows, label_lists


def test_the_same_id_is_the_same_class():
    old = Hierarchy(("n1", "n2", "n3"), ("dog", "cat", "dog"), np.array([-1, -1, -1]))
    new = Hierarchy(("n3", "n9", "n1"), ("hound", "cat", "dog"), np.array([-1, -1, 0]))
    table = map_classes(old, new)
    assert (table.tolist(), table.dtype) == ([2, -1, 0], np.int32)


def test_made_up_ids_are_compared_by_their_number(caplog):
    roots = np.array([-1, -1])
    words = Hierarchy(("class0", "class1"), ("tench", "goldfish"), roots)
    real = Hierarchy(("n7", "n3"), ("dog", "cat"), roots)
    for one, other in ((words, real), (real, words)):
        caplog.clear()
        assert same_classes(one, other) and "by number only: both lists have 2 " in caplog.text
        assert map_classes(one, other).tolist() == [0, 1]
    caplog.clear()
    assert same_classes(real, real) and same_classes(words, words) and not caplog.text
    assert not same_classes(real, Hierarchy(("n7", "n4"), ("dog", "cat"), roots))
    assert not same_classes(words, Hierarchy(("n7",), ("dog",), roots[:1]))
    folders = Hierarchy(("class0", "class1"), ("class0", "class1"), roots)
    assert not same_classes(folders, real)


def test_rows_worked_by_hand():
    rows = LabelList.from_rows(
        [("a", [2, 1, 0], [0.5, 1, -1]), ("b", [], []), ("c", [1, 7], [1, 1]), ("d", [0], [0.25])],
        num_classes=8,
    )
    replaced, unknown = replace_classes(rows, np.array([4, -1, 3], np.int32))
    assert as_rows(replaced) == [("a", {3: 0.5, 4: -1}), ("b", {}), ("c", {}), ("d", {4: 0.25})]
    assert replaced[0].classes.tolist() == [3, 4]  # the order of the labels stays
    assert rows.classes[unknown].tolist() == [1, 1, 7]


@STEADY
@given(label_lists(6), st.lists(st.integers(-1, 20), min_size=1, max_size=8, unique=True))
def test_equals_a_loop(rows, table):
    replaced, unknown = replace_classes(rows, np.array(table, np.int32))
    drawn_lists.assert_well_formed(replaced)
    known = [i if i < len(table) and table[i] >= 0 else None for i in range(6)]
    expected = [
        (name, {table[c]: v for c, v in labels.items() if known[c] is not None})
        for name, labels in as_rows(rows)
    ]
    assert as_rows(replaced) == expected
    assert unknown.tolist() == [i for i, c in enumerate(rows.classes) if known[c] is None]
