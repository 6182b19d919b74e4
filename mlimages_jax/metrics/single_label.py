# SPDX-License-Identifier: BSD-3-Clause
"""Metrics for one class per image: top-1, top-5, confusion matrix and calibration.

NumPy only; the accumulator protocol is described in `multi_label`.
"""

import dataclasses

import numpy as np

from mlimages_jax.metrics.calibration import Calibration
from mlimages_jax.metrics.confused_pairs import ConfusedPair
from mlimages_jax.metrics.multi_label import check_batch

CONFUSION_CLASSES = 5_000  # with more classes no confusion matrix is counted; this many need 200 MB


@dataclasses.dataclass
class SingleLabelMetrics:
    """Top-1 and top-5 accuracy, confusion matrix and calibration.

    A class whose target reaches the threshold is valid. Most images have one valid class; with the
    labels of `mlimages_jax.data.real_labels` some have several, and each of them is a correct
    answer. Per-class counts assign an image to its valid class with the highest score, so a class
    may look better there than if the image counted for each of its classes. Images without a valid
    class are not examples. Every other class, absent or unknown, is a wrong answer. Ties go to the
    lower class index.

    Args:
        num_classes: Number of classes, C.
        threshold: Minimum confidence of a valid class.

    Attributes:
        confusion: int64 [C, C], images by class and predicted class; None if C is above
            CONFUSION_CLASSES, where the matrix would be too large.
        calibration: Calibration of the softmax probability of the best class; it is correct if
            the class is valid.
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
        """Counts one batch.

        Args:
            scores: Floats [n, C], logits; padding rows may contain anything.
            targets: Floats [n, C], as made by `steps.dense_targets`.
            mask: bool [n], False for padding rows; None keeps all rows.

        Raises:
            ValueError: If the shapes do not match, or a score is not finite.
        """
        scores, targets, kept = check_batch(scores, targets, mask)
        if scores.shape[1] != self.num_classes:
            raise ValueError(f"scores {scores.shape} must be [n, {self.num_classes}]")
        valid = (targets >= np.float32(self.threshold)) & kept[:, None]
        examples = valid.any(axis=1)
        valid = valid[examples]
        # NumPy's order of summation depends on the memory layout: in C order each row sums to the
        # same bits in any batch.
        scores = np.ascontiguousarray(scores[examples])
        # The best of the valid classes: with several of them, any is a correct answer.
        classes = np.where(valid, scores, np.float32(-np.inf)).argmax(axis=1)
        ranks = _ranks(scores, classes)
        hits = np.stack([np.ones(len(ranks), bool), ranks < 1, ranks < 5], axis=1)
        # add.at counts an index every time it occurs; += would count it once.
        np.add.at(self._counts, classes, hits)
        predicted = scores.argmax(axis=1)
        if self.confusion is not None:
            np.add.at(self.confusion, (classes, predicted), 1)
        self.calibration.update(_probabilities(scores, predicted), ranks < 1)

    def sums(self) -> dict[str, np.ndarray]:
        """Returns int64 counts per class [C, 3] and per pair [C, C], and the calibration's."""
        sums = {"counts": self._counts.copy()}
        if self.confusion is not None:
            sums["confusion"] = self.confusion.copy()
        calibration = self.calibration.sums()
        return sums | {f"calibration/{name}": values for name, values in calibration.items()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds the `sums()` of metrics made with the same arguments."""
        self._counts += sums["counts"]
        if self.confusion is not None:
            self.confusion += sums["confusion"]
        names = (name for name in sums if name.startswith("calibration/"))
        self.calibration.add_sums({name.removeprefix("calibration/"): sums[name] for name in names})

    def merge(self, other: "SingleLabelMetrics") -> None:
        """Adds what other metrics, made with the same arguments, have seen."""
        self.add_sums(other.sums())

    def per_class(self) -> np.ndarray:
        """Returns examples, top-1 hits and top-5 hits of each class, int64 [C, 3]."""
        return self._counts.copy()

    @property
    def has_pairs(self) -> bool:
        """Whether confused pairs were counted."""
        return self.confusion is not None

    def images_of_classes(self) -> np.ndarray:
        """Returns the number of images of each class, int64 [C]."""
        return self._counts[:, 0].copy()

    def worst_pairs(self, count: int) -> list[ConfusedPair]:
        """Returns at most `count` pairs, most frequently confused first; ties by class indices.

        Raises:
            ValueError: If there are more classes than CONFUSION_CLASSES, so no pairs were counted.
        """
        if self.confusion is None:
            raise ValueError(
                f"pairs are counted for up to {CONFUSION_CLASSES:,} classes, but there are "
                f"{self.num_classes:,}: use per_class() to find the weak ones"
            )
        true, predicted = np.nonzero(self.confusion)  # sorted by class indices
        wrong = true != predicted
        true, predicted = true[wrong], predicted[wrong]
        images = self.confusion[true, predicted]
        worst = np.argsort(-images, kind="stable")[:count]
        columns = (column[worst].tolist() for column in (true, predicted, images))
        return [ConfusedPair(*pair) for pair in zip(*columns, strict=True)]

    def compute(self) -> dict[str, float]:
        """Returns `top1`, `top5` and `calibration_error` (nan if empty), and `examples`."""
        examples, top1, top5 = (int(count) for count in self._counts.sum(axis=0))
        return {
            "top1": top1 / examples if examples else float("nan"),
            "top5": top5 / examples if examples else float("nan"),
            "examples": float(examples),
            **self.calibration.compute(),
        }


def _ranks(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns how many classes of each row rank above the given one, int [n]."""
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    ahead = scores > own
    ahead |= (scores == own) & (np.arange(scores.shape[1]) < classes[:, None])
    return np.count_nonzero(ahead, axis=1)


def _probabilities(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Returns the softmax probability of the best class of each row, float32 [n]."""
    with np.errstate(over="ignore"):  # a difference may overflow to -inf, whose exp is 0 as wanted
        below = scores - np.take_along_axis(scores, best[:, None], axis=1)
    return 1 / np.exp(below).sum(axis=1)
