# SPDX-License-Identifier: BSD-3-Clause
"""How good scores of classes are, where a classifier does not know all classes."""

from typing import NamedTuple

import numpy as np

from mlimages_jax.features.evaluate.labelled import Labels
from mlimages_jax.metrics.multi_label import MultiLabelMetrics, judge
from mlimages_jax.metrics.single_label import SingleLabelMetrics

_EXACT_BYTES = 4 << 30  # scores and states, 5 bytes each, up to which the exact mAP keeps them all
_NOBODY = np.float32(-1e30)  # below any score, and finite as metrics want it


class Judging(NamedTuple):
    """How labels count.

    Attributes:
        single: whether each image has one class.
        threshold: the confidence from which one of many classes is positive.
        unlisted: the target of a class that an image does not list: 0, absent, or -1, unknown.
    """

    single: bool
    threshold: float
    unlisted: float

    def states(self, labels: Labels, rows: np.ndarray) -> np.ndarray:
        """Which classes are positive (1), negative (0) or neither (-1), int8 [r, C].

        Args:
            labels: of n images.
            rows: int64 [r], some of them.
        """
        targets = labels.targets(rows, unlisted=self.unlisted)
        return judge(targets, targets, None, threshold=self.threshold)[1]


class Scorecard:
    """Metrics of images with one class or many; an accumulator.

    A class that cannot be predicted has the score -inf. Where fewer classes have scores than are
    looked at, such a class must not count as predicted only because of its number: so there are
    classes in front that no image has, with the lowest score of all, which take the places.

    Args:
        labels: of the images.
        judging: how they count.
    """

    def __init__(self, labels: Labels, judging: Judging):
        self._labels, self._judging = labels, judging
        self._metrics: SingleLabelMetrics | MultiLabelMetrics
        self._places = 5 if judging.single else 10
        count = self._places + labels.num_classes
        if judging.single:
            self._metrics = SingleLabelMetrics(count)
        else:
            exact = 5 * len(labels) * count <= _EXACT_BYTES
            self._metrics = MultiLabelMetrics(count, threshold=judging.threshold, exact=exact)

    def update(self, rows: np.ndarray, scores: np.ndarray) -> None:
        """Counts some images.

        Args:
            rows: int64 [r], which.
            scores: float [r, C], logits; -inf where a class cannot be predicted.
        """
        targets = self._labels.targets(rows, unlisted=self._judging.unlisted)
        front = (0, 0), (self._places, 0)
        scores = np.where(np.isneginf(scores), _NOBODY, scores)
        self._metrics.update(np.pad(scores, front, constant_values=_NOBODY), np.pad(targets, front))

    def compute(self) -> dict[str, float]:
        """All numbers of the metrics, by name."""
        return self._metrics.compute()
