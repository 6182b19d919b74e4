# SPDX-License-Identifier: BSD-3-Clause
"""Chooses the classes that are shown with an image, the most specific ones. NumPy only."""

import numpy as np

from mlimages_jax.data.records import Record
from mlimages_jax.labels.hierarchy import Hierarchy

_TAGS = 5  # shown per image
_LIKELY = 0.5


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


def true_classes(record: Record, hierarchy: Hierarchy, *, threshold: float) -> tuple[int, ...]:
    """Returns the true classes, without ancestors of a true class.

    Args:
        record: The image.
        hierarchy: The classes.
        threshold: Minimum confidence of a true class.
    """
    confidences = np.zeros(len(hierarchy))
    confidences[record.labels] = record.confidences
    specific = specific_classes(confidences, hierarchy, count=_TAGS)
    return tuple(i for i in specific if confidences[i] >= threshold)


def predicted_classes(
    record: Record, probabilities: np.ndarray, hierarchy: Hierarchy
) -> tuple[tuple[int, float, bool], ...]:
    """Returns the best class and other likely ones: index, probability, whether it is true.

    Args:
        record: The image.
        probabilities: Floats [C].
        hierarchy: The classes.
    """
    # Any positive confidence: a doubtful label must not make its prediction a false alarm.
    true = set(record.labels[record.confidences > 0].tolist())
    return tuple(
        (i, float(probabilities[i]), i in true)
        for rank, i in enumerate(specific_classes(probabilities, hierarchy, count=_TAGS))
        if rank == 0 or probabilities[i] >= _LIKELY
    )
