# SPDX-License-Identifier: BSD-3-Clause
"""Chooses the classes that are shown with an image, the most specific ones. NumPy only."""

import numpy as np

from mlimages_jax.data.records import Record
from mlimages_jax.labels.hierarchy import Hierarchy

_TAGS = 5  # shown per image
_LIKELY = 0.5  # from which value on a class hides its ancestors


def specific_classes(probabilities: np.ndarray, hierarchy: Hierarchy, *, count: int) -> list[int]:
    """Returns the most probable classes, best first, without ancestors of a probable class.

    Args:
        probabilities: Floats [C].
        hierarchy: A hierarchy of the C classes.
        count: Maximum number of classes to return.
    """
    implied = _ancestors(probabilities >= _LIKELY, hierarchy)
    return [i for i in _ranked(probabilities) if i not in implied][:count]


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
    record: Record,
    probabilities: np.ndarray,
    hierarchy: Hierarchy,
    *,
    limits: np.ndarray | None,
) -> tuple[tuple[int, float, bool], ...]:
    """Returns the predicted classes, best first: index, probability, whether it is true.

    Args:
        record: The image.
        probabilities: Floats [C].
        hierarchy: The classes.
        limits: Floats [C], from which probability on each class is predicted; ancestors of a
            predicted class are left out. None to predict only the most probable class.
    """
    # Any positive confidence: a doubtful label must not make its prediction a false alarm.
    true = set(record.labels[record.confidences > 0].tolist())
    if limits is None:
        found = specific_classes(probabilities, hierarchy, count=1)
    else:
        # As tags do: float32 0.7 is below float64 0.7.
        reach = probabilities >= limits.astype(probabilities.dtype)
        implied = _ancestors(reach, hierarchy)
        found = [i for i in _ranked(probabilities) if reach[i] and i not in implied][:_TAGS]
    return tuple((i, float(probabilities[i]), i in true) for i in found)


def _ancestors(chosen: np.ndarray, hierarchy: Hierarchy) -> set[int]:
    """Returns all ancestors of the chosen classes, which are bool [C]."""
    return {
        int(ancestor) for i in np.flatnonzero(chosen) for ancestor in hierarchy.ancestors(int(i))
    }


def _ranked(probabilities: np.ndarray) -> list[int]:
    # Stable, so that ties go to the lower index and a figure can be reproduced.
    return np.argsort(-probabilities, kind="stable").tolist()
