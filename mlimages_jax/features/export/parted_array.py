# SPDX-License-Identifier: BSD-3-Clause
"""Exported arrays as they are read: from many files on demand, and checked against the manifest."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlimages_jax.features.export import FeatureFilesError
from mlimages_jax.features.export.feature_formats import Layout, Storage


class PartedArray:
    """An array [N, F] stored in several parts, read on demand.

    Indices are a row, a slice, or an array of rows or booleans; `numpy.asarray` reads everything.
    The most recently read part is cached.
    """

    ndim = 2

    def __init__(self, storage: Storage, layout: Layout, output: str):
        self._storage, self._layout, self._output = storage, layout, output
        self._last: tuple[int, np.ndarray] | None = None
        self.shape = layout.images, layout.widths[output]
        self.dtype = np.dtype(layout.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, tuple):
            raise IndexError("only entire rows can be indexed: give one index, then slice the rows")
        if isinstance(rows, slice | int | np.integer):
            wanted = np.asarray(range(len(self))[rows], np.int64)
        else:
            wanted = np.asarray(rows)
            if wanted.dtype == bool:
                if wanted.shape != (len(self),):
                    raise IndexError(f"{wanted.shape} booleans for {len(self)} rows")
                (wanted,) = np.nonzero(wanted)
            wanted = np.where(wanted < 0, wanted + len(self), wanted).astype(np.int64)
        flat = wanted.reshape(-1)
        if len(flat) and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"rows from {flat.min()} to {flat.max()} of {len(self)}")
        result = np.empty((len(flat), self.shape[1]), self.dtype)
        numbers, rows_in_part = np.divmod(flat, self._layout.rows_per_part)
        by_part = np.argsort(numbers, kind="stable")
        for chosen in np.split(by_part, np.flatnonzero(np.diff(numbers[by_part])) + 1):
            if len(chosen):
                result[chosen] = self._part(int(numbers[chosen[0]]))[rows_in_part[chosen]]
        return result.reshape(*wanted.shape, self.shape[1])

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self._layout.parts):
            yield from self._part(number)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the rows are stored in several files: a copy cannot be avoided")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _part(self, number: int) -> np.ndarray:
        if self._last is None or self._last[0] != number:
            rows = self._storage.read(self._output, number)
            expected = len(self._layout.positions(number)), self.shape[1]
            if (rows.shape, rows.dtype) != (expected, self.dtype):
                raise FeatureFilesError(
                    f"part {number} of {self._output} has {rows.dtype} {rows.shape}, not "
                    f"{self.dtype} {expected}: files of two exports are mixed"
                )
            self._last = number, rows
        return self._last[1]


def check_array(path: str, array: np.ndarray, layout: Layout, output: str) -> None:
    """Checks that a file has the array that the manifest promises.

    Raises:
        FeatureFilesError: If it has another one.
    """
    expected = layout.images, layout.widths[output]
    if (array.shape, array.dtype) != (expected, np.dtype(layout.dtype)):
        raise FeatureFilesError(
            f"{path} has {array.dtype} {array.shape}, not {layout.dtype} {expected} as the "
            "manifest promises: files of two exports are mixed"
        )
