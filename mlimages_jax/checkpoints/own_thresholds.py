# SPDX-License-Identifier: BSD-3-Clause
"""Reads the thresholds.tsv of a checkpoint, unless it was found for other weights or classes."""

from absl import logging

from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.class_thresholds import ClassThresholds
from mlimages_jax.labels.hierarchy import Hierarchy


def thresholds_of(
    saved: SavedModel,
    hierarchy: Hierarchy | None = None,
    *,
    positive_weight: float | None = None,
) -> ClassThresholds | None:
    """Returns the thresholds that were found for a model; None if there are none.

    Thresholds of other weights or classes are ignored with a warning: the run may have continued
    since they were found.

    Args:
        saved: The model.
        hierarchy: Its classes; None for those that were saved with it.
        positive_weight: Weight that calibrates its probabilities; None for the training's.

    Raises:
        ThresholdError: The file is malformed.
    """
    hierarchy = hierarchy or saved.hierarchy
    if saved.thresholds is None or hierarchy is None:
        return None
    found = class_thresholds.parse(saved.thresholds, where=saved.thresholds_file)
    if positive_weight is None:
        positive_weight = saved.usage().positive_weight
    problem = found.problem(
        hierarchy, weights_digest(saved.weights), positive_weight=positive_weight
    )
    if problem:
        logging.warning("NOT USED: %s", problem)
        return None
    return found
