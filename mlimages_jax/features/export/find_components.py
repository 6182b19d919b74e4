# SPDX-License-Identifier: BSD-3-Clause
"""Which principal components an export stores: its own from a sample, or those of another export.

All processes of an export call these functions together.
"""

from collections.abc import Callable

import jax
import numpy as np
from absl import logging

from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.distributed import collectives, preemption
from mlimages_jax.features.export import FeatureFilesError
from mlimages_jax.features.export.components import FILE, Components, Moments
from mlimages_jax.features.export.manifest import COMPONENTS, read_manifest
from mlimages_jax.files import paths
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.inference.batch_predict import Predictions
from mlimages_jax.settings import Export, build

OUTPUT = "features"  # the only output that is shortened


def check_settings(config: Export, *, width: int) -> None:
    """Checks the settings of components against the network.

    Args:
        config: Settings of the task.
        width: Number of features of the network.

    Raises:
        ConfigError: If they cannot be used.
    """
    if not config.components:
        if config.components_of:
            raise build.ConfigError(
                f"components_of={config.components_of!r} is used with components=K, for the first "
                "K of that export"
            )
        return
    if OUTPUT not in config.outputs:
        raise build.ConfigError(
            f"components={config.components} shortens the output {OUTPUT}, which is not among "
            f"outputs={config.outputs}"
        )
    if config.components > width:
        raise build.ConfigError(f"components={config.components}: the network has {width} features")


def of_another_export(config: Export, saved: SavedModel, *, width: int) -> Components | None:
    """Reads the components of the export that `components_of` names, if it does.

    Raises:
        ConfigError: If they are of another network or fewer than wanted.
        FileNotFoundError, FeatureFilesError: If there is no such export, or it has none.
    """
    if not config.components_of:
        return None
    folder = paths.expanded(config.components_of)
    manifest = read_manifest(folder)
    weights = manifest.get("checkpoint", {}).get("weights")
    if weights != weights_digest(saved.weights):
        raise build.ConfigError(
            f"components_of={folder!r} has features of another network: export both with the same"
        )
    found = Components.load(folder, digest=manifest.get(COMPONENTS))
    if len(found.axes) < config.components or len(found.mean) != width:
        raise build.ConfigError(
            f"components={config.components}: {folder} has {len(found.axes)} of "
            f"{len(found.mean)} features"
        )
    return found.first(config.components)


def kept_in(
    folder: str,
    taken: Components | None,
    config: Export,
    predict: Callable[[np.ndarray], Predictions],
    *,
    images: int,
    started: bool,
) -> Components:
    """Returns the components in an export's folder, after putting them there if they are missing.

    Args:
        folder: Folder of the export.
        taken: Components of another export, or None to find them.
        config: Settings of the task.
        predict: Computes the features of images at some positions.
        images: Number of images in the input.
        started: Whether rows are already stored.

    Raises:
        FeatureFilesError: If rows were stored with components that are gone.
        ConfigError: If there are not enough images.
    """
    place = ObjectFolder(folder)
    if not collectives.of_process_0(FILE in place.sizes()):
        if started:
            raise FeatureFilesError(
                f"{place.path(FILE)} is missing, with which the stored parts were computed: "
                "restore it, or give another --workdir"
            )
        if taken is None:
            taken = _found(config, predict, images)
        if jax.process_index() == 0:
            taken.save(folder)
        collectives.barrier("components are stored")
    # Read by all: numbers found on machines of two kinds could differ in the last bits.
    return Components.load(folder)


def _found(config: Export, predict: Callable[[np.ndarray], Predictions], images: int) -> Components:
    """Finds components on images at equal distances in the order of the input."""
    number = min(config.components_images, images)
    positions = np.unique(np.linspace(0, images - 1, number).round().astype(np.int64))
    logging.info("finding %d components on %d images", config.components, len(positions))
    predictions = predict(positions)
    moments = Moments(*predictions.row_shapes[OUTPUT])
    for rows in predictions:
        moments.add(rows.outputs[OUTPUT])
        preemption.check()
    try:
        found = _of_all_processes(moments).components(config.components)
    except ValueError as error:
        raise build.ConfigError(str(error)) from error
    logging.info(
        "%d components explain %.1f%% of the variance of %d images",
        len(found.axes), 100 * found.explained.sum(), found.images,
    )  # fmt: skip
    return found


def _of_all_processes(own: Moments) -> Moments:
    """Merges what the processes have seen, in their order."""
    if jax.process_count() == 1:
        return own
    # As pairs of 32 bits, the most that devices pass on exactly.
    halves = [
        np.atleast_1d(np.asarray(part, np.float64)).view(np.uint32)
        for part in (own.count, own.mean, own.scatter)
    ]
    counts, means, scatters = (
        np.ascontiguousarray(part).view(np.float64) for part in collectives.gathered(halves)
    )
    total = Moments(len(own.mean))
    for count, mean, scatter in zip(counts, means, scatters, strict=True):
        part = Moments(len(own.mean))
        part.count, part.mean, part.scatter = int(count[0]), mean, scatter
        total.merge(part)
    return total
