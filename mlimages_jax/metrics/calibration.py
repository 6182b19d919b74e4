# SPDX-License-Identifier: BSD-3-Clause
"""Calibration of probabilities: reliability diagram and calibration error. NumPy only.

Predictions are binned by their probability. In each bin the mean probability should equal the
accuracy (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017,
section 2).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

_CHUNK = 2**16  # predictions, so few that their arrays fit into the processor's cache
_WORD = 2**31  # sums are split into words, because a gather between hosts carries 32 bits
_ONE = 2**24  # probabilities are summed in units of 1 / _ONE: exact for float32 from 0.5 on


class Reliability(NamedTuple):
    """The contents of a reliability diagram, in bins by ascending probability.

    Attributes:
        images: int64 [bins], number of predictions: one per image, or one per image and class.
        probability: float64 [bins], mean probability; nan in an empty bin.
        accuracy: float64 [bins], fraction of correct predictions; nan in an empty bin.
    """

    images: np.ndarray
    probability: np.ndarray
    accuracy: np.ndarray


def calibrated_probability(logits: np.ndarray, *, positive_weight: float) -> np.ndarray:
    """Returns the probabilities whose weighted loss logits [...] minimise, float32 [...].

    -w p log s - (1 - p) log(1 - s) is minimal over s at s = w p / (w p + 1 - p). Solved for p:
    s / (s + w (1 - s)) = 1 / (1 + w exp(-x)). Both branches below take exp of a number that is not
    positive and subtract nothing, so that small probabilities keep all their digits.
    """
    logits = np.asarray(logits, np.float32)
    weight = np.float32(positive_weight)
    small = np.exp(-np.abs(logits))
    positive = np.where(logits < 0, small, np.float32(1))
    negative = np.where(logits < 0, weight, weight * small)
    return positive / (positive + negative)


@dataclasses.dataclass
class Calibration:
    """Accumulates images, correct predictions and summed probabilities in bins of equal width.

    Bin m = 1, ..., M contains the probabilities in ((m - 1) / M, m / M], as in the paper; 0, which
    is in none of these, goes to the first. The accumulator protocol is described in `multi_label`.
    Counts up to 2^38 predictions, more than ML-Images has classes times images.

    Args:
        bins: Number of bins, M.
    """

    bins: int = 15

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins={self.bins} must be positive")
        self._images = np.zeros(self.bins, np.int64)
        self._right = np.zeros(self.bins, np.int64)
        self._probability = np.zeros(self.bins, np.int64)  # sums, in units of 1 / _ONE

    def update(self, probabilities: np.ndarray, correct: np.ndarray) -> None:
        """Counts one batch.

        Args:
            probabilities: float32 [m], in [0, 1], probabilities of the predictions.
            correct: bool [m], whether each prediction was correct.

        Raises:
            ValueError: If the shapes differ, or a number is not a probability.
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
        for start in range(0, probabilities.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            exact = probabilities[part].astype(np.float64)  # float32 would round the products
            bins = np.maximum(np.ceil(exact * self.bins).astype(np.int64) - 1, 0)
            self._images += np.bincount(bins, minlength=self.bins)
            self._right += np.bincount(bins[correct[part]], minlength=self.bins)
            # Integers in float64: sums of up to 2^29 of them are exact in any order.
            units = np.bincount(bins, np.rint(exact * _ONE), self.bins)
            self._probability += units.astype(np.int64)

    def sums(self) -> dict[str, np.ndarray]:
        """Returns int64 [2, 3, bins]: high and low words of images, correct and probabilities."""
        values = np.stack([self._images, self._right, self._probability])
        return {"counts": np.stack(np.divmod(values, _WORD))}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds the `sums()` of a calibration with the same number of bins."""
        high, low = sums["counts"].astype(np.int64)
        images, right, probability = high * _WORD + low
        self._images += images
        self._right += right
        self._probability += probability

    def table(self) -> Reliability:
        """Returns the bins of a reliability diagram."""
        empty = self._images == 0
        divisor = np.where(empty, np.nan, self._images)
        return Reliability(
            images=self._images.copy(),
            probability=self._probability / (divisor * _ONE),
            accuracy=self._right / divisor,
        )

    def error(self) -> float:
        """Returns the expected calibration error (Guo et al. 2017, equation 3); nan if empty.

        This is the sum over bins of (fraction of the images) x |accuracy - mean probability|. All
        sums are integers: only the last division rounds.
        """
        images = int(self._images.sum())
        # Weighting by the images of a bin cancels the division by them.
        gaps = int(np.abs(self._right * _ONE - self._probability).sum())
        return gaps / (images * _ONE) if images else float("nan")

    def compute(self) -> dict[str, float]:
        """Returns `calibration_error`."""
        return {"calibration_error": self.error()}
