# SPDX-License-Identifier: BSD-3-Clause
"""Principal components of features, which shorten them for search and storage.

They are found on a sample of the images (Pearson 1901; the eigenvectors of the sample's covariance)
and kept in the export's folder, so that other images can be brought to the same numbers.
"""

import dataclasses
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np

from mlimages_jax.features.export.manifest import FeatureFilesError
from mlimages_jax.files.atomic import complete_file

FILE = "components.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Components:
    """The K directions of the largest variance, ordered by it.

    Attributes:
        mean: float32 [F], the mean of the sample's features.
        axes: float32 [K, F], orthonormal rows.
        explained: float64 [K], the fraction of the sample's variance along each axis.
        images: Number of images in the sample.
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: np.ndarray
    images: int

    def project(self, features: np.ndarray) -> np.ndarray:
        """Returns coordinates along the axes, float32 [n, K], of features [n, F].

        Distances between images are kept as far as the K axes explain them. Cosines are taken from
        the sample's mean, no longer from zero. Rows with nan become nan.

        Raises:
            ValueError: If the features have another width.
        """
        if features.shape[1] != len(self.mean):
            raise ValueError(f"{features.shape[1]} features an image, not {len(self.mean)}")
        with np.errstate(invalid="ignore"):  # nan marks images that could not be read
            return (features.astype(np.float32) - self.mean) @ self.axes.T

    def first(self, number: int) -> "Components":
        """Returns the first `number` axes, which are those of a fit with fewer axes."""
        return dataclasses.replace(self, axes=self.axes[:number], explained=self.explained[:number])

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers; equal digests mean that projected features are comparable."""
        parts = (np.ascontiguousarray(part, "<f4").tobytes() for part in (self.mean, self.axes))
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the file atomically."""
        with complete_file(Path(folder) / FILE) as path, path.open("wb") as file:
            np.savez(
                file, mean=self.mean, axes=self.axes, explained=self.explained,
                images=np.int64(self.images),
            )  # fmt: skip

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, digest: str | None = None) -> "Components":
        """Reads the components of an export.

        Args:
            folder: Folder of the export.
            digest: What its manifest says of them; None: it says nothing.

        Raises:
            FeatureFilesError: If the export has none, or the file is damaged or another one.
        """
        path = Path(folder) / FILE
        try:
            found = cls._read(path)
        except FileNotFoundError as error:
            raise FeatureFilesError(
                f"{folder} contains no {FILE}: it is not an export with --config.components"
            ) from error
        except Exception as error:  # damage makes zipfile and NumPy raise any type
            raise FeatureFilesError(f"{path} is damaged ({error}): export again") from error
        if digest not in (None, found.digest):
            raise FeatureFilesError(f"{path} is not the file that was exported with: restore it")
        return found

    @classmethod
    def _read(cls, path: Path) -> "Components":
        with zipfile.ZipFile(path) as archive:
            # `save` compresses nothing, so more than the file holds is a bomb.
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("it would unpack to more than it is")
        with np.load(path, allow_pickle=False) as arrays:
            mean, axes, explained, images = (
                arrays[name] for name in ("mean", "axes", "explained", "images")
            )
        if axes.ndim != 2 or mean.shape != axes.shape[1:] or explained.shape != axes.shape[:1]:
            raise ValueError(f"axes {axes.shape}, mean {mean.shape}, explained {explained.shape}")
        numbers = mean, axes, explained
        if any(part.dtype.kind != "f" or not np.isfinite(part).all() for part in numbers):
            raise ValueError("not all of it are finite floats")
        return cls(mean.astype(np.float32), axes.astype(np.float32), explained, int(images))


class Moments:
    """Sums over features, from which components are found; float64, so their order hardly counts.

    Args:
        width: Number of features per image, F.
    """

    def __init__(self, width: int):
        self.count = 0
        self.sum = np.zeros(width)
        self.products = np.zeros((width, width))

    def add(self, features: np.ndarray) -> None:
        """Adds images, [n, F]; rows with nan are left out."""
        rows = features[np.isfinite(features).all(1)].astype(np.float64)
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.products += rows.T @ rows

    def components(self, number: int) -> Components:
        """Returns the components of everything that was added.

        Raises:
            ValueError: If there are not more images than components.
        """
        if self.count <= number:
            raise ValueError(
                f"components={number} cannot be found with {self.count} readable images: take "
                "fewer components, or more images for them"
            )
        mean = self.sum / self.count
        covariance = self.products / self.count - np.outer(mean, mean)
        variances, vectors = np.linalg.eigh(covariance)  # ascending
        axes = vectors.T[::-1][:number]
        # Eigenvectors have no sign of their own: without a rule it changes with the library.
        largest = np.abs(axes).argmax(1)
        axes = axes * np.sign(axes[np.arange(number), largest])[:, None]
        total = float(np.trace(covariance))
        # Equal images leave a variance that is only rounding.
        varied = total > 1e-12 * float(np.trace(self.products)) / self.count
        explained = np.maximum(variances[::-1][:number], 0) / (total if varied else np.inf)
        return Components(mean.astype(np.float32), axes.astype(np.float32), explained, self.count)
