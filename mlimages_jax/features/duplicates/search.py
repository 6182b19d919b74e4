# SPDX-License-Identifier: BSD-3-Clause
"""Finds groups of images with nearly identical features, for any number of images."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlimages_jax.features.duplicates.bounds import ROUNDING, bound_vectors, principal_directions
from mlimages_jax.features.duplicates.groups import Groups
from mlimages_jax.features.duplicates.near_pairs import (
    TILE,
    Pairs,
    count_tiles,
    near_pairs,
    pairs_between,
)
from mlimages_jax.features.export.exported import Exported, unit_vectors
from mlimages_jax.features.inverted_lists import InvertedLists
from mlimages_jax.monitoring.progress_bar import progress

_ROWS_AT_ONCE = 4_096
PAIRS_AT_ONCE = 16_384  # their features need at most 540 MB with 2,048 numbers per image


class Recall(NamedTuple):
    """Recall of an approximate search, measured on a random sample of images.

    Attributes:
        images: Number of sampled images.
        pairs: Pairs of a sampled and any other image that reach the threshold.
        found: Number of these pairs whose images are in one group.
    """

    images: int
    pairs: int
    found: int


class DuplicateSearch:
    """Groups images that are similar, directly or through others.

    Images with bitwise identical features are joined first, and only one of each is compared.

    Args:
        images: The n images.
        threshold: Minimum cosine similarity of a pair.
        scratch: Path of a temporary file with 4 (width + 1) bytes per image.
        width: Length of the short vectors that are compared, see `bounds`.
        tile: Number of images compared at once.

    Attributes:
        groups: The groups so far.
        identical: Number of images with the same features as an earlier one.
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
        """Finds every pair that reaches the threshold."""
        with progress(
            count_tiles(len(self._bounds), tile=self._tile), what="tiles", unit=""
        ) as bar:
            found = near_pairs(
                self._bounds, least=self._least, tile=self._tile, finished=bar.update
            )
            self._join(found)

    def compare_in_lists(self, lists: int, *, probes: int) -> None:
        """Finds most pairs: those of which one image is in the lists nearest to the other.

        Args:
            lists: Number of lists, see `InvertedLists`.
            probes: Lists that an image is compared with.
        """
        count = len(self._bounds)
        read = self._bounds.__getitem__
        index = InvertedLists(read, count, lists=lists, probes=probes)
        with progress(count, what="comparisons") as bar:
            self._join(index.pairs(read, count, least=self._least, finished=bar.update))

    def recall(self, count: int, *, seed: int = 0) -> Recall:
        """Compares a sample with all images and counts how many of its pairs are in one group."""
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
        """Returns cosine similarities of pairs, float64 [m]; 1 if the features are identical.

        Args:
            i: int64 [m], at most PAIRS_AT_ONCE.
            j: int64 [m].
        """
        needed, inverse = np.unique(np.concatenate([i, j]), return_inverse=True)
        rows = self._images.unit(needed)
        first, second = rows[inverse[: len(i)]], rows[inverse[len(i) :]]
        cosines = np.einsum("mf,mf->m", first, second, dtype=np.float64)
        # Rounding leaves the cosine of equal rows a little below or above 1.
        return np.where((first == second).all(axis=1), 1, np.minimum(cosines, 1))

    @property
    def _least(self) -> float:
        # Lower by the rounding of the bounds, so that no pair is missed. `_join` then compares the
        # features.
        return self._threshold - ROUNDING

    def _read(self, directions: np.ndarray) -> np.ndarray:
        """Writes the short vectors; returns the first image with equal features, int64 [n]."""
        digests = np.empty((len(self._images), 2), np.uint64)
        with progress(len(self._images), what="features") as bar:
            for start in range(0, len(self._images), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                stored = self._images.stored(part)
                for number, row in enumerate(stored, start):
                    digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
                    digests[number] = np.frombuffer(digest, np.uint64)
                self._bounds[part] = bound_vectors(unit_vectors(stored), directions)
                bar.update(len(stored))
        _, firsts, same = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        return firsts[same.reshape(-1)]

    def _move_together(self) -> None:
        """Moves the short vectors of the compared images to the front of the file."""
        for start in range(0, len(self._compared), _ROWS_AT_ONCE):
            # Safe in place: a vector never moves backwards, so none is overwritten before its turn.
            chosen = self._compared[start : start + _ROWS_AT_ONCE]
            self._bounds[start : start + len(chosen)] = self._bounds[chosen]
        self._bounds = self._bounds[: len(self._compared)]

    def _join(self, pairs: Iterable[Pairs]) -> None:
        """Joins the pairs that reach the threshold; the bounds alone also admit others."""
        apart = self._apart(pairs)
        for i, j in _in_pieces(apart):
            still = self.groups.roots(i) != self.groups.roots(j)
            i, j = i[still], j[still]
            near = self.similarity(i, j) >= self._threshold
            self.groups.join(i[near], j[near])

    def _apart(self, pairs: Iterable[Pairs]) -> Iterator[Pairs]:
        """Yields pairs, as positions of images, that are not yet in one group."""
        for first, second in pairs:
            i, j = self._compared[first], self._compared[second]
            apart = self.groups.roots(i) != self.groups.roots(j)
            if apart.any():
                yield i[apart], j[apart]


def _in_pieces(pairs: Iterable[Pairs]) -> Iterator[Pairs]:
    """Regroups the pairs, in the same order, into parts of PAIRS_AT_ONCE."""
    pending: list[Pairs] = []
    count = 0
    for i, j in pairs:
        while len(i):
            room = PAIRS_AT_ONCE - count
            pending.append((i[:room], j[:room]))
            count += len(pending[-1][0])
            i, j = i[room:], j[room:]
            if count == PAIRS_AT_ONCE:
                yield _joined(pending)
                pending, count = [], 0
    if pending:
        yield _joined(pending)


def _joined(pieces: list[Pairs]) -> Pairs:
    i, j = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return i, j
