# SPDX-License-Identifier: BSD-3-Clause
from mlimages_jax.engines.ordered import map_ordered


class Shuffled:
    """An engine whose parts end in another order."""

    threads = 1

    def map_unordered(self, function, parts):
        done = [(part, function(part)) for part in parts]
        yield from done[1::2] + done[::-2]


def test_results_come_in_the_order_of_the_parts():
    results = list(map_ordered(Shuffled(), abs, [3, -1, 4, -1, -5]))
    assert results == [(3, 3), (-1, 1), (4, 4), (-1, 1), (-5, 5)]
