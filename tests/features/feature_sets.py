# SPDX-License-Identifier: BSD-3-Clause
"""Exported features made from arrays: in memory, or as folders of any format."""

from pathlib import Path

import numpy as np

from mlimages_jax.features.export.exported import Exported
from mlimages_jax.features.export.feature_formats import Layout, Part
from mlimages_jax.features.export.feature_writer import FeatureWriter


def in_memory(array, *, names=None, labels=None) -> Exported:
    """Images 0.jpg, 1.jpg, ... with these features."""
    array = np.asarray(array, np.float32)
    count = len(array)
    return Exported(
        folder="memory",
        array=array,
        rows=np.arange(count),
        names=names or [f"{i}.jpg" for i in range(count)],
        labels=labels or [""] * count,
    )


def write_export(
    folder: Path,
    array,
    *,
    names=None,
    labels=None,
    errors=None,
    file_format="npy",
    dtype="float32",
    components=None,
) -> Path:
    """A folder as configs/export_features.py leaves it; `errors` by row."""
    array = np.array(components.project(np.asarray(array)) if components else array, dtype)
    count, width = array.shape
    names = names or [f"{i}.jpg" for i in range(count)]
    texts = labels or [""] * count
    errors = errors or {}
    array[list(errors)] = np.nan
    layout = Layout(count, 7, {"features": width}, dtype, labels=labels is not None)
    writer = FeatureWriter(folder, layout, file_format, {"view": {"size": 32}})
    writer.begin()
    for number in range(layout.parts):
        part = slice(*(layout.positions(number)[0], layout.positions(number)[-1] + 1))
        wrong = [errors.get(row, "") for row in layout.positions(number)]
        writer.write(Part(number, names[part], texts[part], wrong, {"features": array[part]}))
    writer.wait()
    if components:
        components.save(folder)
    writer.finish(speed={}, components=components.digest if components else None)
    return folder


def random_features(count: int, width: int, *, seed: int = 0) -> np.ndarray:
    """As those of a network with ReLU: not negative, many of them 0, but no row as a whole."""
    rows = np.maximum(np.random.default_rng(seed).normal(size=(count, width)), 0)
    rows[:, 0] += 0.1
    return rows.astype(np.float32)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All of them, in float64."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return first @ second.T


class Watched:
    """An array that remembers the longest piece read."""

    def __init__(self, array):
        self._array, self.shape, self.longest = array, array.shape, 0

    def __getitem__(self, rows):
        self.longest = max(self.longest, len(rows))
        return self._array[rows]
