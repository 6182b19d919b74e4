# SPDX-License-Identifier: BSD-3-Clause
"""Chooses images of a data set, and predicts their classes, to be looked at."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.images.jpeg_encoder import encode
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.records import (
    DamagedRecordError,
    RandomAccess,
    Record,
    parse_record,
    record_at,
)
from mlimages_jax.distributed.sharding import local_rows
from mlimages_jax.evaluation.evaluate import Evaluation, Weights
from mlimages_jax.evaluation.examples_file import Example
from mlimages_jax.labels.hierarchy import Hierarchy

IMAGE_SIZE = 128  # pixels
_QUALITY = 85
_TAGS = 5  # shown per image
_LIKELY = 0.5


class PredictedImage(NamedTuple):
    """An image as it is shown.

    Attributes:
        pixels: uint8 [IMAGE_SIZE, IMAGE_SIZE, 3], RGB.
        example: The same image as JPEG, with its classes.
    """

    pixels: np.ndarray
    example: Example


def spaced(records: int, count: int) -> list[int]:
    """Returns at most `count` different positions, spaced evenly over the records."""
    return sorted(set(np.linspace(0, records - 1, count).round().astype(int).tolist()))


def predicted_images(
    evaluation: Evaluation,
    weights: Weights,
    hierarchy: Hierarchy,
    *,
    probabilities: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    positions: Sequence[int],
) -> dict[int, PredictedImage]:
    """Predicts the classes of some images; those that cannot be read are left out.

    Args:
        evaluation: Supplies the records, the view and the model.
        weights: Parameters and running statistics.
        hierarchy: Ancestors of the classes.
        probabilities: Converts logits [n, C] to probabilities [n, C].
        threshold: Minimum confidence of a true label.
        positions: Positions of the records, ascending.

    Returns:
        The images by position, in that order.
    """
    serialised = dict(_readable(evaluation.records, positions))
    if not serialised:
        return {}
    outputs = evaluation.outputs(weights, list(serialised.values()))
    logits = np.concatenate([local_rows(batch["logits"]) for batch in outputs])
    view = EvaluationView(IMAGE_SIZE, "whole")
    found = {}
    # Not strict: the last batch is padded, so there may be more rows than records.
    for (position, data), row in zip(serialised.items(), probabilities(logits), strict=False):
        record = parse_record(data)
        try:
            pixels = view(record.jpeg)
        except BadImage:
            continue
        example = Example(
            record.name,
            b"".join(encode(pixels, quality=_QUALITY, chroma="420")),
            true=_true_classes(record, hierarchy, threshold=threshold),
            predicted=_predicted_classes(record, row, hierarchy),
        )
        found[position] = PredictedImage(pixels, example)
    return found


def specific_classes(probabilities: np.ndarray, hierarchy: Hierarchy, *, count: int) -> list[int]:
    """Returns the most probable classes, best first, without ancestors of a probable class.

    Args:
        probabilities: Floats [C].
        hierarchy: A hierarchy of the C classes.
        count: Maximum number of classes to return.
    """
    implied = {
        int(ancestor)
        for i in np.flatnonzero(probabilities >= _LIKELY)
        for ancestor in hierarchy.ancestors(int(i))
    }
    # Stable, so that ties go to the lower index and a figure can be reproduced.
    ranked = np.argsort(-probabilities, kind="stable").tolist()
    return [i for i in ranked if i not in implied][:count]


def _readable(records: RandomAccess, positions: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yields the records that are not damaged; the evaluation has already counted the others."""
    for position in positions:
        try:
            record_at(records, position)
        except DamagedRecordError:
            continue
        yield position, records[position]


def _true_classes(record: Record, hierarchy: Hierarchy, *, threshold: float) -> tuple[int, ...]:
    """Returns the true classes, without ancestors of a true class."""
    confidences = np.zeros(len(hierarchy))
    confidences[record.labels] = record.confidences
    specific = specific_classes(confidences, hierarchy, count=_TAGS)
    return tuple(i for i in specific if confidences[i] >= threshold)


def _predicted_classes(
    record: Record, row: np.ndarray, hierarchy: Hierarchy
) -> tuple[tuple[int, float, bool], ...]:
    """Returns the best class and other likely ones: index, probability, whether it is true."""
    true = set(record.labels[record.confidences > 0].tolist())
    return tuple(
        (i, float(row[i]), i in true)
        for rank, i in enumerate(specific_classes(row, hierarchy, count=_TAGS))
        if rank == 0 or row[i] >= _LIKELY
    )
