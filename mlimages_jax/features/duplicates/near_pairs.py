# SPDX-License-Identifier: BSD-3-Clause
"""Pairs of rows whose dot product reaches a minimum, computed for all pairs in tiles.

The rows of a tile are divided among the devices of the machine; each device has all of its columns.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mlimages_jax.data.device_batches import one_behind
from mlimages_jax.distributed import sharding

TILE = 8_192  # rows and columns of a tile: 268 MB of products
_STEP = 512  # tiles are padded to multiples of this, so that few programs are compiled
_ROWS_OF_PAIRS = 1_024  # rows of a tile whose pairs are extracted at once

FeatureRows = np.ndarray | np.memmap
Pairs = tuple[np.ndarray, np.ndarray]


def near_pairs(
    rows: FeatureRows,
    *,
    least: float,
    tile: int = TILE,
    finished: Callable[[], object] | None = None,
) -> Iterator[Pairs]:
    """Yields pairs of different rows whose product reaches a minimum.

    Args:
        rows: float32 [n, d].
        least: Minimum product.
        tile: Number of rows per tile.
        finished: Called after every tile; `count_tiles` returns their number.

    Yields:
        Positions i < j, int64 [m] each; every pair once.
    """
    starts = range(0, len(rows), tile)
    for done in one_behind(_products(rows, rows, _upper(starts), least=least, tile=tile)):
        yield from done.pairs()
        if finished:
            finished()


def count_tiles(num_rows: int, *, tile: int = TILE) -> int:
    """Returns the number of tiles that `near_pairs` computes."""
    side = -(-num_rows // tile)
    return side * (side + 1) // 2


def pairs_between(
    first: np.ndarray, rows: FeatureRows, *, least: float, tile: int = TILE
) -> Iterator[Pairs]:
    """Yields pairs of a row of `first` and a row of `rows`, as positions, int64 [m] each."""
    corners = itertools.product(range(0, len(first), tile), range(0, len(rows), tile))
    tiles = ((i, j, False) for i, j in corners)
    for done in one_behind(_products(first, rows, tiles, least=least, tile=tile)):
        yield from done.pairs()


class _Tile(NamedTuple):
    """A tile that the device is computing.

    Attributes:
        first: Position of its first row.
        second: Position of its first column.
        same: Whether rows and columns are the same rows.
        shape: Shape without padding.
        above: Which products reach the minimum, bool, padded.
        any_above: Whether any does.
    """

    first: int
    second: int
    same: bool
    shape: tuple[int, int]
    above: Array
    any_above: Array

    def pairs(self) -> Iterator[Pairs]:
        """Yields the positions of the pairs, some rows at a time."""
        if not self.any_above:  # one byte from the device instead of 64 MB, for most tiles
            return
        found = np.asarray(self.above)[: self.shape[0], : self.shape[1]]
        for start in range(0, len(found), _ROWS_OF_PAIRS):
            i, j = np.nonzero(found[start : start + _ROWS_OF_PAIRS])
            if len(i):
                yield i + (self.first + start), j + self.second


def _upper(starts: range) -> Iterator[tuple[int, int, bool]]:
    """Yields the tiles on and above the diagonal of a square, row by row."""
    for i in starts:
        for j in range(i, starts.stop, starts.step):
            yield i, j, i == j


def _products(
    first: FeatureRows,
    second: FeatureRows,
    tiles: Iterable[tuple[int, int, bool]],
    *,
    least: float,
    tile: int,
) -> Iterator[_Tile]:
    """Dispatches the computation of one tile after another."""
    mesh = sharding.make_mesh(jax.local_devices())
    split, everywhere = sharding.by_example(mesh), sharding.replicated(mesh)
    multiple = math.lcm(_STEP, mesh.size)
    at, block, padded = -1, np.empty(0), jnp.empty(0)
    for i, j, same in tiles:
        if i != at:
            at, block = i, first[i : i + tile]
            padded = jax.device_put(_padded(block, multiple), split)
        other = second[j : j + tile]
        columns = jax.device_put(_padded(other, multiple), everywhere)
        above, any_above = _above(padded, columns, least, same)
        yield _Tile(i, j, same, (len(block), len(other)), above, any_above)


@functools.partial(jax.jit, static_argnames="same")
def _above(first: Array, second: Array, least: float, same: bool) -> tuple[Array, Array]:
    """Returns which products reach the minimum, bool [m, n], and whether any does."""
    # HIGHEST: by default accelerators round float32 inputs, and the error would exceed ROUNDING.
    products = jnp.matmul(first, second.T, precision=jax.lax.Precision.HIGHEST)
    above = products >= least
    if same:
        above = jnp.triu(above, 1)  # each pair once, and no row with itself
    return above, above.any()


def _padded(rows: np.ndarray, multiple: int) -> np.ndarray:
    """Pads with zero rows to a multiple of a number; their products are 0."""
    return np.pad(rows, ((0, -len(rows) % multiple), (0, 0)))
