# SPDX-License-Identifier: BSD-3-Clause
"""Approximate search among unit vectors with faiss, where comparing with all takes too long.

The vectors are divided into lists by their nearest centre of k-means; a query is compared with
those in the lists of its nearest centres only (an inverted file; Jégou, Douze and Schmid, "Product
Quantization for Nearest Neighbor Search", 2011, section IV). They are kept in float16, 2 bytes a
number. docs/benchmarks/features.md says why faiss, and what is found at which speed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mlimages_jax.features import FeaturesError
from mlimages_jax.monitoring.progress_bar import progress

ROUNDING = 1e-3  # upper limit of what float16 changes in a product of unit vectors
_ROWS_AT_ONCE = 16_384
_SAMPLE = 64  # vectors per list that k-means uses
_LEAST_SAMPLE = 39  # fewer make poor centres, by faiss's own limit
_WIDTH_MULTIPLE = 16
_QUERIES = 512  # whose pairs are in memory at once

Read = Callable[[slice | np.ndarray], np.ndarray]


class InvertedLists:
    """An index of n vectors.

    Args:
        read: Returns vectors of length 1 at some positions (ascending), float32 [m, d].
        count: Number of vectors, n.
        lists: Number of lists; 0: twice the square root of n.
        probes: Number of lists that a query is compared with; more of them find more.
        seed: Seed of the sample for k-means.

    Raises:
        FeaturesError: If faiss is not installed.
    """

    def __init__(self, read: Read, count: int, *, lists: int = 0, probes: int = 16, seed: int = 0):
        faiss = _faiss()
        usual = max(1, min(2 * round(count**0.5), count // _LEAST_SAMPLE))
        self.lists = min(lists or usual, count)
        drawn = np.random.default_rng(seed).permutation(count)[: _SAMPLE * self.lists]
        sample = _padded(read(np.sort(drawn)))  # in the order of the file
        centres = faiss.IndexFlatIP(sample.shape[1])
        # Kept, because faiss does not: the index only refers to it.
        self._centres = centres
        self._index = faiss.IndexIVFScalarQuantizer(
            centres, sample.shape[1], self.lists, faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT, False,
        )  # fmt: skip
        self._index.cp.spherical = True
        self._index.cp.min_points_per_centroid = 1  # no warning on standard error
        self._index.train(sample)
        del sample
        self._index.nprobe = min(probes, self.lists)
        with progress(count, what="index") as bar:
            for start in range(0, count, _ROWS_AT_ONCE):
                rows = read(slice(start, start + _ROWS_AT_ONCE))
                self._index.add(_padded(rows))
                bar.update(len(rows))

    def nearest(self, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the most similar vectors that are found.

        A query whose lists have fewer than k vectors is compared with more lists, if need be all.

        Args:
            queries: float32 [m, d], of length 1.
            k: Number of vectors per query, at most n.

        Returns:
            Products, float32 [m, k], descending, and positions, int64 [m, k].
        """
        queries, probes = _padded(queries), self._index.nprobe
        products, positions = self._index.search(queries, k)
        while probes < self.lists and (few := np.flatnonzero(positions[:, -1] < 0)).size:
            probes = min(2 * probes, self.lists)
            more = _faiss().SearchParametersIVF(nprobe=probes)
            products[few], positions[few] = self._index.search(queries[few], k, params=more)
        return products, positions

    def pairs(
        self, read: Read, count: int, *, least: float, finished: Callable[[int], object]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields pairs of the vectors whose product reaches a minimum, or is just below.

        Args:
            read: Returns the vectors, as on construction.
            count: Their number.
            least: Minimum product.
            finished: Called with the number of vectors that were compared.

        Yields:
            Positions i < j, int64 [m] each; most pairs come twice.
        """
        for start in range(0, count, _QUERIES):
            queries = read(slice(start, start + _QUERIES))
            limits, _, found = self._index.range_search(_padded(queries), least - ROUNDING)
            own = start + np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
            apart = own != found
            pairs = np.sort(np.stack([own[apart], found[apart]]), axis=0)
            if pairs.size:
                yield pairs[0], pairs[1]
            finished(len(queries))


def _padded(rows: np.ndarray) -> np.ndarray:
    """Appends zeros, which change no product: faiss is fast with multiples of 16 numbers only."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % _WIDTH_MULTIPLE)))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise FeaturesError(
            "--index=ivf uses faiss, which is not installed: pip install 'mlimages-jax[index]'"
        ) from error
    return faiss
