# SPDX-License-Identifier: BSD-3-Clause
"""Statistics of every class after an evaluation: average precision with an interval, threshold.

The interval is a bootstrap of the images (Efron, 1979; 2.5% and 97.5% quantiles): drawn again with
replacement, each image occurs about Poisson(1) times, so the number of examples with a score is
Poisson-distributed about what it was. Between two positives the order of the negatives does not
matter, so the negatives there are drawn as one number: a class needs REPLICATES x 2 x MAX_CELLS
draws at most, however many images there are. With more positives than MAX_CELLS, neighbours are
drawn together, and the interval is moved by the difference that this makes to the average
precision. Replicates without a positive are left out. The draws of a class depend on its index
only. With a handful of positives it is too narrow, as any bootstrap is.

Average precision grows with the fraction of positives, so that of a frequent and of a rare class
cannot be compared. The balanced one can: the average of the precision that each positive's cut
would have if half of the examples were positive,

    TPR / (TPR + FPR (1 - p) / p)  with p = 1/2

(Siblini, Fréry, He-Guelton, Oblé and Wang, "Master your Metrics with Calibration", 2020, section
3, their pi_0 = 1/2). A score that says nothing has 1/2, whatever the class.
"""

import dataclasses
import math

import numpy as np

from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.score_counts import ScoreCounts, ratio

REPLICATES = 200
MAX_CELLS = 256
_QUANTILES = (0.025, 0.975)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Numbers of C classes; nan where there is no positive, or nothing reaches the threshold.

    Attributes:
        positives: int64 [C], positive examples.
        average_precision: float64 [C].
        interval: float64 [C, 2], see the module.
        balanced: float64 [C], average precision at equally many positives and negatives; nan
            without negatives too.
        thresholds: float64 [C], probabilities.
        precision: float64 [C], of the examples that reach the threshold.
        recall: float64 [C].
        f1: float64 [C].
    """

    positives: np.ndarray
    average_precision: np.ndarray
    interval: np.ndarray
    balanced: np.ndarray
    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def class_statistics(metrics: MultiLabelMetrics, thresholds: np.ndarray) -> ClassStatistics:
    """Computes the numbers of every class from the scores that metrics have seen.

    Args:
        metrics: Metrics that have seen logits.
        thresholds: float64 [C], minimum calibrated probability of a tag.
    """
    with np.errstate(divide="ignore"):  # 0 and 1 are thresholds too
        cuts = np.log(thresholds) - np.log1p(-thresholds) + math.log(metrics.positive_weight or 1)
    rows = np.array(
        [
            _of_class(counts, cut, np.random.default_rng(i))
            for i, (counts, cut) in enumerate(zip(metrics.counts_of_classes(), cuts, strict=True))
        ]
    ).reshape(-1, 7)
    positives, predicted, right = rows[:, :3].T
    return ClassStatistics(
        positives=positives.astype(np.int64),
        average_precision=rows[:, 3],
        interval=rows[:, 4:6],
        balanced=rows[:, 6],
        thresholds=thresholds,
        precision=ratio(right, predicted),
        recall=ratio(right, positives),
        f1=np.where(positives > 0, ratio(2 * right, predicted + positives), np.nan),
    )


def _of_class(counts: ScoreCounts, cut: float, rng: np.random.Generator) -> tuple[float, ...]:
    predicted, right = counts.at_least(cut)
    positives = int(counts.positives.sum())
    if not positives:
        return (0, predicted, right, *[math.nan] * 4)
    above, hits = _cells(counts)
    precision = hits.cumsum() / (hits.cumsum() + above.cumsum())
    average = float(hits @ precision / positives)
    return (
        positives, predicted, right, average, *_interval(above, hits, average, rng),
        _balanced(counts, above, hits),
    )  # fmt: skip


def _cells(counts: ScoreCounts) -> tuple[np.ndarray, np.ndarray]:
    """Returns negatives and positives between neighbouring positives, by falling score.

    A cell is a score with positives, with everything above it that is in no earlier cell.
    """
    negatives = (counts.judged - counts.positives)[::-1]
    has = np.flatnonzero(counts.positives[::-1])
    reached = negatives.cumsum()[has]
    return np.diff(reached, prepend=0), counts.positives[::-1][has]


def _interval(
    negatives: np.ndarray, positives: np.ndarray, average: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Returns the bootstrap interval of the average precision of cells."""
    if len(positives) > MAX_CELLS:
        starts = np.linspace(0, len(positives), MAX_CELLS, endpoint=False).astype(int)
        negatives = np.add.reduceat(negatives, starts)
        positives = np.add.reduceat(positives, starts)
    drawn = [rng.poisson(cell, (REPLICATES, len(cell))) for cell in (negatives, positives)]
    replicates = _average_precision(*drawn)
    replicates = replicates[~np.isnan(replicates)]
    (coarse,) = _average_precision(negatives[None], positives[None])
    # Moved by what joining cells changes, see the module.
    low, high = np.quantile(replicates, _QUANTILES) + average - coarse
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _average_precision(negatives: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Returns the average precision of each row of cells, float64 [n]; nan without positives."""
    hits = positives.cumsum(axis=1)
    precision = hits / np.maximum(hits + negatives.cumsum(axis=1), 1)
    return ratio((positives * precision).sum(axis=1), hits[:, -1])


def _balanced(counts: ScoreCounts, negatives: np.ndarray, positives: np.ndarray) -> float:
    """Returns the balanced average precision; nan without negatives."""
    total = int(positives.sum())
    others = int(counts.judged.sum()) - total
    if not others:
        return math.nan
    recall = positives.cumsum() / total
    return float(positives @ (recall / (recall + negatives.cumsum() / others)) / total)
