# SPDX-License-Identifier: BSD-3-Clause
"""Rows in buckets of similar ones, so that only rows of one bucket need be compared.

The buckets are those of k-means with cosines: a row is in the buckets of the few centres whose
products with it are largest. Two rows that are nearly the same mostly share one, but need not.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlimages_jax.features.duplicates.near_pairs import (
    TILE,
    Pairs,
    Rows,
    near_pairs,
)

_ROWS_AT_ONCE = 8_192
_ROUNDS = 10
_SAMPLE = 64  # rows a centre that k-means sees


def make_centres(rows: Rows, count: int, *, seed: int = 0) -> np.ndarray:
    """Centres of k-means, float32 [count, d], of length 1.

    Args:
        rows: float32 [n, d], n at least the count; some are drawn.
        count: of centres.
        seed: of what is drawn.
    """
    random = np.random.default_rng(seed)
    drawn = random.permutation(len(rows))[: _SAMPLE * count]
    sample = np.asarray(rows[np.sort(drawn)])
    centres = sample[random.permutation(len(sample))[:count]]
    for _ in range(_ROUNDS):
        nearest = nearest_centres(sample, centres, memberships=1)[:, 0]
        order = np.argsort(nearest, kind="stable")
        used, first = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], first, axis=0)  # a centre without rows stays
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres[used] = sums / np.where(length > 0, length, 1)
    return centres


def nearest_centres(rows: Rows, centres: np.ndarray, *, memberships: int) -> np.ndarray:
    """The numbers of the centres with the largest products, int32 [n, memberships]."""
    found = np.empty((len(rows), memberships), np.int32)
    on_device = jnp.asarray(centres)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        padded = np.pad(part, ((0, _ROWS_AT_ONCE - len(part)), (0, 0)))
        best = _nearest(padded, on_device, memberships)
        found[start : start + len(part)] = best[: len(part)]
    return found


def pairs_in_buckets(
    rows: Rows,
    buckets: np.ndarray,
    *,
    least: float,
    tile: int = TILE,
    finished: Callable[[], object] | None = None,
) -> Iterator[Pairs]:
    """Pairs of rows that share a bucket and whose product reaches a value.

    Args:
        rows: float32 [n, d].
        buckets: int32 [n, m], those of every row.
        least: of the product.
        tile: rows compared at once.
        finished: is called after every bucket.

    Yields:
        Positions i < j, int64 each; a pair that shares several buckets comes several times.
    """
    order = np.argsort(buckets, axis=None, kind="stable")
    sizes = np.bincount(buckets.reshape(-1))
    for members in np.split(order // buckets.shape[1], np.cumsum(sizes)[:-1]):
        if len(members) > 1:  # ascending, as the order is stable
            gathered = np.asarray(rows[members])
            for i, j in near_pairs(gathered, least=least, tile=tile):
                yield members[i], members[j]
        if finished:
            finished()


@functools.partial(jax.jit, static_argnames="count")
def _nearest(rows: Array, centres: Array, count: int) -> Array:
    return jax.lax.top_k(rows @ centres.T, count)[1]
