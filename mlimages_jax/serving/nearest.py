# SPDX-License-Identifier: BSD-3-Clause
"""The images of an export that are most like an image, by the cosine of their features."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import logging

from mlimages_jax.data.dataset import DataSetError
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.features import FeaturesError
from mlimages_jax.features.export.components import Components
from mlimages_jax.features.export.exported import Exported, open_exported, unit_vectors
from mlimages_jax.features.export.manifest import COMPONENTS, FeatureFilesError
from mlimages_jax.files import paths
from mlimages_jax.inference.image_source import ImageSource, ImageSourceError, open_images
from mlimages_jax.inference.tagging import rounded
from mlimages_jax.inference.thumbnails import thumbnail
from mlimages_jax.serving.limits import ServingError

if TYPE_CHECKING:  # the tests of this room run without JAX
    from mlimages_jax.inference.model import Model

_THUMBNAILS = 512  # kept in memory, some kilobytes each


class Nearest(NamedTuple):
    """An image of the export.

    Attributes:
        row: Its row in the export.
        name: Its name.
        similarity: Cosine of the angle between its features and those of the query.
    """

    row: int
    name: str
    similarity: float


class NearestImages:
    """Searches the features of an export, which it holds in memory: 4 bytes a number.

    Args:
        exported: The images.
        source: Where thumbnails come from; None: there are none.
    """

    def __init__(
        self,
        exported: Exported,
        source: ImageSource | None = None,
        components: Components | None = None,
    ):
        self._exported, self._source, self._components = exported, source, components
        self._units = exported.unit(slice(None))  # [n, F]
        names = source.names if source else []
        self._positions = {names[position]: position for position in range(len(names))}
        self._names = dict(zip(exported.rows.tolist(), exported.names, strict=True))
        self.thumbnail = functools.lru_cache(_THUMBNAILS)(self._thumbnail)

    def __len__(self) -> int:
        return len(self._exported)

    def of(self, features: np.ndarray, *, k: int) -> list[list[Nearest]]:
        """Returns the k most similar images of each query, best first; ties in the export's order.

        A query whose features are not all finite, as of damaged weights, is similar to none.

        Args:
            features: [m, F], as the network gives them.
            k: Most images of a query.
        """
        if self._components:
            features = self._components.project(features)
        with np.errstate(over="ignore", invalid="ignore"):
            queries = unit_vectors(features)
        comparable = np.isfinite(queries).all(1)
        similarity = queries @ self._units.T  # [m, n]
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return [
            [self._found(int(position), float(row[position])) for position in positions if finite]
            for positions, row, finite in zip(best, similarity, comparable, strict=True)
        ]

    def _found(self, position: int, similarity: float) -> Nearest:
        exported = self._exported
        shown = min(1.0, rounded(similarity))  # rounding may exceed 1
        return Nearest(int(exported.rows[position]), exported.names[position], shown)

    def _thumbnail(self, row: int) -> bytes:
        """Returns a small JPEG of an image of the export.

        Raises:
            BadImage: There is no such image, or it is gone or damaged.
        """
        position = self._positions.get(self._names.get(row, ""))
        if self._source is None or position is None:
            raise BadImage("missing", f"there is no image for row {row}")
        return thumbnail(self._source.read(position))


def open_nearest(folder: str, model: "Model") -> NearestImages:
    """Opens an export for a model.

    Args:
        folder: Folder of the export.
        model: The model whose features are compared with it.

    Raises:
        ServingError: It is not an export of this network's features, or lacks its components.
    """
    try:
        exported = open_exported(folder, output="features")
        digest = exported.metadata.get(COMPONENTS)
        components = Components.load(folder, digest=digest) if digest else None
        _check_network(exported, model, components)
        found = NearestImages(exported, _source(exported.metadata.get("input", {})), components)
    except (FileNotFoundError, FeatureFilesError, FeaturesError) as error:
        raise ServingError(f"--features={folder}: {error}") from error
    return found


def _check_network(exported: Exported, model: "Model", components: Components | None) -> None:
    from mlimages_jax.checkpoints.weights_digest import weights_digest  # needs JAX

    theirs = exported.metadata.get("checkpoint", {}).get("weights")
    ours = weights_digest({"params": model.params, "batch_stats": model.batch_stats})
    width = model.network.stage_widths[-1]
    stored = len(components.mean) if components else exported.width
    if (theirs and theirs != ours) or stored != width:
        raise FeaturesError(
            "these are features of another network: export them with the model that is served"
        )


def _source(given: dict[str, Any]) -> ImageSource | None:
    """Opens the images that were exported; None where they are no longer."""
    path = given.get("path", "")
    try:
        if not path:
            raise FileNotFoundError("the export does not say where its images are")
        split, root = given.get("split") or None, given.get("images_root") or None
        return open_images(paths.expanded(path), split=split, images_root=root)
    except (OSError, ImageSourceError, DataSetError, paths.PathError) as error:
        logging.warning("nearest images are shown by name only: %s", error)
        return None
