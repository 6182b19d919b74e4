# SPDX-License-Identifier: BSD-3-Clause
"""Finds rows of any number of manifests by name, in 24 bytes of memory a row.

The rows themselves are in a temporary file. Here a row costs a 128-bit hash of its name and its
position in that file: 0.4 GB for the 17.6 million rows of ML-Images, four times as much while they
are sorted; their temporary file has some 3 GB. Of several rows of one name the effective one is
kept: one with an image before failures, and of these the latest.
"""

import array
import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mlimages_jax.image_shards.outcome import COLUMNS, OK, Image

_DIGEST = np.dtype("S16")  # NumPy ignores zeros at the end, in both texts that it compares


def digests(names: Iterable[str]) -> np.ndarray:
    """Returns 128-bit hashes of names, S16 [N], to compare and to sort."""
    return np.frombuffer(
        b"".join(
            hashlib.blake2b(name.encode("utf-8", "backslashreplace"), digest_size=16).digest()
            for name in names
        ),
        _DIGEST,
    )


class NameSlice(NamedTuple):
    """One of several slices of all names, by their hash.

    Attributes:
        number: From 0.
        of: Number of slices.
    """

    number: int
    of: int

    def mask(self, names: Sequence[str]) -> np.ndarray:
        """Returns which of some names are in this slice: bool [N]."""
        if self.of == 1:
            return np.ones(len(names), bool)
        return digests(names).view("<u8")[::2] % self.of == self.number


ALL_NAMES = NameSlice(0, 1)


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the position of each wanted hash among sorted ones, or -1: int64 [N]."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def effective_rows(keys: np.ndarray, stored: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns which row counts of those with one key, by key: an image first, then the latest.

    Args:
        keys: S16 [N], from `digests`.
        stored: [N], 1 for rows with an image, else 0.
        times: float64 [N].

    Returns:
        int64 [number of distinct keys], positions of rows, sorted by key.
    """
    order = np.lexsort((times, stored, keys))
    ordered = keys[order]
    last = np.ones(len(order), bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]


class Index:
    """Rows by name; a context manager, for use from one thread.

    Args:
        images: Rows in any order; of those with one name the effective one is kept.

    Raises:
        OSError: The temporary file cannot be written.
    """

    def __init__(self, images: Iterable[Image]):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed by __exit__
        keys, offsets, times, stored = bytearray(), array.array("q"), array.array("d"), bytearray()
        position = 0
        for image in images:
            keys += digests([image.name]).tobytes()
            offsets.append(position)
            times.append(image.time)
            stored.append(image.status == OK)
            position += self._file.write(pickle.dumps([getattr(image, name) for name in COLUMNS]))
        self._file.flush()
        offsets.append(position)
        starts = np.frombuffer(offsets, np.int64)
        found = np.frombuffer(keys, _DIGEST)
        rows = effective_rows(found, np.frombuffer(stored, np.uint8), np.frombuffer(times))
        self._keys = found[rows]
        self._starts, self._sizes = starts[rows], starts[rows + 1] - starts[rows]

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, names: Sequence[str]) -> dict[str, Image]:
        """Returns the rows of some names; names without a row are left out."""
        return {
            name: self._row(place)
            for name, place in zip(names, find(self._keys, digests(names)).tolist(), strict=True)
            if place >= 0
        }

    def _row(self, place: int) -> Image:
        data = os.pread(self._file.fileno(), int(self._sizes[place]), int(self._starts[place]))
        return Image(**dict(zip(COLUMNS, pickle.loads(data), strict=True)))
