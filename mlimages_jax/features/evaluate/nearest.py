# SPDX-License-Identifier: BSD-3-Clause
"""The nearest neighbours by cosine similarity, exactly, in memory that does not grow."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlimages_jax.features.export.exported import Exported

QUERIES = 16_384  # rows at once; the base is read once for each such block
BASE = 4_096


class Neighbours(NamedTuple):
    """Of m queries.

    Attributes:
        queries: int64 [m], their positions.
        similarity: float32 [m, k], cosines, falling.
        neighbours: int64 [m, k], positions in the base; of equal ones the lower is first.
    """

    queries: np.ndarray
    similarity: np.ndarray
    neighbours: np.ndarray


def nearest(
    queries: Exported,
    base: Exported,
    *,
    k: int,
    query_rows: int = QUERIES,
    base_rows: int = BASE,
) -> Iterator[Neighbours]:
    """Compares every query with the whole base, a block of each at a time.

    On the device hold [query_rows, base_rows] similarities and the k best of each query.

    Args:
        queries: images.
        base: images, at least k.
        k: how many neighbours.
        query_rows: of a block.
        base_rows: likewise.

    Yields:
        The neighbours of one block of queries, in order.

    Raises:
        ValueError: the base has fewer than k images.
    """
    if not 1 <= k <= len(base):
        raise ValueError(f"k={k} of {len(base)} images")
    query_rows, base_rows = min(query_rows, len(queries)), min(base_rows, len(base))
    for start in range(0, len(queries), query_rows):
        stop = min(start + query_rows, len(queries))
        block = jnp.asarray(_padded(queries.unit(slice(start, stop)), query_rows))
        best = jnp.full((query_rows, k), -jnp.inf), jnp.zeros((query_rows, k), jnp.int32)
        for first in range(0, len(base), base_rows):
            rows = base.unit(slice(first, first + base_rows))
            best = _merge(best, block, _padded(rows, base_rows), first, len(rows))
        similarity, neighbours = (np.asarray(values)[: stop - start] for values in best)
        yield Neighbours(np.arange(start, stop), similarity, neighbours.astype(np.int64))


@functools.partial(jax.jit, donate_argnums=0)
def _merge(
    best: tuple[Array, Array], queries: Array, base: Array, first: int, count: int
) -> tuple[Array, Array]:
    """The best so far and those of another block; that come first in the base win a tie.

    Args:
        best: similarity float32 and position int32, [m, k].
        queries: float32 [m, F].
        base: float32 [b, F].
        first: position of its first row.
        count: of its rows that are no padding.
    """
    k = best[0].shape[1]
    similarity = jnp.matmul(queries, base.T, precision=jax.lax.Precision.HIGHEST)  # [m, b]
    similarity = jnp.where(jnp.arange(len(base)) < count, similarity, -jnp.inf)
    found, columns = jax.lax.top_k(similarity, min(k, len(base)))
    values = jnp.concatenate([best[0], found], axis=1)
    positions = jnp.concatenate([best[1], first + columns], axis=1)
    values, columns = jax.lax.top_k(values, k)
    return values, jnp.take_along_axis(positions, columns, axis=1)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """The same number of rows in every block, so that one program serves all."""
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))
