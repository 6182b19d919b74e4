# SPDX-License-Identifier: BSD-3-Clause
"""The images of an export that have features, and their features a block at a time."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.export import feature_files
from mlimages_jax.features.export.feature_formats import PartedArray


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """n images of an export.

    Attributes:
        folder: of the export, for messages.
        array: [N, F], the features of all images of the export, read when they are asked for.
        rows: int64 [n], the rows of `array` that are these images, ascending.
        names: n of them; not always unique.
        labels: n texts, "" for none.
        without: images of the export that could not be read or decoded.
        metadata: of the export.
    """

    folder: Path
    array: np.ndarray | PartedArray
    rows: np.ndarray
    names: list[str]
    labels: list[str]
    without: int = 0
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """F."""
        return self.array.shape[1]

    def select(self, chosen: np.ndarray) -> "Exported":
        """Some of the images.

        Args:
            chosen: int64 [m], ascending positions.
        """
        return dataclasses.replace(
            self,
            rows=self.rows[chosen],
            names=[self.names[i] for i in chosen.tolist()],
            labels=[self.labels[i] for i in chosen.tolist()],
        )

    def stored(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Features as they are stored, [m, F].

        Raises:
            FeaturesError: a number is not finite.
        """
        rows = self.rows[chosen]
        values = np.asarray(self.array[rows])
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            row = int(rows[finite.argmin()])
            name = self.names[int(np.searchsorted(self.rows, row))]
            raise FeaturesError(
                f"{self.folder}: the features of row {row} ({name}) are not all finite, and no "
                "error is noted for it: export them again, in float32 if they were stored in less"
            )
        return values

    def plain(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Features, float32 [m, F]."""
        return self.stored(chosen).astype(np.float32)

    def unit(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Features divided by their length, float32 [m, F]; where all are 0 they stay 0."""
        return unit_vectors(self.stored(chosen))


def unit_vectors(values: np.ndarray) -> np.ndarray:
    """Rows divided by their length, float32 [m, F]; where all are 0 they stay 0."""
    values = values.astype(np.float32)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    values /= np.where(largest > 0, largest, 1)  # no square below can leave float32's range
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def open_exported(folder: str | os.PathLike[str], *, output: str) -> Exported:
    """Opens an export; images without features are left out.

    Args:
        folder: that configs/export_features.py wrote.
        output: which of its outputs, such as "features".

    Raises:
        FileNotFoundError: there is no export.
        FeatureFilesError: it is not complete, or lacks the output.
        FeaturesError: no image of it has features.
    """
    features = feature_files.open_features(folder, output=output)
    rows = np.flatnonzero(features.valid)
    if not len(rows):
        raise FeaturesError(
            f"{folder}: none of its {len(features.valid):,} images could be read: see errors.tsv"
        )
    return Exported(
        folder=Path(folder),
        array=features.array,
        rows=rows,
        names=[features.names[row] for row in rows.tolist()],
        labels=[features.labels[row] for row in rows.tolist()],
        without=len(features.valid) - len(rows),
        metadata=features.metadata,
    )


def name_shares(names: list[str], *, purpose: str) -> np.ndarray:
    """A number in [0, 1) for each name, float64 [n], spread evenly, the same in every run.

    An image keeps its side of a cut when others come or go, and rows of one name go together.

    Args:
        names: n of them.
        purpose: cuts for different purposes are independent of each other.
    """
    digests = (hashlib.sha256(f"{purpose}\n{name}".encode()).digest() for name in names)
    return np.fromiter((int.from_bytes(d[:6], "big") / 2**48 for d in digests), float, len(names))
