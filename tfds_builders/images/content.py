# SPDX-License-Identifier: BSD-3-Clause
"""What a set is made of: classes, lists and the places of images."""

from collections.abc import Mapping
from typing import NamedTuple

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList

from .places import Places


class Content(NamedTuple):
    """What a set is made of.

    Attributes:
      hierarchy: The classes.
      lists: Names and labels of each split's images; none is empty.
      places: Where the images of each split lie.
      unlisted: The target of a class that a row does not list: 0 (it is absent) or -1 (unknown).
    """

    hierarchy: Hierarchy
    lists: Mapping[str, LabelList]
    places: Mapping[str, Places]
    unlisted: int = 0

    def num_rows(self, *, limit: int | None) -> dict[str, int]:
        """Rows used of each split: TFDS's max_examples_per_split cuts them off."""
        return {
            split: len(rows) if limit is None else min(limit, len(rows))
            for split, rows in self.lists.items()
        }
