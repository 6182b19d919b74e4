# SPDX-License-Identifier: BSD-3-Clause
"""Nearest neighbours by an index, and which fraction of the exact ones it finds."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlimages_jax.features.evaluate.nearest import Neighbours, nearest
from mlimages_jax.features.export.exported import Exported
from mlimages_jax.features.inverted_lists import InvertedLists

_QUERIES = 4_096  # read at once


class Recall(NamedTuple):
    """Recall of an approximate search, measured on a random sample of queries.

    Attributes:
        checked: Number of sampled queries.
        k: Number of neighbours of each.
        recall: Fraction of their exact neighbours that were found.
    """

    checked: int
    k: int
    recall: float

    def __str__(self) -> str:
        return (
            f"of {self.checked:,} random test images compared with all: {self.recall:.2%} of the "
            f"{self.k} nearest were found"
        )


class Approximate:
    """An index of images.

    Args:
        base: The images to search.
        lists: Number of lists, see `InvertedLists`.
        probes: Lists that a query is compared with.

    Raises:
        FeaturesError: If faiss is not installed.
    """

    def __init__(self, base: Exported, *, lists: int, probes: int):
        self._index = InvertedLists(base.unit, len(base), lists=lists, probes=probes)
        self._probes = probes

    def about(self) -> dict[str, Any]:
        """Describes the index as JSON values."""
        return {"lists": self._index.lists, "probes": self._probes}

    def nearest(self, queries: Exported, _: Exported, *, k: int) -> Iterator[Neighbours]:
        """Yields neighbours as the exact `nearest` does, of the images that were indexed."""
        for start in range(0, len(queries), _QUERIES):
            stop = min(start + _QUERIES, len(queries))
            found = self._index.nearest(queries.unit(slice(start, stop)), k=k)
            yield Neighbours(np.arange(start, stop), *found)

    def recall(
        self, queries: Exported, base: Exported, *, k: int, count: int, seed: int = 0
    ) -> Recall:
        """Searches a sample of the queries both ways.

        Args:
            queries: The query images.
            base: The images that were indexed.
            k: Number of neighbours.
            count: Number of queries in the sample.
            seed: Seed of the sample.
        """
        count = min(count, len(queries))
        drawn = np.random.default_rng(seed).choice(len(queries), count, replace=False)
        sample = queries.select(np.sort(drawn))
        found = np.concatenate([part.neighbours for part in self.nearest(sample, base, k=k)])
        exact = np.concatenate([part.neighbours for part in nearest(sample, base, k=k)])
        hits = sum(
            len(np.intersect1d(ours, theirs)) for ours, theirs in zip(found, exact, strict=True)
        )
        return Recall(count, k, hits / exact.size)
