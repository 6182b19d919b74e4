# SPDX-License-Identifier: BSD-3-Clause
"""Chooses images of a data set, and predicts their classes, to be looked at."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.records import (
    DamagedRecordError,
    RandomAccess,
    parse_record,
    record_at,
)
from mlimages_jax.distributed.sharding import local_rows
from mlimages_jax.evaluation.evaluate import Evaluation, Weights
from mlimages_jax.evaluation.examples_file import Example
from mlimages_jax.evaluation.shown_classes import predicted_classes, true_classes
from mlimages_jax.evaluation.thumbnails import as_jpeg, thumbnail
from mlimages_jax.labels.hierarchy import Hierarchy


class PredictedImage(NamedTuple):
    """An image as it is shown.

    Attributes:
        pixels: uint8 [thumbnails.SIZE, thumbnails.SIZE, 3], RGB.
        example: The same image as JPEG, with its classes.
    """

    pixels: np.ndarray
    example: Example


def predicted_images(
    evaluation: Evaluation,
    weights: Weights,
    hierarchy: Hierarchy,
    *,
    probabilities: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    limits: np.ndarray | None,
    positions: Sequence[int],
) -> dict[int, PredictedImage]:
    """Predicts the classes of some images; those that cannot be read are left out.

    Args:
        evaluation: Supplies the records, the view and the model.
        weights: Parameters and running statistics.
        hierarchy: Ancestors of the classes.
        probabilities: Converts logits [n, C] to probabilities [n, C].
        threshold: Minimum confidence of a true label.
        limits: Floats [C], minimum probability of a predicted class; None to predict only the most
            probable class.
        positions: Positions of the records, ascending.

    Returns:
        The images by position, in that order.
    """
    serialised = dict(_readable(evaluation.records, positions))
    if not serialised:
        return {}
    outputs = evaluation.outputs(weights, list(serialised.values()))
    logits = np.concatenate([local_rows(batch["logits"]) for batch in outputs])
    found = {}
    # Not strict: the last batch is padded, so there may be more rows than records.
    for (position, data), row in zip(serialised.items(), probabilities(logits), strict=False):
        record = parse_record(data)
        try:
            pixels = thumbnail(record.jpeg)
        except BadImage:
            continue
        example = Example(
            record.name,
            as_jpeg(pixels),
            true=true_classes(record, hierarchy, threshold=threshold),
            predicted=predicted_classes(record, row, hierarchy, limits=limits),
        )
        found[position] = PredictedImage(pixels, example)
    return found


def _readable(records: RandomAccess, positions: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yields the records that are not damaged; the evaluation has already counted the others."""
    for position in positions:
        try:
            record_at(records, position)
        except DamagedRecordError:
            continue
        yield position, records[position]
