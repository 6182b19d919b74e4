# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels.label_keys import (
    MAX_CLASSES,
    MAX_ROWS,
    class_keys,
    row_keys,
    unite_labels,
    without_confidences,
)
from tests.support.drawn_lists import CONFIDENCES, STEADY

ROWS = st.sampled_from([0, 1, 2, MAX_ROWS - 1])
CLASSES = st.sampled_from([0, 1, 7, 11_165, MAX_CLASSES - 1])


def keys_of(labels: list[tuple[int, int, float]]) -> np.ndarray:
    rows, classes, confidences = np.array(labels).reshape(-1, 3).T
    keys = row_keys(rows.astype(np.int64), confidences.astype(np.float32))
    return keys + class_keys(classes.astype(np.int32))


@STEADY
@given(st.lists(st.tuples(ROWS, CLASSES, CONFIDENCES), max_size=20))
def test_a_union_is_what_a_dictionary_of_maxima_gives(labels):
    expected: dict[tuple[int, int], float] = {}
    for row, class_, confidence in labels:
        expected[row, class_] = max(expected.get((row, class_), -1), float(np.float32(confidence)))
    united = unite_labels(keys_of(labels), num_rows=MAX_ROWS)
    rows = np.repeat(np.arange(MAX_ROWS), united.counts).tolist()
    assert list(zip(rows, united.classes.tolist(), strict=True)) == sorted(expected)
    assert united.confidences.tolist() == [expected[label] for label in sorted(expected)]
    assert [array.dtype.name for array in united] == ["int64", "int32", "float32"]


def test_keys_without_confidences_are_equal_for_equal_labels():
    first, second, other = without_confidences(keys_of([(3, 7, -1), (3, 7, 1), (3, 8, 1)]))
    assert first == second != other


def test_a_class_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="1048576"):
        class_keys(np.array([1, MAX_CLASSES]))
