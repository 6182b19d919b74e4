# SPDX-License-Identifier: BSD-3-Clause
"""Pairs of rows whose product reaches a value: every row with every other, a tile at a time."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

TILE = 8_192  # rows and columns of a tile: 268 MB of products
_STEP = 512  # a smaller tile is padded to whole steps, so that few programs serve all sizes
_ROWS_OF_PAIRS = 1_024  # of a tile, whose pairs are taken at once

Rows = np.ndarray | np.memmap
Pairs = tuple[np.ndarray, np.ndarray]


def near_pairs(
    rows: Rows, *, least: float, tile: int = TILE, finished: Callable[[], object] | None = None
) -> Iterator[Pairs]:
    """Pairs of different rows.

    Args:
        rows: float32 [n, d].
        least: of the product.
        tile: rows of a tile.
        finished: is called after every tile, of which there are as `count_tiles` says.

    Yields:
        Positions i < j, int64 [m] each; every pair once.
    """
    starts = range(0, len(rows), tile)
    for done in _one_behind(_products(rows, rows, _upper(starts), least=least, tile=tile)):
        yield from done.pairs()
        if finished:
            finished()


def count_tiles(num_rows: int, *, tile: int = TILE) -> int:
    """How many tiles `near_pairs` takes."""
    side = -(-num_rows // tile)
    return side * (side + 1) // 2


def pairs_between(
    first: np.ndarray, rows: Rows, *, least: float, tile: int = TILE
) -> Iterator[Pairs]:
    """Pairs of a row of `first` and one of `rows`; positions in these, int64 [m] each."""
    places = itertools.product(range(0, len(first), tile), range(0, len(rows), tile))
    tiles = ((i, j, False) for i, j in places)
    for done in _one_behind(_products(first, rows, tiles, least=least, tile=tile)):
        yield from done.pairs()


class _Tile(NamedTuple):
    """A tile that the device works at.

    Attributes:
        first: the number of its first row.
        second: and of its first column.
        same: rows and columns are the same rows.
        shape: without the padding.
        above: which products reach the value, bool, padded.
        any_above: whether one does.
    """

    first: int
    second: int
    same: bool
    shape: tuple[int, int]
    above: Array
    any_above: Array

    def pairs(self) -> Iterator[Pairs]:
        """Positions of the pairs, a part of the rows at a time."""
        if not self.any_above:
            return
        found = np.asarray(self.above)[: self.shape[0], : self.shape[1]]
        for start in range(0, len(found), _ROWS_OF_PAIRS):
            i, j = np.nonzero(found[start : start + _ROWS_OF_PAIRS])
            if len(i):
                yield i + (self.first + start), j + self.second


def _upper(starts: range) -> Iterator[tuple[int, int, bool]]:
    """The tiles of a square on and above its diagonal, row by row."""
    for i in starts:
        for j in range(i, starts.stop, starts.step):
            yield i, j, i == j


def _products(
    first: Rows, second: Rows, tiles: Iterable[tuple[int, int, bool]], *, least: float, tile: int
) -> Iterator[_Tile]:
    """Starts the work at one tile after the other."""
    at, block, padded = -1, np.empty(0), jnp.empty(0)
    for i, j, same in tiles:
        if i != at:
            at, block = i, first[i : i + tile]
            padded = jnp.asarray(_padded(block))
        other = second[j : j + tile]
        above, any_above = _above(padded, _padded(other), least, same)
        yield _Tile(i, j, same, (len(block), len(other)), above, any_above)


def _one_behind(tiles: Iterator[_Tile]) -> Iterator[_Tile]:
    """Yields every tile once the next is under way, so that the device need not wait."""
    before = next(tiles, None)
    for tile in tiles:
        assert before is not None
        yield before
        before = tile
    if before is not None:
        yield before


@functools.partial(jax.jit, static_argnames="same")
def _above(first: Array, second: Array, least: float, same: bool) -> tuple[Array, Array]:
    """Which products reach the value, bool [m, n], and whether any does."""
    products = jnp.matmul(first, second.T, precision=jax.lax.Precision.HIGHEST)
    above = products >= least
    if same:
        above = jnp.triu(above, 1)
    return above, above.any()


def _padded(rows: np.ndarray) -> np.ndarray:
    """With rows of 0, whose products are 0, up to a whole number of steps."""
    return np.pad(rows, ((0, -len(rows) % _STEP), (0, 0)))
