# SPDX-License-Identifier: BSD-3-Clause
"""Reads the thresholds.tsv of a checkpoint, unless it was found for other weights or classes."""

from absl import logging
from etils import epath

from mlimages_jax.checkpoints import saved_model, step_folders
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.distributed import collectives, sharding
from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.class_thresholds import ClassThresholds, ThresholdError
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
    found, problem = _judged(saved, hierarchy, positive_weight)
    if problem:
        logging.warning("NOT USED: %s", problem)
        return None
    return found


def are_in(workdir: epath.Path) -> bool:
    """Returns whether a workdir has thresholds of the weights that `load` takes from it.

    All processes must call it together. A file that is malformed has none.
    """
    folder = step_folders.chosen_by_process_0(step_folders.resolve_quietly(workdir))
    if not collectives.of_process_0(saved_model.thresholds_place(folder).exists()):
        return False
    try:
        replicated = sharding.replicated(sharding.make_mesh())
        found, problem = _judged(saved_model.read(folder, sharding=replicated), None, None)
        there = found is not None and problem is None
    except ThresholdError:
        there = False
    return collectives.of_process_0(there)


def _judged(
    saved: SavedModel, hierarchy: Hierarchy | None, positive_weight: float | None
) -> tuple[ClassThresholds | None, str | None]:
    """Returns the thresholds beside a model, and why they do not belong to it."""
    hierarchy = hierarchy or saved.hierarchy
    if saved.thresholds is None or hierarchy is None:
        return None, None
    found = class_thresholds.parse(saved.thresholds, where=saved.thresholds_file)
    if positive_weight is None:
        positive_weight = saved.usage().positive_weight
    weights = weights_digest(saved.weights)
    return found, found.problem(hierarchy, weights, positive_weight=positive_weight)
