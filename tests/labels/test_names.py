# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels import names
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.names import NameIndex, name_digests, row_digests
from tests.support.drawn_lists import NAMES, STEADY


@STEADY
@given(st.lists(NAMES, max_size=12), st.lists(NAMES, max_size=12))
def test_finds_the_first_row_of_a_name(listed, wanted):
    index = NameIndex(name_digests(name.encode() for name in listed))
    rows = index.find(name_digests(name.encode() for name in wanted))
    assert rows.tolist() == [listed.index(name) if name in listed else -1 for name in wanted]


def test_digests_of_rows_over_blocks(monkeypatch):
    monkeypatch.setattr(names, "_BLOCK_ROWS", 2)
    texts = ["a", "ä b", "c", "d", "a"]
    rows = LabelList.from_rows([(text, [], []) for text in texts], num_classes=1)
    digests = row_digests(rows)
    np.testing.assert_array_equal(digests, name_digests(text.encode() for text in texts))
    assert digests.itemsize == 16
    assert (digests[0] == digests[4], len(set(digests.tolist()))) == (True, 4)
