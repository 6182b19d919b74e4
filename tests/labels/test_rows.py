# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.rows import (
    iter_blocks,
    join_lists,
    label_rows,
    rename_rows,
    row_names,
    take_rows,
)
from tests.support import drawn_lists
from tests.support.drawn_lists import STEADY, as_rows, label_lists


@STEADY
@given(label_lists(6), st.integers(1, 4))
def test_blocks_joined_are_the_list(rows, num_rows):
    blocks = list(iter_blocks(rows, num_rows))
    assert [len(block) for block in blocks[:-1]] == [num_rows] * (len(blocks) - 1)
    for block in blocks:
        drawn_lists.assert_well_formed(block)
    assert [row for block in blocks for row in as_rows(block)] == as_rows(rows)
    joined = join_lists(blocks)
    assert blocks == []
    drawn_lists.assert_well_formed(joined)
    assert as_rows(joined) == as_rows(rows)


@STEADY
@given(st.data())
def test_taken_rows_are_the_rows(data):
    rows = data.draw(label_lists(6))
    numbers = st.lists(st.integers(0, len(rows) - 1), max_size=9) if len(rows) else st.just([])
    chosen = data.draw(numbers)
    result = take_rows(rows, np.array(chosen, np.int64))
    drawn_lists.assert_well_formed(result)
    assert as_rows(result) == [as_rows(rows)[i] for i in chosen]


def test_names_and_label_rows_worked_by_hand():
    rows = LabelList.from_rows(
        [("a b", [3, 1], [1, 1]), ("ä", [], []), ("c", [2], [0.5])], num_classes=4
    )
    assert row_names(rows) == [b"a b", "ä".encode(), b"c"]
    assert label_rows(rows).tolist() == [0, 0, 2]
    renamed = rename_rows(rows, [b"x", b"", b"yz"])
    assert as_rows(renamed) == [("x", {3: 1, 1: 1}), ("", {}), ("yz", {2: 0.5})]
    with pytest.raises(IndexError):
        take_rows(rows, np.array([3]))
