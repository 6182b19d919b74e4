# SPDX-License-Identifier: BSD-3-Clause
"""Finds images by name among millions, at 16 bytes per name of any length."""

import hashlib
from collections.abc import Iterable

import numpy as np

from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.rows import iter_blocks, row_names
from mlimages_jax.labels.same_names import normal

_DIGEST_BYTES = 16  # two of 20 million names collide with a probability of 1e-24
_BLOCK_ROWS = 1 << 13  # rows whose names are Python objects at the same time


def name_digests(names: Iterable[bytes]) -> np.ndarray:
    """Returns a digest of every name, S16 [n], equal if and only if the names are equal.

    Args:
        names: UTF-8; composed (NFC) and decomposed (NFD) forms are equal.
    """
    digests = [
        hashlib.blake2b(_composed(name), digest_size=_DIGEST_BYTES).digest() for name in names
    ]
    return np.array(digests, f"S{_DIGEST_BYTES}")


def _composed(name: bytes) -> bytes:
    if name.isascii():
        return name
    return normal(name.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def row_digests(label_list: LabelList) -> np.ndarray:
    """Returns a digest of the name of every row, S16 [N]."""
    digests = np.empty(len(label_list), f"S{_DIGEST_BYTES}")
    for number, block in enumerate(iter_blocks(label_list, _BLOCK_ROWS)):
        start = number * _BLOCK_ROWS
        digests[start : start + len(block)] = name_digests(row_names(block))
    return digests


class NameIndex:
    """Finds rows by name.

    Args:
        digests: S16 [N], digests of the names of rows 0 to N - 1; may repeat.
    """

    def __init__(self, digests: np.ndarray):
        # Stable, so that the first of equal digests is the first row.
        self._order = np.argsort(digests, kind="stable")
        self._sorted = digests[self._order]

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Returns the first row of each name, int64 [n]; -1 for names without a row."""
        if not len(self._sorted):
            return np.full(len(digests), -1, np.int64)
        places = np.searchsorted(self._sorted, digests)
        places = np.minimum(places, len(self._sorted) - 1)
        return np.where(self._sorted[places] == digests, self._order[places], -1)
