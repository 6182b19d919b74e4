# SPDX-License-Identifier: BSD-3-Clause
"""Counts the examples of a class by score, from which every choice of a threshold follows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mlimages_jax.metrics.average_precision import (
    IGNORED,
    POSITIVE,
    BinnedAveragePrecision,
    ExactAveragePrecision,
    score_bins,
)

POOLED_BINS = 2**16  # of all classes together: at most 0.0003 wide for logits from -2 to 2
_POOLED_SCALE = 2.0  # as of BinnedAveragePrecision
_BELOW_ALL = 1e-3  # distance of the lowest edge from the lowest score
_ROWS = 256  # examples binned at once


class ScoreCounts(NamedTuple):
    """Numbers of examples at each of k scores, in ascending order.

    Attributes:
        scores: float64 [k], the scores; of a bin, its middle.
        edges: float64 [k], where to cut to keep a score but none below it: half-way to the next
            lower one; of a bin, its lower end.
        judged: int64 [k], positive and negative examples with this score.
        positives: int64 [k], the positive ones of these.
    """

    scores: np.ndarray
    edges: np.ndarray
    judged: np.ndarray
    positives: np.ndarray

    def reaching(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the judged examples and the positives from each score on, int64 [k] each."""
        return self.judged[::-1].cumsum()[::-1], self.positives[::-1].cumsum()[::-1]

    def at_least(self, threshold: float) -> tuple[int, int]:
        """Returns how many judged examples, and how many positives, reach a threshold."""
        first = int(np.searchsorted(self.scores, threshold, side="left"))
        return int(self.judged[first:].sum()), int(self.positives[first:].sum())


def of_scores(scores: np.ndarray, states: np.ndarray) -> ScoreCounts:
    """Counts the examples of one class at each of their distinct scores.

    Args:
        scores: Floats [n], finite.
        states: int8 [n], see `average_precision`.
    """
    judged = states != IGNORED
    distinct, where = np.unique(scores[judged].astype(np.float64), return_inverse=True)
    middles = (distinct[1:] + distinct[:-1]) / 2
    return ScoreCounts(
        distinct,
        np.concatenate([distinct[:1] - _BELOW_ALL, middles]),
        np.bincount(where, minlength=distinct.size),
        np.bincount(where[states[judged] == POSITIVE], minlength=distinct.size),
    )


def of_bins(judged: np.ndarray, positives: np.ndarray, *, scale: float) -> ScoreCounts:
    """Converts counts in all bins of `average_precision.score_bins`; empty bins are left out.

    Args:
        judged: Integers [bins], positive and negative examples by ascending score.
        positives: Integers [bins], the positive ones of these.
        scale: The scale of the bins.
    """
    # The outer ends are infinite; a quarter of a bin from there is still beyond any logit.
    ends = np.linspace(-1, 1, len(judged) + 1)
    ends[[0, -1]] += (ends[1] - ends[0]) / np.array([4, -4])
    used = np.flatnonzero(judged)
    middles = (ends[used] + ends[used + 1]) / 2
    return ScoreCounts(
        _unsquashed(middles, scale),
        _unsquashed(ends[used], scale),
        judged[used].astype(np.int64),
        positives[used].astype(np.int64),
    )


def of_each_class(
    accumulator: ExactAveragePrecision | BinnedAveragePrecision,
) -> Iterator[ScoreCounts]:
    """Yields the counts of every class: of the scores themselves if they are stored, else of bins.

    One class at a time, because the counts of all would need more memory than the accumulator.
    """
    if isinstance(accumulator, ExactAveragePrecision):
        for scores, states in accumulator.columns():
            yield of_scores(scores, states)
    else:
        for judged, positives in zip(accumulator.judged, accumulator.positives, strict=True):
            yield of_bins(judged, positives, scale=accumulator.scale)


def pooled(accumulator: ExactAveragePrecision | BinnedAveragePrecision) -> ScoreCounts:
    """Counts the examples of all classes together, in bins: POOLED_BINS for stored scores."""
    if isinstance(accumulator, BinnedAveragePrecision):
        judged = accumulator.judged.sum(axis=0, dtype=np.int64)
        positives = accumulator.positives.sum(axis=0, dtype=np.int64)
        return of_bins(judged, positives, scale=accumulator.scale)
    judged, positives = np.zeros((2, POOLED_BINS), np.int64)
    for scores, states in zip(accumulator.scores, accumulator.states, strict=True):
        for start in range(0, len(scores), _ROWS):
            part = states[start : start + _ROWS]
            cells = score_bins(scores[start : start + _ROWS], bins=POOLED_BINS, scale=_POOLED_SCALE)
            cells = cells.reshape(part.shape)
            judged += np.bincount(cells[part != IGNORED], minlength=POOLED_BINS)
            positives += np.bincount(cells[part == POSITIVE], minlength=POOLED_BINS)
    return of_bins(judged, positives, scale=_POOLED_SCALE)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, float64 [...]; nan where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _unsquashed(position: np.ndarray, scale: float) -> np.ndarray:
    """Inverts x / (scale + |x|)."""
    return scale * position / (1 - np.abs(position))
