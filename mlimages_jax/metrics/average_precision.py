# SPDX-License-Identifier: BSD-3-Clause
"""Average precision of every class: exact from stored scores, or bounded from binned counts.

Average precision is the sum over the distinct scores of (gain in recall) x (precision), without
interpolation, as in scikit-learn's `average_precision_score`. Written per positive example i of a
class it is

    AP = mean over positives i of  P(i) / K(i)

where P(i) counts the positives and K(i) all judged examples whose score is at least that of i.
Examples with equal scores enter together, so their order never matters. mAP is the unweighted mean
over the classes with a positive. Only the order of the scores matters, so logits and probabilities
give the same number, as far as float32 can distinguish them (a sigmoid rounds to 1 above about 17).

Both accumulators take `scores` float32 [n, C], finite, and `states` int8 [n, C] (`POSITIVE`,
`NEGATIVE` or `IGNORED`; made by `multi_label.judge`). `sums()` returns what one process has seen,
and `add_sums` adds what another one has seen.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1

_CLASSES_AT_ONCE = 64  # so few that their scores or bins fit into the processor's cache


def average_precision(scores: np.ndarray, states: np.ndarray) -> float:
    """Returns the exact average precision of one class; nan if it has no positive.

    The value depends only on the multiset of (score, state) pairs: any order of the examples gives
    a bitwise identical result.

    Args:
        scores: Floats [n], finite.
        states: int8 [n].
    """
    positives = np.sort(scores[states == POSITIVE])
    if not positives.size:
        return float("nan")
    judged = np.sort(scores[states != IGNORED])
    # side="left" counts equal scores too: examples with one score enter together.
    positives_at_least = positives.size - np.searchsorted(positives, positives, side="left")
    judged_at_least = judged.size - np.searchsorted(judged, positives, side="left")
    return float(np.mean(positives_at_least / judged_at_least))


def average_precision_bounds(
    judged: np.ndarray, positives: np.ndarray
) -> tuple[float, float, float]:
    """Bounds the average precision of one class from counts per bin; nan without positives.

    Sort the positives by descending score. Let the r-th of them (r = 1, 2, ...) be in a bin with N
    negatives in it or in higher bins, A of them in higher bins only, and R positives in it or in
    higher bins. Then for any order within the bins, and any ties:

    * P(i) / K(i) >= r / (r + N): at least r positives and at most N negatives reach its score, and
      p / (p + q) increases with p and decreases with q. Attained when in each bin all negatives
      are above all positives.
    * P(i) / K(i) <= R / (R + A): at most R positives and at least A negatives do. Attained when
      the positives of each bin share one score, above its negatives.
    * R / (R + N) is the value when all scores of a bin are equal; it is between the other two.

    Their averages over the positives are the lower bound, the rounded value and the upper bound.

    Args:
        judged: Integers [bins], positive and negative examples per bin, by ascending score.
        positives: Integers [bins], the positive ones of these.

    Returns:
        (lower bound, average precision of the scores rounded to their bins, upper bound).
    """
    falling = positives[::-1].astype(np.int64)
    negatives = judged[::-1].astype(np.int64) - falling
    total = int(falling.sum())
    if not total:
        return (float("nan"),) * 3
    negatives_reaching = np.cumsum(negatives)
    rank = np.arange(1, total + 1)
    reached = np.repeat(np.cumsum(falling), falling)  # R, [total]
    below_or_beside = np.repeat(negatives_reaching, falling)  # N
    above = np.repeat(negatives_reaching - negatives, falling)  # A
    return (
        float(np.mean(rank / (rank + below_or_beside))),
        float(np.mean(reached / (reached + below_or_beside))),
        float(np.mean(reached / (reached + above))),
    )


def score_bins(scores: np.ndarray, *, bins: int, scale: float) -> np.ndarray:
    """Returns the bins of scores [...], int64 [...]: equal parts of (-1, 1) for x / (scale + |x|).

    The bounds need a monotonic bin: it must never fall when the score rises. 1 - 1 / (1 + |x| /
    scale) is monotonic in rounded arithmetic too, because each of its steps is; the equal quotient
    above is not.
    """
    scores = np.ascontiguousarray(scores, np.float32)
    size = 1 - 1 / (1 + np.abs(scores) / np.float32(scale))  # [0, 1]
    position = (1 + np.copysign(size, scores)) * np.float32(bins / 2)
    # The size of very large scores rounds to 1, which would be one bin too far.
    return np.minimum(position, bins - 1).astype(np.int64)


def mean_over_present(per_class: np.ndarray) -> float:
    """Returns the mean of values [C] over the classes that are not nan; nan if there is none."""
    present = per_class[~np.isnan(per_class)]
    return float(present.mean()) if present.size else float("nan")


def _check_shapes(scores: np.ndarray, states: np.ndarray, num_classes: int) -> None:
    if scores.shape != states.shape or scores.shape[1:] != (num_classes,):
        raise ValueError(
            f"scores {scores.shape} and states {states.shape} must both be [n, {num_classes}]"
        )


@dataclasses.dataclass
class ExactAveragePrecision:
    """Stores all scores: 5 bytes per example and class (20,000 x 11,166 needs 1.1 GB)."""

    num_classes: int
    scores: list[np.ndarray] = dataclasses.field(default_factory=list)  # float32 [n_i, C] each
    states: list[np.ndarray] = dataclasses.field(default_factory=list)  # int8 [n_i, C] each

    def update(self, scores: np.ndarray, states: np.ndarray) -> None:
        """Stores a copy of one batch: scores [n, C], states int8 [n, C]."""
        _check_shapes(scores, states, self.num_classes)
        self.scores.append(np.array(scores, np.float32))
        self.states.append(np.array(states, np.int8))

    def sums(self) -> dict[str, np.ndarray]:
        """Returns every row seen, [N, C]; the "sum" of two of these is their concatenation.

        Padding rows are included, as ignored in every class, so that hosts with equally many
        batches of one size return arrays of one shape, which gathering between hosts requires.
        """
        empty = (0, self.num_classes)
        return {
            "scores": np.concatenate([np.empty(empty, np.float32), *self.scores]),
            "states": np.concatenate([np.empty(empty, np.int8), *self.states]),
        }

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds the rows that another accumulator has seen."""
        self.update(sums["scores"], sums["states"])

    def columns(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields scores float32 [n] and states int8 [n] of every class."""
        empty = [np.empty((0, self.num_classes), kind) for kind in (np.float32, np.int8)]
        for start in range(0, self.num_classes, _CLASSES_AT_ONCE):
            part = slice(start, start + _CLASSES_AT_ONCE)
            scores, states = (
                np.concatenate([batch[:, part].T for batch in (none, *batches)], axis=1)
                for none, batches in zip(empty, (self.scores, self.states), strict=True)
            )
            yield from zip(scores, states, strict=True)

    def per_class(self) -> np.ndarray:
        """Returns average precision, float64 [C]; nan for classes without positives."""
        return np.array([average_precision(*column) for column in self.columns()], np.float64)

    def compute(self) -> dict[str, float]:
        """Returns `mAP` and `mAP_classes`, the number of classes in its mean."""
        per_class = self.per_class()
        return {
            "mAP": mean_over_present(per_class),
            "mAP_classes": float(np.sum(~np.isnan(per_class))),
        }


@dataclasses.dataclass
class BinnedAveragePrecision:
    """Needs fixed memory: two counts per class and score bin (11,166 x 1,024 bins: 91 MB).

    The bin of a score x is that of x / (scale + |x|) among equal parts of (-1, 1). No score is out
    of range, and half of the bins are between -scale and scale, where positives and negatives
    overlap if x is a logit. Bins of equal width in x would be coarse there, and those of a sigmoid
    would put all scores of a rare class into one bin, so convert probabilities to logits first.
    The choice of bins decides how tight the reported error bound is, never whether it holds. Counts
    up to 2^31 - 1 examples.
    """

    num_classes: int
    _: dataclasses.KW_ONLY
    bins: int = 1024
    scale: float = 2.0

    def __post_init__(self) -> None:
        if self.bins < 1 or not self.scale > 0:
            raise ValueError(f"bins={self.bins}, scale={self.scale}: both must be positive")
        self.judged = np.zeros((self.num_classes, self.bins), np.int32)
        self.positives = np.zeros((self.num_classes, self.bins), np.int32)

    def update(self, scores: np.ndarray, states: np.ndarray) -> None:
        """Counts one batch: scores [n, C], states int8 [n, C]."""
        _check_shapes(scores, states, self.num_classes)
        for start in range(0, self.num_classes, _CLASSES_AT_ONCE):
            part = slice(start, start + _CLASSES_AT_ONCE)
            part_states = np.ascontiguousarray(states[:, part].T)
            cells = score_bins(scores[:, part].T, bins=self.bins, scale=self.scale)  # [c, n]
            cells += np.arange(0, cells.shape[0] * self.bins, self.bins)[:, None]
            for counts, counted in (
                (self.judged[part], part_states != IGNORED),
                (self.positives[part], part_states == POSITIVE),
            ):
                added = np.bincount(cells[counted], minlength=counts.size)
                counts += added.astype(np.int32).reshape(counts.shape)

    def sums(self) -> dict[str, np.ndarray]:
        """Returns counts of judged examples and of positives, int32 [C, bins] each."""
        return {"judged": self.judged.copy(), "positives": self.positives.copy()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds the counts of an accumulator made with the same arguments."""
        self.judged += sums["judged"]
        self.positives += sums["positives"]

    def bounds(self) -> np.ndarray:
        """Returns lower bound, rounded value and upper bound of each class, float64 [C, 3]."""
        return np.array(
            [
                average_precision_bounds(*counts)
                for counts in zip(self.judged, self.positives, strict=True)
            ]
        )

    def per_class(self) -> np.ndarray:
        """Returns average precision of the scores rounded to their bins, float64 [C], or nan."""
        return self.bounds()[:, 1]

    def compute(self) -> dict[str, float]:
        """Returns `mAP` of the rounded scores, and `mAP_error_bound`, its maximum error."""
        bounds = self.bounds()
        lower, rounded, upper = (mean_over_present(column) for column in bounds.T)
        return {
            "mAP": rounded,
            "mAP_error_bound": max(upper - rounded, rounded - lower),
            "mAP_classes": float(np.sum(~np.isnan(bounds[:, 1]))),
        }
