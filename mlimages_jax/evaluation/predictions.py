# SPDX-License-Identifier: BSD-3-Clause
"""What a trained model says of images, for people: a grid of them with their tags."""

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

_TAGS = 5  # shown of each image
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
    """Draws images of the set, evenly spaced over it, with true and predicted tags.

    Args:
        path: of the PNG.
        evaluation: its records, view and model are used.
        weights: parameters and running statistics.
        hierarchy: names and depths of the classes.
        probabilities: of logits [n, C].
        threshold: the confidence from which a label is true.
        count: images in the grid.
    """
    places = np.linspace(0, len(evaluation.records) - 1, count).round().astype(int)
    serialised = list(_readable(evaluation.records, sorted(set(places.tolist()))))
    if not serialised:
        return
    logits = np.concatenate(
        [local_rows(outputs["logits"]) for outputs in evaluation.outputs(weights, serialised)]
    )
    view = EvaluationView(_IMAGE_SIZE, "whole")
    images, true_tags, predicted_tags = [], [], []
    for data, row in zip(
        serialised, probabilities(logits), strict=False
    ):  # the last batch is filled up
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


def _readable(records: RandomAccess, places: Sequence[int]) -> Iterator[bytes]:
    """Those of the records that are not damaged; the evaluation has counted the others."""
    for place in places:
        try:
            record_at(records, place)
        except DamagedRecordError:
            continue
        yield records[place]


def specific_classes(probabilities: np.ndarray, hierarchy: Hierarchy, *, count: int) -> list[int]:
    """The likeliest classes, best first, without those that a likely descendant already says.

    Args:
        probabilities: float [C].
        hierarchy: of the C classes.
        count: how many to return.
    """
    said = {
        int(ancestor)
        for i in np.flatnonzero(probabilities >= _LIKELY)
        for ancestor in hierarchy.ancestors(int(i))
    }
    ranked = np.argsort(-probabilities, kind="stable").tolist()
    return [i for i in ranked if i not in said][:count]


def _true_names(record: Record, hierarchy: Hierarchy, *, threshold: float) -> list[str]:
    """Names of the true labels, without those that a true descendant already says."""
    confidences = np.zeros(len(hierarchy))
    confidences[record.labels] = record.confidences
    specific = specific_classes(confidences, hierarchy, count=_TAGS)
    return [hierarchy.names[i] for i in specific if confidences[i] >= threshold]
