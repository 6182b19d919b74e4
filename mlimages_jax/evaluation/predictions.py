# SPDX-License-Identifier: BSD-3-Clause
"""Draws a grid of images with their true tags and the predictions of a trained model."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from etils import epath

from mlimages_jax.data.dataset import (
    DamagedRecordError,
    RandomAccess,
    Record,
    parse_record,
    record_at,
)
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.evaluation.evaluate import Evaluation, Weights, local_rows
from mlimages_jax.evaluation.prediction_grid import save_grid
from mlimages_jax.labels.hierarchy import Hierarchy

_TAGS = 5  # shown per image
_IMAGE_SIZE = 128
_LIKELY = 0.5


def write_grid(
    path: epath.Path,
    evaluation: Evaluation,
    weights: Weights,
    hierarchy: Hierarchy,
    *,
    probabilities: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    count: int = 24,
) -> None:
    """Draws images spaced evenly over the data set, with true and predicted tags.

    Args:
        path: Path of the PNG.
        evaluation: Supplies the records, the view and the model.
        weights: Parameters and running statistics.
        hierarchy: Names and ancestors of the classes.
        probabilities: Converts logits [n, C] to probabilities [n, C].
        threshold: Minimum confidence of a true label.
        count: Number of images in the grid.
    """
    positions = np.linspace(0, len(evaluation.records) - 1, count).round().astype(int)
    serialised = list(_readable(evaluation.records, sorted(set(positions.tolist()))))
    if not serialised:
        return
    logits = np.concatenate(
        [local_rows(outputs["logits"]) for outputs in evaluation.outputs(weights, serialised)]
    )
    view = EvaluationView(_IMAGE_SIZE, "whole")
    images, true_tags, predicted_tags = [], [], []
    # Not strict: the last batch is padded, so there may be more rows than records.
    for data, row in zip(serialised, probabilities(logits), strict=False):
        record = parse_record(data)
        try:
            images.append(view(record.jpeg))
        except BadImage:
            continue
        true_tags.append(_true_names(record, hierarchy, threshold=threshold))
        true = set(record.labels[record.confidences > 0].tolist())
        predicted_tags.append(
            [
                (hierarchy.names[i], float(row[i]), i in true)
                for rank, i in enumerate(specific_classes(row, hierarchy, count=_TAGS))
                if rank == 0 or row[i] >= _LIKELY
            ]
        )
    if images:
        save_grid(path, np.stack(images), true_tags=true_tags, predicted_tags=predicted_tags)


def _readable(records: RandomAccess, positions: Sequence[int]) -> Iterator[bytes]:
    """Yields the records that are not damaged; the evaluation has already counted the others."""
    for position in positions:
        try:
            record_at(records, position)
        except DamagedRecordError:
            continue
        yield records[position]


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
    ranked = np.argsort(-probabilities, kind="stable").tolist()
    return [i for i in ranked if i not in implied][:count]


def _true_names(record: Record, hierarchy: Hierarchy, *, threshold: float) -> list[str]:
    """Returns the names of the true labels, without ancestors of a true label."""
    confidences = np.zeros(len(hierarchy))
    confidences[record.labels] = record.confidences
    specific = specific_classes(confidences, hierarchy, count=_TAGS)
    return [hierarchy.names[i] for i in specific if confidences[i] >= threshold]
