# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.features.duplicates.groups import Groups


def join(groups, *pairs):
    first, second = np.array(pairs).T
    groups.join(first, second)


def as_lists(groups):
    return [group.tolist() for group in groups.members()]


def test_worked_by_hand():
    groups = Groups(9)
    assert as_lists(groups) == []
    join(groups, (7, 2), (3, 4))
    assert as_lists(groups) == [[2, 7], [3, 4]]
    join(groups, (8, 6), (6, 3), (7, 7))
    assert as_lists(groups) == [[3, 4, 6, 8], [2, 7]]
    assert groups.roots(np.array([8, 4, 2, 7, 0])).tolist() == [3, 3, 2, 2, 0]
    join(groups, (8, 7))
    assert as_lists(groups) == [[2, 3, 4, 6, 7, 8]]
    groups.join(np.empty(0, int), np.empty(0, int))
    assert as_lists(groups) == [[2, 3, 4, 6, 7, 8]]


def test_a_long_chain_is_one_group():
    groups = Groups(1500)
    for i in range(1498, -1, -1):
        join(groups, (i, i + 1))
    assert as_lists(groups) == [list(range(1500))]


@pytest.mark.parametrize("seed", range(20))
def test_equals_a_search_of_the_graph(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    pairs = rng.integers(0, count, (int(rng.integers(1, 40)), 2))
    groups = Groups(count)
    for part in np.array_split(pairs, 3):
        groups.join(part[:, 0], part[:, 1])
    neighbours = {i: {i} for i in range(count)}
    for i, j in pairs.tolist():
        neighbours[i].add(j)
        neighbours[j].add(i)
    expected, seen = [], set()
    for i in range(count):
        reached, waiting = set(), [i]
        while waiting:
            place = waiting.pop()
            if place not in reached:
                reached.add(place)
                waiting += neighbours[place]
        if len(reached) > 1 and i not in seen:
            expected.append(sorted(reached))
        seen |= reached
    assert as_lists(groups) == sorted(expected, key=lambda group: (-len(group), group[0]))
