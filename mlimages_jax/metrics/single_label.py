# SPDX-License-Identifier: BSD-3-Clause
"""Metrics of a classifier that names one class an image: top-1, top-5, confusions, calibration.

NumPy only; an accumulator as `mlimages_jax.metrics` describes them.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from mlimages_jax.metrics.calibration import Calibration
from mlimages_jax.metrics.multi_label import check_batch

CONFUSION_CLASSES = 5_000  # up to here pairs of classes are counted, 8 bytes each: 200 MB


class ConfusedPair(NamedTuple):
    """Images of one class for which another one was predicted."""

    true: int
    predicted: int
    images: int


@dataclasses.dataclass
class SingleLabelMetrics:
    """Share of images with a valid class as the best or among the five best, and what goes wrong.

    A class whose target reaches the threshold is valid. Most images have one; with the labels of
    `mlimages_jax.data.real_labels` some have several, and each of them is a right answer. Counts by
    class take an image as one of the valid class that scores best, so a class may look better
    there than it would if the image counted for each of its classes. Images without a valid
    class are no examples. Every other class, absent or unknown, is a wrong answer. Among equal
    scores the lower class index is the better.

    Args:
        num_classes: C.
        threshold: the confidence from which a class is valid.

    Attributes:
        confusion: int64 [C, C], images by class and predicted class; None where C is above
            CONFUSION_CLASSES, where it would not fit.
        calibration: of the softmax probability of the best class, and whether it is valid.
    """

    num_classes: int
    _: dataclasses.KW_ONLY
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be in (0, 1]")
        self._counts = np.zeros((self.num_classes, 3), np.int64)  # examples, top-1, top-5 hits
        counts_pairs = self.num_classes <= CONFUSION_CLASSES
        self.confusion = np.zeros((self.num_classes,) * 2, np.int64) if counts_pairs else None
        self.calibration = Calibration()

    def update(
        self, scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        """Count one batch.

        Args:
            scores: float [n, C], logits; padding rows may hold anything.
            targets: float [n, C], as `steps.dense_targets` makes them.
            mask: bool [n], False for padding rows; None keeps all.

        Raises:
            ValueError: shapes that do not fit, or a score that is not finite.
        """
        scores, targets, kept = check_batch(scores, targets, mask)
        if scores.shape[1] != self.num_classes:
            raise ValueError(f"scores {scores.shape} must be [n, {self.num_classes}]")
        valid = (targets >= np.float32(self.threshold)) & kept[:, None]
        examples = valid.any(axis=1)
        valid = valid[examples]
        # In C order a sum along a row has the same bits whatever the other rows are.
        scores = np.ascontiguousarray(scores[examples])
        classes = np.where(valid, scores, np.float32(-np.inf)).argmax(axis=1)
        places = _places(scores, classes)
        hits = np.stack([np.ones(len(places), bool), places < 1, places < 5], axis=1)
        np.add.at(self._counts, classes, hits)
        predicted = scores.argmax(axis=1)
        if self.confusion is not None:
            np.add.at(self.confusion, (classes, predicted), 1)
        self.calibration.update(_probabilities(scores, predicted), places < 1)

    def sums(self) -> dict[str, np.ndarray]:
        """Counts by class and by pair of classes, and those of the calibration."""
        sums = {"counts": self._counts.copy()}
        if self.confusion is not None:
            sums["confusion"] = self.confusion.copy()
        calibration = self.calibration.sums()
        return sums | {f"calibration/{name}": values for name, values in calibration.items()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Add the `sums()` of metrics made with the same arguments."""
        self._counts += sums["counts"]
        if self.confusion is not None:
            self.confusion += sums["confusion"]
        names = (name for name in sums if name.startswith("calibration/"))
        self.calibration.add_sums({name.removeprefix("calibration/"): sums[name] for name in names})

    def merge(self, other: "SingleLabelMetrics") -> None:
        """Add what other metrics, made with the same arguments, have seen."""
        self.add_sums(other.sums())

    def per_class(self) -> np.ndarray:
        """Examples, top-1 hits and top-5 hits of each class, int64 [C, 3]."""
        return self._counts.copy()

    def worst_pairs(self, count: int) -> list[ConfusedPair]:
        """The pairs that are confused most often, at most `count`; then by their class indices.

        Raises:
            ValueError: more classes than CONFUSION_CLASSES, so that no pairs were counted.
        """
        if self.confusion is None:
            raise ValueError(
                f"pairs are counted for up to {CONFUSION_CLASSES:,} classes, here are "
                f"{self.num_classes:,}: use per_class() to find the weak ones"
            )
        true, predicted = np.nonzero(self.confusion)  # by class indices
        wrong = true != predicted
        true, predicted = true[wrong], predicted[wrong]
        images = self.confusion[true, predicted]
        worst = np.argsort(-images, kind="stable")[:count]
        columns = (column[worst].tolist() for column in (true, predicted, images))
        return [ConfusedPair(*pair) for pair in zip(*columns, strict=True)]

    def compute(self) -> dict[str, float]:
        """`top1`, `top5` and `calibration_error`, nan without examples; and `examples`."""
        examples, top1, top5 = (int(count) for count in self._counts.sum(axis=0))
        return {
            "top1": top1 / examples if examples else float("nan"),
            "top5": top5 / examples if examples else float("nan"),
            "examples": float(examples),
            **self.calibration.compute(),
        }


def _places(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How many classes are better than the given one of each row, int [n]."""
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    ahead = scores > own
    ahead |= (scores == own) & (np.arange(scores.shape[1]) < classes[:, None])
    return np.count_nonzero(ahead, axis=1)


def _probabilities(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Softmax probability of the best class of each row, float32 [n]."""
    with np.errstate(over="ignore"):  # a difference may be -inf, which is right: exp makes it 0
        below = scores - np.take_along_axis(scores, best[:, None], axis=1)
    return 1 / np.exp(below).sum(axis=1)
