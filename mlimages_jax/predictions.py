# SPDX-License-Identifier: BSD-3-Clause
"""What a trained model says, for people: a grid of pictures with tags, a table of the classes."""

import numpy as np
from etils import epath

from mlimages_jax.data.decode import BadPicture
from mlimages_jax.data.pipeline import EvaluationView
from mlimages_jax.data.sources import Record, parse_record
from mlimages_jax.evaluate import Evaluation, local_rows
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.losses import calibrated_probability
from mlimages_jax.metrics import MultiLabelMetrics
from mlimages_jax.predictions_grid import save_grid
from mlimages_jax.state import TrainState

_TAGS = 5  # shown of each picture
_PICTURE_SIZE = 128
_LIKELY = 0.5


def write_grid(
    path: epath.Path,
    evaluation: Evaluation,
    state: TrainState,
    hierarchy: Hierarchy,
    *,
    count: int = 24,
    positive_weight: float = 1.0,
) -> None:
    """Draws pictures of the set, evenly spaced over it, with true and predicted tags.

    Args:
        path: of the PNG.
        evaluation: its records, view and model are used.
        state: holds the parameters.
        hierarchy: names and depths of the classes.
        count: pictures in the grid.
        positive_weight: of the training loss, to turn logits into probabilities.
    """
    places = np.linspace(0, len(evaluation.records) - 1, count).round().astype(int)
    serialised = [evaluation.records[i] for i in sorted(set(places.tolist()))]
    logits = np.concatenate(
        [local_rows(outputs["logits"]) for outputs in evaluation.outputs(state, serialised)]
    )
    probabilities = calibrated_probability(logits, positive_weight=positive_weight)
    view = EvaluationView(_PICTURE_SIZE, "whole")
    images, true_tags, predicted_tags = [], [], []
    for data, row in zip(serialised, probabilities, strict=False):  # the last batch is filled up
        record = parse_record(data)
        try:
            images.append(view(record.jpeg))
        except BadPicture:
            continue
        true_tags.append(_true_names(record, hierarchy, threshold=evaluation.threshold))
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


def write_per_class_table(
    path: epath.Path, metrics: MultiLabelMetrics, hierarchy: Hierarchy
) -> None:
    """Writes class, WordNet id, depth, average precision and name, tab-separated, best first.

    Classes without a positive picture have an empty average precision and come last.
    """
    precision = metrics.per_class_ap()
    lines = ["class\tid\tdepth\taverage_precision\tname\n"]
    for i in np.argsort(-np.nan_to_num(precision, nan=-1), kind="stable"):
        value = "" if np.isnan(precision[i]) else f"{precision[i]:.4f}"
        lines.append(
            f"{i}\t{hierarchy.ids[i]}\t{hierarchy.depth[i]}\t{value}\t{hierarchy.names[i]}\n"
        )
    path.write_text("".join(lines))


def _true_names(record: Record, hierarchy: Hierarchy, *, threshold: float) -> list[str]:
    """Names of the true labels, without those that a true descendant already says."""
    confidences = np.zeros(len(hierarchy))
    confidences[record.labels] = record.confidences
    specific = specific_classes(confidences, hierarchy, count=_TAGS)
    return [hierarchy.names[i] for i in specific if confidences[i] >= threshold]
