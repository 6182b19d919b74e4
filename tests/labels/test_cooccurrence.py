# SPDX-License-Identifier: BSD-3-Clause
import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.labels import cooccurrence
from mlimages_jax.labels.cooccurrence import (
    CoOccurrences,
    Pairs,
    add_pairs,
    on_common_path,
    single_classes,
)
from mlimages_jax.labels.lists import LabelList
from tests.support import drawn_lists
from tests.support.drawn_lists import STEADY, as_rows, hierarchies, label_lists, make_hierarchy

# 0 animal -> 1 dog -> 2 hound; 3 plant -> 4 grass; 5 sky
SIX = make_hierarchy([-1, 0, 1, -1, 3, -1])


def count(num_classes: int, batches: list[list[tuple[int, set[int]]]]) -> Pairs:
    """Batches of images, each a class and the classes that were predicted."""
    counter = CoOccurrences(num_classes)
    for batch in batches:
        predicted = [(i, j) for i, (_, found) in enumerate(batch) for j in sorted(found)]
        images, classes = np.array(predicted, np.int64).reshape(-1, 2).T
        counter.add(np.array([label for label, _ in batch], np.int64), images, classes)
    return counter.pairs()


def as_tuples(pairs: Pairs) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in pairs), strict=True))


def test_counts_worked_by_hand():
    batches = [
        [(2, {1, 2, 4}), (2, {4}), (4, set()), (5, {5})],
        [],
        [(2, {2}), (4, {5}), (2, {5, 4})],
    ]
    pairs = count(6, batches)
    assert as_tuples(pairs) == [
        (2, 1, 4, 1), (2, 2, 4, 2), (2, 4, 4, 3), (2, 5, 4, 1), (4, 5, 2, 1), (5, 5, 1, 1),
    ]  # fmt: skip
    assert pairs.fraction.tolist() == [0.25, 0.5, 0.75, 0.25, 0.5, 1]
    assert as_tuples(pairs.where(pairs.fraction > 0.5)) == [(2, 4, 4, 3), (5, 5, 1, 1)]


def test_nothing_gives_no_pairs():
    assert as_tuples(count(6, [])) == as_tuples(count(6, [[], [(3, set())]])) == []


IMAGES = st.tuples(st.integers(0, 5), st.sets(st.integers(0, 5)))


@STEADY
@given(st.lists(st.lists(IMAGES, max_size=6), max_size=8), st.integers(0, 6))
def test_counts_equal_a_plain_loop_however_often_they_are_merged(batches, least_merged):
    images = collections.Counter(label for batch in batches for label, _ in batch)
    both = collections.Counter(
        (label, j) for batch in batches for label, found in batch for j in found
    )
    expected = [(i, j, images[i], both[i, j]) for i, j in sorted(both)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooccurrence, "_LEAST_MERGED", least_merged)
        assert as_tuples(count(6, batches)) == expected


def test_common_paths_worked_by_hand():
    along = {(0, 1), (0, 2), (1, 2), (3, 4)}
    for i, j in itertools.product(range(6), repeat=2):
        expected = i == j or (i, j) in along or (j, i) in along
        assert on_common_path(SIX, np.array([i]), np.array([j])).tolist() == [expected]


@STEADY
@given(hierarchies())
def test_common_paths_equal_a_loop(hierarchy):
    pairs = np.array(list(itertools.product(range(len(hierarchy)), repeat=2)))
    expected = [
        i == j or i in hierarchy.ancestors(j) or j in hierarchy.ancestors(i) for i, j in pairs
    ]
    assert on_common_path(hierarchy, *pairs.T).tolist() == expected


def test_single_classes_worked_by_hand():
    rows = [
        ([2], [1], 2),
        ([0, 2, 1], [1, 1, 1], 2),  # closed
        ([1, 0, 2], [1, 0.5, 0], 1),  # known to be no hound
        ([2, 1, 4], [1, 1, -1], 2),  # nobody knows about grass
        ([2, 4], [1, 1], -1),
        ([0, 4, 3], [0.1, 1, 1], -1),
        ([5, 3], [0, -1], -1),
        ([], [], -1),
    ]
    label_list = LabelList.from_rows([("a", *row[:2]) for row in rows], num_classes=6)
    assert single_classes(label_list, SIX).tolist() == [expected for *_, expected in rows]


@STEADY
@given(st.data())
def test_single_classes_equal_a_loop(data):
    hierarchy = data.draw(hierarchies())
    rows = data.draw(label_lists(len(hierarchy)))
    expected = []
    for _, labels in as_rows(rows):
        positive = {class_ for class_, confidence in labels.items() if confidence > 0}
        lowest = [c for c in positive if positive <= {c, *hierarchy.ancestors(c).tolist()}]
        expected.append(lowest[0] if lowest else -1)
    assert single_classes(rows, hierarchy).tolist() == expected


def make_pairs(*pairs: tuple[int, int]) -> Pairs:
    ones = np.ones(len(pairs), np.int64)
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return Pairs(first, second, ones, ones)


def test_additions_worked_by_hand():
    rows = LabelList.from_rows(
        [
            ("a", [2], [0.5]),
            ("b", [4, 2], [0.25, 1]),  # has 4 already, weaker
            ("c", [5, 2], [1, 0.75]),  # 5 gives 4 too, more surely; has 5
            ("d", [2, 4], [0, 1]),  # known to be no hound
            ("e", [2], [-1]),
            ("f", [4], [1]),
            ("g", [5, 4], [1, -1]),  # -1 gives way
        ],
        num_classes=6,
    )
    pairs = make_pairs((2, 4), (2, 5), (5, 4))
    more, new_labels = add_pairs(rows, pairs, confidence_factors=np.ones(3))
    assert as_rows(more) == [
        ("a", {2: 0.5, 4: 0.5, 5: 0.5}),
        ("b", {2: 1, 4: 1, 5: 1}),
        ("c", {2: 0.75, 4: 1, 5: 1}),
        ("d", {2: 0, 4: 1}),
        ("e", {2: -1}),
        ("f", {4: 1}),
        ("g", {4: 1, 5: 1}),
    ]
    assert new_labels.tolist() == [2, 2, 1]  # (2, 4): a, c; (2, 5): a, b; (5, 4): c
    halved, _ = add_pairs(rows, pairs, confidence_factors=np.array([0.5, 1, 0.25]))
    assert as_rows(halved)[:3] == [
        ("a", {2: 0.5, 4: 0.25, 5: 0.5}),
        ("b", {2: 1, 4: 0.5, 5: 1}),
        ("c", {2: 0.75, 4: 0.375, 5: 1}),
    ]


PAIRS = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))).map(sorted)


@STEADY
@given(label_lists(6), PAIRS, st.data())
def test_additions_equal_a_plain_loop(rows, pairs, data):
    factors = data.draw(st.lists(st.floats(0.1, 1), min_size=len(pairs), max_size=len(pairs)))
    expected, new = as_rows(rows), [0] * len(pairs)
    for (_, labels), (_, old) in zip(expected, as_rows(rows), strict=True):
        for number, (i, j) in enumerate(pairs):
            if old.get(i, 0) > 0:
                labels[j] = max(labels.get(j, -1), float(np.float32(old[i] * factors[number])))
                new[number] += j not in old
    more, new_labels = add_pairs(rows, make_pairs(*pairs), confidence_factors=np.array(factors))
    drawn_lists.assert_well_formed(more)
    assert as_rows(more) == expected
    assert new_labels.tolist() == new
