# SPDX-License-Identifier: BSD-3-Clause
"""How often a stated probability is right: reliability diagram and calibration error. NumPy only.

Predictions are sorted into bins by their probability; in each bin the mean probability should be
the share of predictions that are right (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern
Neural Networks", 2017, section 2).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

_AT_ONCE = 2**16  # predictions whose numbers stay in the processor's cache
_WORD = 2**31  # sums are handed over in words that a gather of 32 bits a number carries
_ONE = 2**24  # probabilities are added as whole multiples of 1 / _ONE: exact for float32 from 0.5


class Reliability(NamedTuple):
    """What a reliability diagram shows, bins by rising probability.

    Attributes:
        images: int64 [bins], the predictions: one an image, or one for each of its classes.
        probability: float64 [bins], their mean; nan in an empty bin.
        accuracy: float64 [bins], the share of them that is right; nan in an empty bin.
    """

    images: np.ndarray
    probability: np.ndarray
    accuracy: np.ndarray


def calibrated_probability(logits: np.ndarray, *, positive_weight: float) -> np.ndarray:
    """The label probability whose weighted loss a logit minimises, float32, same shape.

    The minimum of -w p log s - (1 - p) log(1 - s) over s lies at s = w p / (w p + 1 - p); solved
    for p: s / (s + w (1 - s)) = 1 / (1 + w exp(-x)). Either form below takes exp of a number that
    is not positive, and nothing is subtracted, so that small probabilities keep all their digits.
    """
    logits = np.asarray(logits, np.float32)
    weight = np.float32(positive_weight)
    small = np.exp(-np.abs(logits))
    positive = np.where(logits < 0, small, np.float32(1))
    negative = np.where(logits < 0, weight, weight * small)
    return positive / (positive + negative)


@dataclasses.dataclass
class Calibration:
    """Accumulates images, right ones and the sum of probabilities in bins of equal width.

    Bin m = 1, ..., M holds the probabilities in ((m - 1) / M, m / M], as in the paper; 0, which is
    in none of these, is in the first. An accumulator as `mlimages_jax.metrics` describes them. Up
    to 2^38 predictions, more than ML-Images has classes times images.

    Args:
        bins: M.
    """

    bins: int = 15

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins={self.bins} must be positive")
        self._images = np.zeros(self.bins, np.int64)
        self._right = np.zeros(self.bins, np.int64)
        self._probability = np.zeros(self.bins, np.int64)  # sums, in units of 1 / _ONE

    def update(self, probabilities: np.ndarray, correct: np.ndarray) -> None:
        """Count one batch.

        Args:
            probabilities: float32 [m], in [0, 1], of what was predicted.
            correct: bool [m], whether it was right.

        Raises:
            ValueError: shapes that do not fit, or a number that is no probability.
        """
        probabilities = np.asarray(probabilities, np.float32)
        correct = np.asarray(correct, bool)
        if probabilities.ndim != 1 or probabilities.shape != correct.shape:
            raise ValueError(
                f"probabilities {probabilities.shape} and correct {correct.shape} must both be [m]"
            )
        wrong = np.flatnonzero(~((probabilities >= 0) & (probabilities <= 1)))
        if wrong.size:
            raise ValueError(
                f"probability {wrong[0]} is {probabilities[wrong[0]]}, which is not in [0, 1]: "
                "give probabilities, not logits"
            )
        for start in range(0, probabilities.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            exact = probabilities[part].astype(np.float64)  # so that neither product is rounded
            bins = np.maximum(np.ceil(exact * self.bins).astype(np.int64) - 1, 0)
            self._images += np.bincount(bins, minlength=self.bins)
            self._right += np.bincount(bins[correct[part]], minlength=self.bins)
            # Whole numbers in float64: exact in any order, up to 2^29 of them.
            units = np.bincount(bins, np.rint(exact * _ONE), self.bins)
            self._probability += units.astype(np.int64)

    def sums(self) -> dict[str, np.ndarray]:
        """Int64 [2, 3, bins]: high and low words of images, right ones and probabilities."""
        values = np.stack([self._images, self._right, self._probability])
        return {"counts": np.stack(np.divmod(values, _WORD))}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Add the `sums()` of a calibration with as many bins."""
        high, low = sums["counts"].astype(np.int64)
        images, right, probability = high * _WORD + low
        self._images += images
        self._right += right
        self._probability += probability

    def table(self) -> Reliability:
        """The bins of a reliability diagram."""
        empty = self._images == 0
        divisor = np.where(empty, np.nan, self._images)
        return Reliability(
            images=self._images.copy(),
            probability=self._probability / (divisor * _ONE),
            accuracy=self._right / divisor,
        )

    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3); nan when nothing was counted.

        The sum over bins of (share of the images) x |accuracy - mean probability|. Its sums are
        whole numbers: only the last division rounds.
        """
        images = int(self._images.sum())
        gaps = int(np.abs(self._right * _ONE - self._probability).sum())
        return gaps / (images * _ONE) if images else float("nan")

    def compute(self) -> dict[str, float]:
        """`calibration_error`."""
        return {"calibration_error": self.error()}
