# SPDX-License-Identifier: BSD-3-Clause
"""Finds lines of large files by keys, with 16 bytes of memory per line."""

import array
import hashlib
import json
from collections.abc import Iterable

import numpy as np


def key_of(values: object) -> int:
    """Returns a 64-bit key of JSON values.

    Among ten million lines two have the same key with a probability of 3 in a million, so whoever
    reads a line by its key compares what the key stands for.
    """
    text = json.dumps(values).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def keys_of(many: Iterable[object]) -> np.ndarray:
    """Returns the keys of many JSON values, uint64 [n]."""
    return np.array(array.array("Q", map(key_of, many)), np.uint64)


class LineIndex:
    """Places of lines by key; of several lines with the same key, the last one counts.

    Args:
        lines: (key, place) of every line, in the order of the file.
    """

    def __init__(self, lines: Iterable[tuple[int, int]]):
        keys, places = array.array("Q"), array.array("q")
        for key, place in lines:
            keys.append(key)
            places.append(place)
        self._keys = np.array(keys, np.uint64)
        order = np.argsort(self._keys, kind="stable")
        self._keys, self._places = self._keys[order], np.array(places, np.int64)[order]

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Returns the place of each key, int64 [n]; -1 for a key without a line."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        last = np.searchsorted(self._keys, keys, side="right") - 1
        found = (last >= 0) & (self._keys[last] == keys)
        return np.where(found, self._places[last], -1)
