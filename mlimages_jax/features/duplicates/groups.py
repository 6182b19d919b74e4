# SPDX-License-Identifier: BSD-3-Clause
"""Union-find: items connected by pairs, directly or through others, form one group."""

import numpy as np
import scipy.sparse


class Groups:
    """A partition of n items, each initially in a group of its own.

    Args:
        count: Number of items, n.
    """

    def __init__(self, count: int):
        self._parents = np.arange(count)

    def roots(self, items: np.ndarray) -> np.ndarray:
        """Returns the root of each item's group, int64 [...]."""
        found = self._parents[items]
        while True:
            above = self._parents[found]
            if (above == found).all():
                self._parents[items] = found  # path compression
                return found
            found = above

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Joins the groups of each pair of items; the smallest root becomes the common root.

        Args:
            first: int64 [m].
            second: int64 [m].
        """
        pairs = np.stack([self.roots(first), self.roots(second)])
        roots, pairs = np.unique(pairs[:, pairs[0] != pairs[1]], return_inverse=True)
        if not len(roots):
            return
        pairs = pairs.reshape(2, -1)
        shape = len(roots), len(roots)
        graph = scipy.sparse.coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), shape)
        _, parts = scipy.sparse.csgraph.connected_components(graph, directed=False)
        _, least = np.unique(parts, return_index=True)  # the smallest, because roots are sorted
        self._parents[roots] = roots[least[parts]]

    def members(self) -> list[np.ndarray]:
        """Returns groups of two or more, int64 [n]; largest first, then by first member."""
        roots = self.roots(np.arange(len(self._parents)))
        order = np.argsort(roots, kind="stable")
        boundaries = np.flatnonzero(np.diff(roots[order])) + 1
        groups = [group for group in np.split(order, boundaries) if len(group) > 1]
        return sorted(groups, key=lambda group: (-len(group), group[0]))
