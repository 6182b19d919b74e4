# SPDX-License-Identifier: BSD-3-Clause
"""Items and their futures: in order, not too many at a time, errors in their place."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlimages_jax.prepare.threads import in_threads


def test_results_come_in_the_order_of_the_items():
    def slow_if_early(number: int) -> int:
        time.sleep(0.02 if number < 3 else 0)
        return number**2

    with ThreadPoolExecutor(4) as pool:
        results = [
            (item, future.result()) for item, future in in_threads(pool, slow_if_early, range(900))
        ]
    assert results == [(number, number**2) for number in range(900)]


def test_no_more_than_some_items_are_taken_ahead():
    taken = []

    def items():
        for number in range(5_000):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        ahead = [len(taken) - item for item, _ in in_threads(pool, str, items())]
    assert len(ahead) == 5_000
    assert 1 < max(ahead) < 300


def test_an_error_is_its_items_alone():
    with ThreadPoolExecutor(2) as pool:
        one, none, two = in_threads(pool, lambda number: 2 // number, [1, 0, 2])
        assert (one[1].result(), two[1].result()) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            none[1].result()
