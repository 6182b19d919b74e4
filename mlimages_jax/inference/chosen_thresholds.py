# SPDX-License-Identifier: BSD-3-Clause
"""Chooses the thresholds of tags: those given, else those found for the model, else none."""

import os
from collections.abc import Callable
from typing import Final

from absl import logging

from mlimages_jax.checkpoints import own_thresholds
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.files.text_files import TextFileError, read_text
from mlimages_jax.inference.tagging import ThresholdError, Thresholds
from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.class_thresholds import ClassThresholds
from mlimages_jax.labels.hierarchy import Hierarchy

NONE: Final = "none"  # turns the thresholds of the model off


def of_model(
    saved: SavedModel, hierarchy: Hierarchy | None, *, loss: str, positive_weight: float
) -> ClassThresholds | None:
    """Returns the thresholds found for a model, and says in the log that they will be used.

    Args:
        saved: The model.
        hierarchy: Its classes.
        loss: Its loss; with softmax the most probable class needs no threshold.
        positive_weight: Weight that calibrates its probabilities.

    Raises:
        ThresholdError: Their file is malformed.
    """
    if loss in ("softmax", ""):
        return None
    found = own_thresholds.thresholds_of(saved, hierarchy, positive_weight=positive_weight)
    if found:
        logging.info("tags must reach the thresholds of %s; thresholds=none turns them off", found)
    return found


def for_tags(
    own: ClassThresholds | None,
    hierarchy: Hierarchy,
    *,
    threshold: float | None,
    thresholds: Thresholds | None,
    weights: Callable[[], str],
    positive_weight: float,
) -> Thresholds | None:
    """Returns the thresholds by class that `tagging.class_limits` takes.

    Args:
        own: Those found for the model, used if neither of the next two is given.
        hierarchy: The classes of the model.
        threshold: Given minimum of all classes.
        thresholds: Given minimums by class, a file of them, or NONE.
        weights: Returns the digest of the model's weights.
        positive_weight: Weight that calibrates the model's probabilities.

    Raises:
        ThresholdError: The file was found for another model.
    """
    if thresholds is None:
        if own is None or threshold is not None:
            return None
        return dict(enumerate(own.of(hierarchy).tolist()))
    if thresholds == NONE:
        return None
    if isinstance(thresholds, str | os.PathLike):
        _check_file(thresholds, hierarchy, weights, positive_weight)
    return thresholds


def _check_file(
    path: str | os.PathLike[str],
    hierarchy: Hierarchy,
    weights: Callable[[], str],
    positive_weight: float,
) -> None:
    try:
        text = read_text(path)
    except TextFileError as error:
        raise ThresholdError(str(error)) from error
    if not class_thresholds.is_one(text):
        return  # lines of a class and a number, which say nothing of a model
    found = class_thresholds.parse(text, where=os.fspath(path))
    if problem := found.problem(hierarchy, weights(), positive_weight=positive_weight):
        raise ThresholdError(problem)
