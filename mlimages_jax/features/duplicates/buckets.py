# SPDX-License-Identifier: BSD-3-Clause
"""Buckets of similar rows, so that only rows in a common bucket need to be compared.

The buckets come from spherical k-means: a row is in the buckets of the few centres with the largest
dot products. Two nearly identical rows usually share a bucket, but this is not guaranteed.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlimages_jax.features.duplicates.near_pairs import (
    TILE,
    FeatureRows,
    Pairs,
    near_pairs,
)

_ROWS_AT_ONCE = 8_192
_ROUNDS = 10
_SAMPLE = 64  # rows per centre that k-means uses


def make_centres(rows: FeatureRows, count: int, *, seed: int = 0) -> np.ndarray:
    """Returns centres from spherical k-means, float32 [count, d], of length 1.

    Args:
        rows: float32 [n, d], with n >= count; a random sample is used.
        count: Number of centres.
        seed: Seed of the sample and the initial centres.
    """
    random = np.random.default_rng(seed)
    drawn = random.permutation(len(rows))[: _SAMPLE * count]
    sample = np.asarray(rows[np.sort(drawn)])  # in file order: `rows` is memory-mapped
    centres = sample[random.permutation(len(sample))[:count]]
    for _ in range(_ROUNDS):
        nearest = nearest_centres(sample, centres, memberships=1)[:, 0]
        order = np.argsort(nearest, kind="stable")
        used, first = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], first, axis=0)  # a centre without rows is kept
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres[used] = sums / np.where(length > 0, length, 1)
    return centres


def nearest_centres(rows: FeatureRows, centres: np.ndarray, *, memberships: int) -> np.ndarray:
    """Returns the indices of the centres with the largest products, int32 [n, memberships]."""
    found = np.empty((len(rows), memberships), np.int32)
    on_device = jnp.asarray(centres)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        # Padded to one size, so that the last block needs no other program.
        padded = np.pad(part, ((0, _ROWS_AT_ONCE - len(part)), (0, 0)))
        best = _nearest(padded, on_device, memberships)
        found[start : start + len(part)] = best[: len(part)]
    return found


def pairs_in_buckets(
    rows: FeatureRows,
    buckets: np.ndarray,
    *,
    least: float,
    tile: int = TILE,
    finished: Callable[[], object] | None = None,
) -> Iterator[Pairs]:
    """Yields pairs of rows that share a bucket and whose product reaches a minimum.

    Args:
        rows: float32 [n, d].
        buckets: int32 [n, m], the buckets of every row.
        least: Minimum product.
        tile: Number of rows compared at once.
        finished: Called after every bucket.

    Yields:
        Positions i < j, int64 each; a pair that shares several buckets is repeated.
    """
    order = np.argsort(buckets, axis=None, kind="stable")
    sizes = np.bincount(buckets.reshape(-1))
    for members in np.split(order // buckets.shape[1], np.cumsum(sizes)[:-1]):
        if len(members) > 1:  # ascending, because the sort is stable
            gathered = np.asarray(rows[members])
            for i, j in near_pairs(gathered, least=least, tile=tile):
                yield members[i], members[j]
        if finished:
            finished()


@functools.partial(jax.jit, static_argnames="count")
def _nearest(rows: Array, centres: Array, count: int) -> Array:
    return jax.lax.top_k(rows @ centres.T, count)[1]
