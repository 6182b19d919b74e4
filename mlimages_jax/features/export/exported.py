# SPDX-License-Identifier: BSD-3-Clause
"""The images of an export that have features; features are read in blocks."""

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.export import feature_files
from mlimages_jax.features.export.parted_array import PartedArray


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """The n selected images of an export.

    Attributes:
        folder: Path or URL of the export, for messages.
        array: Array [N, F], the features of all images of the export, read on demand.
        rows: int64 [n], the rows of `array` for these images, ascending.
        names: n names; not always unique.
        labels: n texts, "" if an image has no labels.
        without: Number of images in the export that could not be read or decoded.
        metadata: Manifest of the export.
    """

    folder: str
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
        """Number of features per image, F."""
        return self.array.shape[1]

    def select(self, chosen: np.ndarray) -> "Exported":
        """Selects some of the images.

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
        """Returns features in their stored dtype, [m, F].

        Raises:
            FeaturesError: If a number is not finite.
        """
        rows = self.rows[chosen]
        values = np.asarray(self.array[rows])
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            row = int(rows[finite.argmin()])
            name = self.names[int(np.searchsorted(self.rows, row))]
            raise FeaturesError(
                f"{self.folder}: the features of row {row} ({name}) are not all finite, but no "
                "error is recorded for it: export again, in float32 if the stored type was smaller"
            )
        return values

    def plain(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Returns features, float32 [m, F]."""
        return self.stored(chosen).astype(np.float32)

    def unit(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Returns features divided by their norm, float32 [m, F]; zero rows stay zero."""
        return unit_vectors(self.stored(chosen))


def unit_vectors(values: np.ndarray) -> np.ndarray:
    """Divides rows by their norm, float32 [m, F]; zero rows stay zero."""
    values = values.astype(np.float32)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    values /= np.where(largest > 0, largest, 1)  # so that no square overflows float32
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def open_exported(folder: str | os.PathLike[str], *, output: str) -> Exported:
    """Opens an export; images without features are skipped.

    Args:
        folder: A folder written by configs/export_features.py.
        output: Name of one of its outputs, such as "features".

    Raises:
        FileNotFoundError: If there is no export.
        FeatureFilesError: If it is incomplete, or does not have the output.
        FeaturesError: If none of its images has features.
    """
    features = feature_files.open_features(folder, output=output)
    rows = np.flatnonzero(features.valid)
    if not len(rows):
        raise FeaturesError(
            f"{folder}: none of its {len(features.valid):,} images could be read: see errors.tsv"
        )
    return Exported(
        folder=os.fspath(folder).rstrip("/"),
        array=features.array,
        rows=rows,
        names=[features.names[row] for row in rows.tolist()],
        labels=[features.labels[row] for row in rows.tolist()],
        without=len(features.valid) - len(rows),
        metadata=features.metadata,
    )


def name_fractions(names: list[str], *, purpose: str) -> np.ndarray:
    """Hashes each name to a number in [0, 1), float64 [n], uniform and the same in every run.

    An image stays on its side of a split when others are added or removed, and rows with one name
    stay together.

    Args:
        names: The n names.
        purpose: Splits for different purposes are independent of each other.
    """
    digests = (hashlib.sha256(f"{purpose}\n{name}".encode()).digest() for name in names)
    # 48 bits, which a float64 holds exactly; 64 could round up to 1.
    return np.fromiter((int.from_bytes(d[:6], "big") / 2**48 for d in digests), float, len(names))
