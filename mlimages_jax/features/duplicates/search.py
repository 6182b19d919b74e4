# SPDX-License-Identifier: BSD-3-Clause
"""Groups of images whose features are nearly the same, of any number of images."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlimages_jax.features.duplicates.bounds import ROUNDING, bound_vectors, principal_directions
from mlimages_jax.features.duplicates.buckets import make_centres, nearest_centres, pairs_in_buckets
from mlimages_jax.features.duplicates.groups import Groups
from mlimages_jax.features.duplicates.near_pairs import (
    TILE,
    Pairs,
    count_tiles,
    near_pairs,
    pairs_between,
)
from mlimages_jax.features.export.exported import Exported, unit_vectors
from mlimages_jax.monitoring.progress_bar import progress

_ROWS_AT_ONCE = 4_096
PAIRS_AT_ONCE = 16_384  # their features in memory: 540 MB at most, of 2,048 numbers an image


class Recall(NamedTuple):
    """What a search that does not compare all images has found, seen on some of them.

    Attributes:
        images: drawn.
        pairs: of one of these and another image, with similarities at or above the threshold.
        found: those of them that are in one group.
    """

    images: int
    pairs: int
    found: int


class DuplicateSearch:
    """Joins images that are similar, or connected by others that are.

    Images with the same features, bit by bit, are joined first, and one of each is compared.

    Args:
        images: n of them.
        threshold: least cosine similarity of a pair.
        scratch: a file that is written, 4 (width + 1) bytes an image.
        width: of the short vectors that are compared, see `bounds`.
        tile: images compared at once.

    Attributes:
        groups: what has been joined.
        identical: images that have the features of an earlier one.
    """

    def __init__(
        self,
        images: Exported,
        *,
        threshold: float,
        scratch: Path,
        width: int = 256,
        tile: int = TILE,
    ):
        self._images, self._threshold, self._tile = images, threshold, tile
        self.groups = Groups(len(images))
        directions = principal_directions(images, min(width, images.width))
        shape = len(images), directions.shape[1] + 1
        self._bounds: np.ndarray = np.lib.format.open_memmap(scratch, "w+", np.float32, shape)
        firsts = self._read(directions)
        self._compared = np.unique(firsts)
        self.identical = len(images) - len(self._compared)
        self.groups.join(np.arange(len(firsts)), firsts)
        self._move_together()

    def compare_all(self) -> None:
        """Finds every pair at or above the threshold."""
        with progress(
            count_tiles(len(self._bounds), tile=self._tile), what="tiles", unit=""
        ) as bar:
            found = near_pairs(
                self._bounds, least=self._least, tile=self._tile, finished=bar.update
            )
            self._join(found)

    def compare_in_buckets(self, count: int, *, memberships: int) -> None:
        """Finds most of them: those of images that share one of their buckets.

        Args:
            count: of buckets.
            memberships: buckets of each image.
        """
        count = min(count, len(self._bounds))
        centres = make_centres(self._bounds, count)
        buckets = nearest_centres(self._bounds, centres, memberships=min(memberships, count))
        with progress(int(buckets.max()) + 1, what="buckets", unit="") as bar:
            found = pairs_in_buckets(
                self._bounds, buckets, least=self._least, tile=self._tile, finished=bar.update
            )
            self._join(found)

    def recall(self, count: int, *, seed: int = 0) -> Recall:
        """Compares some images with all, and looks how many of their pairs are in one group."""
        count = min(count, len(self._compared))
        drawn = np.random.default_rng(seed).choice(len(self._compared), count, replace=False)
        drawn.sort()
        pairs = found = 0
        between = pairs_between(
            self._bounds[drawn], self._bounds, least=self._least, tile=self._tile
        )
        for first, second in _in_pieces(between):
            i, j = self._compared[drawn[first]], self._compared[second]
            i, j = i[i != j], j[i != j]
            near = self.similarity(i, j) >= self._threshold
            pairs += int(near.sum())
            found += int((self.groups.roots(i) == self.groups.roots(j))[near].sum())
        return Recall(count, pairs, found)

    def similarity(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Cosine similarity of pairs of images, float64 [m]; 1 where the features are the same.

        Args:
            i: int64 [m], at most PAIRS_AT_ONCE.
            j: int64 [m].
        """
        needed, places = np.unique(np.concatenate([i, j]), return_inverse=True)
        rows = self._images.unit(needed)
        first, second = rows[places[: len(i)]], rows[places[len(i) :]]
        cosines = np.einsum("mf,mf->m", first, second, dtype=np.float64)
        return np.where((first == second).all(axis=1), 1, np.minimum(cosines, 1))

    @property
    def _least(self) -> float:
        return self._threshold - ROUNDING

    def _read(self, directions: np.ndarray) -> np.ndarray:
        """Fills the short vectors; returns the first image with the same features, int64 [n]."""
        digests = np.empty((len(self._images), 2), np.uint64)
        with progress(len(self._images), what="features") as bar:
            for start in range(0, len(self._images), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                stored = self._images.stored(part)
                for place, row in enumerate(stored, start):
                    digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
                    digests[place] = np.frombuffer(digest, np.uint64)
                self._bounds[part] = bound_vectors(unit_vectors(stored), directions)
                bar.update(len(stored))
        _, firsts, same = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        return firsts[same.reshape(-1)]

    def _move_together(self) -> None:
        """The short vectors of what is compared, at the front of the file."""
        for start in range(0, len(self._compared), _ROWS_AT_ONCE):
            chosen = self._compared[start : start + _ROWS_AT_ONCE]  # never before its place
            self._bounds[start : start + len(chosen)] = self._bounds[chosen]
        self._bounds = self._bounds[: len(self._compared)]

    def _join(self, pairs: Iterable[Pairs]) -> None:
        """Joins those pairs whose similarity reaches the threshold; the others were only close."""
        apart = self._apart(pairs)
        for i, j in _in_pieces(apart):
            still = self.groups.roots(i) != self.groups.roots(j)
            i, j = i[still], j[still]
            near = self.similarity(i, j) >= self._threshold
            self.groups.join(i[near], j[near])

    def _apart(self, pairs: Iterable[Pairs]) -> Iterator[Pairs]:
        """Pairs, now of images, that are not in one group yet."""
        for first, second in pairs:
            i, j = self._compared[first], self._compared[second]
            apart = self.groups.roots(i) != self.groups.roots(j)
            if apart.any():
                yield i[apart], j[apart]


def _in_pieces(pairs: Iterable[Pairs]) -> Iterator[Pairs]:
    """The same pairs in the same order, PAIRS_AT_ONCE at a time."""
    waiting: list[Pairs] = []
    count = 0
    for i, j in pairs:
        while len(i):
            room = PAIRS_AT_ONCE - count
            waiting.append((i[:room], j[:room]))
            count += len(waiting[-1][0])
            i, j = i[room:], j[room:]
            if count == PAIRS_AT_ONCE:
                yield _joined(waiting)
                waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[Pairs]) -> Pairs:
    i, j = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return i, j
