# SPDX-License-Identifier: BSD-3-Clause
"""Finds images that label lists name more than once, in one split or in several.

If images are in both the training and the test set, test results are too good, without any error.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mlimages_jax.labels.lists import LabelList

_ROWS = 2**16  # at a time


class Repeats(NamedTuple):
    """The result of `find_repeats`.

    Attributes:
        within: Number of rows that repeat an earlier name, for each split with any.
        between: Number of names in both splits, for each pair of splits that share any.
    """

    within: dict[str, int]
    between: dict[tuple[str, str], int]


def hashes_of(names: LabelList) -> np.ndarray:
    """Returns int64 [N], a hash of each name; it differs between processes."""
    text = names.names.data
    hashes = np.empty(len(names), np.int64)
    for begin in range(0, len(names), _ROWS):  # Python's integers take four times the memory
        ends = names.name_offsets[begin : begin + _ROWS + 1].tolist()
        # Python's own hash, whose seed is the same within a process.
        found = [hash(bytes(text[a:b])) for a, b in itertools.pairwise(ends)]
        hashes[begin : begin + len(found)] = found
    return hashes


def find_repeats(hashes: Mapping[str, np.ndarray]) -> Repeats:
    """Counts names that occur more than once.

    Args:
        hashes: int64 [n], hashes of the names of each split, all from one process.
    """
    unique = {split: _unique(values) for split, values in hashes.items()}
    within = {
        split: len(values) - len(unique[split])
        for split, values in hashes.items()
        if len(values) > len(unique[split])
    }
    between = {
        (one, other): len(shared)
        for one, other in itertools.combinations(unique, 2)
        if len(shared := np.intersect1d(unique[one], unique[other], assume_unique=True))
    }
    return Repeats(within, between)


def _unique(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)  # np.unique would import numpy.ma, for 10 ms of a build
    return np.concatenate([ordered[:1], ordered[1:][ordered[1:] != ordered[:-1]]])


def first_shared(one: LabelList, other: LabelList) -> str:
    """Returns the first name of a list that is in another list too; there must be one."""
    shared = np.isin(hashes_of(one), hashes_of(other))
    return one[int(shared.argmax())].name
