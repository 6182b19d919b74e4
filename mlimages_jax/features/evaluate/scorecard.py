# SPDX-License-Identifier: BSD-3-Clause
"""Metrics of class scores, for classifiers that do not know all classes."""

from typing import NamedTuple

import numpy as np

from mlimages_jax.features.evaluate.labelled import SparseLabels
from mlimages_jax.metrics.multi_label import MultiLabelMetrics, judge
from mlimages_jax.metrics.single_label import SingleLabelMetrics

_EXACT_BYTES = 4 << 30  # limit of scores and states, 5 bytes each, for the exact mAP
_NOBODY = np.float32(-1e30)  # below any score, but finite, as the metrics require


class LabelRules(NamedTuple):
    """The rules by which labels become positives, negatives and ignored classes.

    Attributes:
        single: Whether each image has exactly one class.
        threshold: Minimum confidence of a positive class, for several classes per image.
        missing_labels: Target of classes missing from an image's labels: 0 (absent) or -1
            (unknown).
    """

    single: bool
    threshold: float
    missing_labels: float

    def states(self, labels: SparseLabels, rows: np.ndarray) -> np.ndarray:
        """Returns which classes are positive (1), negative (0) or neither (-1), int8 [r, C].

        Args:
            labels: Labels of n images.
            rows: int64 [r], indices of some of these images.
        """
        targets = labels.targets(rows, missing_labels=self.missing_labels)
        return judge(targets, targets, None, threshold=self.threshold)[1]


class Scorecard:
    """Accumulates the metrics of images with one class or several.

    A class that cannot be predicted has the score -inf. If fewer classes have scores than the
    metrics rank, such a class must not count as predicted just because its index is low. So
    dummy classes that no image has are put in front, with the lowest score, to fill these ranks.

    Args:
        labels: Labels of the images.
        rules: How labels count.
    """

    def __init__(self, labels: SparseLabels, rules: LabelRules):
        self._labels, self._rules = labels, rules
        self._metrics: SingleLabelMetrics | MultiLabelMetrics
        self._places = 5 if rules.single else 10  # the deepest ranks of the metrics: top-5, at 10
        count = self._places + labels.num_classes
        if rules.single:
            self._metrics = SingleLabelMetrics(count)
        else:
            exact = 5 * len(labels) * count <= _EXACT_BYTES
            self._metrics = MultiLabelMetrics(count, threshold=rules.threshold, exact=exact)

    def update(self, rows: np.ndarray, scores: np.ndarray) -> None:
        """Counts some images.

        Args:
            rows: int64 [r], indices of the images.
            scores: Floats [r, C], logits; -inf where a class cannot be predicted.
        """
        targets = self._labels.targets(rows, missing_labels=self._rules.missing_labels)
        front = (0, 0), (self._places, 0)
        scores = np.where(np.isneginf(scores), _NOBODY, scores)
        self._metrics.update(np.pad(scores, front, constant_values=_NOBODY), np.pad(targets, front))

    def compute(self) -> dict[str, float]:
        """Returns all metrics by name."""
        return self._metrics.compute()
