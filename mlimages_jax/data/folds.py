# SPDX-License-Identifier: BSD-3-Clause
"""Divides a split into folds, which are kept out of a training that will judge their labels."""

import dataclasses

import numpy as np

from mlimages_jax.data.order import GOLDEN
from mlimages_jax.data.records import RandomAccess


@dataclasses.dataclass(frozen=True)
class Fold:
    """One of some equal parts of the records of a split.

    A hash of its position determines the part of a record: neighbours, which builders often take
    from one folder, are in different parts.

    Attributes:
        number: Number of the part, from 0.
        count: Number of parts.
    """

    number: int
    count: int

    def mask(self, num_records: int) -> np.ndarray:
        """Returns whether each record is in this part, bool [num_records]."""
        # Multiples of the golden ratio modulo 1 are spread evenly, so the parts are of nearly equal
        # size. The product with the count maps them to 0, ..., count - 1.
        hashed = np.arange(num_records, dtype=np.uint64) * np.uint64(GOLDEN) % np.uint64(2**32)
        return (hashed * np.uint64(self.count)) >> np.uint64(32) == self.number


class Subset:
    """Some of the records of a split, by position."""

    def __init__(self, records: RandomAccess, chosen: np.ndarray):
        """Takes the records where `chosen`, bool [len(records)], is true."""
        self._records = records
        self.positions = np.flatnonzero(chosen)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int, /) -> bytes:
        return self._records[int(self.positions[index])]

    def name_of(self, index: int) -> str:
        """Returns the index of a record in its file and the name of the file, if they are known."""
        name_of = getattr(self._records, "name_of", "record {}".format)
        return name_of(int(self.positions[index]))
