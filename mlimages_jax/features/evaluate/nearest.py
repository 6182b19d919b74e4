# SPDX-License-Identifier: BSD-3-Clause
"""Exact nearest neighbours by cosine similarity, in constant memory, on all devices of a machine.

Each device compares its share of a block of queries with the same images.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from mlimages_jax.distributed import sharding
from mlimages_jax.features.export.exported import Exported

QUERIES = 16_384  # rows per block; the base is read once for each block of queries
BASE = 4_096


class Neighbours(NamedTuple):
    """The neighbours of m queries.

    Attributes:
        queries: int64 [m], positions of the queries.
        similarity: float32 [m, k], cosines in descending order.
        neighbours: int64 [m, k], positions in the base; ties go to the lower position.
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
    """Compares every query with the entire base, block by block.

    The devices together store [query_rows, base_rows] similarities and the k best of each query.

    Args:
        queries: The query images.
        base: The images to search, at least k.
        k: Number of neighbours.
        query_rows: Number of queries per block, rounded up to a multiple of the devices.
        base_rows: Number of base images per block.

    Yields:
        The neighbours of one block of queries, in order.

    Raises:
        ValueError: If the base has fewer than k images.
    """
    if not 1 <= k <= len(base):
        raise ValueError(f"k={k} must be from 1 to {len(base)}, the number of images")
    mesh = sharding.make_mesh(jax.local_devices())
    query_rows = math.ceil(min(query_rows, len(queries)) / mesh.size) * mesh.size
    base_rows = min(base_rows, len(base))
    shared = functools.partial(jax.device_put, device=sharding.by_example(mesh))
    merge = _merge_on(mesh)
    for start in range(0, len(queries), query_rows):
        stop = min(start + query_rows, len(queries))
        block = shared(_padded(queries.unit(slice(start, stop)), query_rows))
        best = shared(
            (np.full((query_rows, k), -np.inf, np.float32), np.zeros((query_rows, k), np.int32))
        )
        for first in range(0, len(base), base_rows):
            rows = base.unit(slice(first, first + base_rows))
            best = merge(best, block, _padded(rows, base_rows), first, len(rows))
        similarity, neighbours = (np.asarray(values)[: stop - start] for values in best)
        yield Neighbours(np.arange(start, stop), similarity, neighbours.astype(np.int64))


@functools.cache
def _merge_on(mesh: Mesh) -> Callable[..., tuple[Array, Array]]:
    """Returns `_merge` compiled for a mesh: queries are split over its devices, the base is not."""
    rows, everywhere = PartitionSpec(sharding.DATA_AXIS), PartitionSpec()
    # By hand: the automatic partitioning may gather all similarities for `top_k`.
    split = jax.shard_map(
        _merge, mesh=mesh, in_specs=(rows, rows, everywhere, everywhere, everywhere), out_specs=rows
    )
    return jax.jit(split, donate_argnums=0)


def _merge(
    best: tuple[Array, Array], queries: Array, base: Array, first: Array, count: Array
) -> tuple[Array, Array]:
    """Merges the best so far with those of another block; ties go to the earlier in the base.

    Args:
        best: Similarities float32 and positions int32, [m, k].
        queries: float32 [m, F].
        base: float32 [b, F].
        first: Position of the first row of `base`.
        count: Number of rows of `base` that are not padding.
    """
    k = best[0].shape[1]
    # By default accelerators round float32 inputs to fewer digits, and close neighbours change
    # places.
    similarity = jnp.matmul(queries, base.T, precision=jax.lax.Precision.HIGHEST)  # [m, b]
    # Rows of padding have the similarity 0, which is more than that of images that differ most.
    similarity = jnp.where(jnp.arange(len(base)) < count, similarity, -jnp.inf)
    found, columns = jax.lax.top_k(similarity, min(k, len(base)))
    values = jnp.concatenate([best[0], found], axis=1)
    positions = jnp.concatenate([best[1], first + columns], axis=1)
    values, columns = jax.lax.top_k(values, k)  # prefers the lower index among equal values
    return values, jnp.take_along_axis(positions, columns, axis=1)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """Pads every block to the same number of rows, so that one program serves all."""
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))
