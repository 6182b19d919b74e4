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

from mlimages_jax.features.export import FeatureFilesError
from mlimages_jax.files.object_folder import ObjectFolder

FILE = "components.npz"
_ROUNDING = 1e-14  # of a mean in float64, relative


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
        with ObjectFolder(folder).creating(FILE) as path, path.open("wb") as file:
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
            OSError: If it cannot be read.
        """
        place = ObjectFolder(folder)
        name = place.path(FILE)
        try:
            with place.local_copy(FILE) as path:
                found = cls._read(path)
        except FileNotFoundError as error:
            raise FeatureFilesError(
                f"{folder} contains no {FILE}: it is not an export with --config.components"
            ) from error
        except Exception as error:  # damage makes zipfile and NumPy raise any type
            if isinstance(error, OSError) and error.errno is not None:  # not of what is in it
                raise
            raise FeatureFilesError(f"{name} is damaged ({error}): export again") from error
        if digest not in (None, found.digest):
            raise FeatureFilesError(f"{name} is not the file that was exported with: restore it")
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
    """Mean and scatter of features in float64, from which components are found.

    Blocks are merged by their means (Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979). Sums of squares would lose the digits of
    features that are far from zero.

    Args:
        width: Number of features per image, F.

    Attributes:
        count: Number of images.
        mean: float64 [F], their mean.
        scatter: float64 [F, F], the sum of (x - mean)(x - mean)'.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean = np.zeros(width)
        self.scatter = np.zeros((width, width))

    def add(self, features: np.ndarray) -> None:
        """Adds images, [n, F]; rows with nan are left out."""
        rows = features[np.isfinite(features).all(1)].astype(np.float64)
        if not len(rows):
            return
        block = Moments(len(self.mean))
        block.count, block.mean = len(rows), rows.mean(0)
        rows -= block.mean
        block.scatter = rows.T @ rows
        self.merge(block)

    def merge(self, other: "Moments") -> None:
        """Adds the images of another one."""
        if not other.count:
            return
        count = self.count + other.count
        apart = other.mean - self.mean
        self.scatter += other.scatter + np.outer(apart, apart) * (self.count * other.count / count)
        self.mean += apart * (other.count / count)
        self.count = count

    def components(self, number: int) -> Components:
        """Returns the components of everything that was added.

        Raises:
            ValueError: If there are not more images than components, or fewer features.
        """
        if number > len(self.mean):
            raise ValueError(f"components={number}: the images have {len(self.mean)} features")
        if self.count <= number:
            raise ValueError(
                f"components={number} cannot be found with {self.count} readable images: take "
                "fewer components, or more images for them"
            )
        variances, vectors = np.linalg.eigh(self.scatter / self.count)  # ascending
        axes = vectors.T[::-1][:number]
        # Eigenvectors have no sign of their own: without a rule it changes with the library.
        largest = np.abs(axes).argmax(1)
        axes = axes * np.sign(axes[np.arange(number), largest])[:, None]
        total = float(np.trace(self.scatter)) / self.count
        # Equal images leave a variance that is only the rounding of their mean.
        varied = total > (_ROUNDING * float(np.linalg.norm(self.mean))) ** 2
        explained = np.maximum(variances[::-1][:number], 0) / (total if varied else np.inf)
        axes, mean = axes.astype(np.float32), self.mean.astype(np.float32)
        return Components(mean, axes, explained, self.count)
