# SPDX-License-Identifier: BSD-3-Clause
"""The input of a set: classes, lists and the places of the images."""

from collections.abc import Mapping
from typing import NamedTuple

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList

from .places import Places


class Content(NamedTuple):
    """The input of a set.

    Attributes:
        hierarchy: The classes.
        lists: Names and labels of each split's images; none is empty.
        places: Where the images of each split are stored.
        missing_labels: Target of classes that a row does not list: 0 (absent) or -1 (unknown).
    """

    hierarchy: Hierarchy
    lists: Mapping[str, LabelList]
    places: Mapping[str, Places]
    missing_labels: int = 0

    def num_rows(self, *, limit: int | None) -> dict[str, int]:
        """Returns the number of rows to use per split, limited by max_examples_per_split."""
        return {
            split: len(rows) if limit is None else min(limit, len(rows))
            for split, rows in self.lists.items()
        }
