# SPDX-License-Identifier: BSD-3-Clause
"""Finds a threshold for each class on examples with known labels. NumPy only.

Each class has its own best cut among its scores, by an `Objective`, and so has the pool of all
classes. A cut found on few positives says little, so it is shrunk towards that of the pool: with n
positives of the class, its own cut z and the pool's Z, both as logits of the calibrated
probability,

    logit of the threshold = (n z + kappa Z) / (n + kappa)

kappa is the number of positives at which both count the same. A class without positives gets Z.
This is the mean of a normal posterior whose prior is centred at Z and weighs as much as kappa
positives. So a precision or recall that is asked for holds for a class's own cut, not always for
its threshold; `FoundThresholds.missed` says for which classes it does not. Labels that are unknown,
or of a confidence between 0 and the minimum, are ignored.

The candidates are the cuts between two scores of the class, exact ones where the metrics store
them, else the ends of 1,024 bins (see `average_precision.BinnedAveragePrecision`: 0.004 wide at
logit 0, 0.06 at 6); those of the pool are the ends of 65,536 or 1,024 bins. For calibrated
probabilities and many examples, the threshold of the highest F1 is half of that F1 (Lipton, Elkan
and Naryanaswamy, "Thresholding Classifiers to Maximize F1 Score", 2014, theorem 1).
"""

import dataclasses
import math
from typing import Literal

import numpy as np

from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.score_counts import ScoreCounts, ratio

KAPPA = 10.0  # tests/metrics/test_thresholds.py compares it with none on rare classes

ObjectiveName = Literal["f1", "precision", "recall"]


@dataclasses.dataclass(frozen=True)
class Objective:
    """The quantity that a threshold optimises.

    Attributes:
        name: "f1", the highest F1, and of equal ones that with the fewest tags; "precision", the
            most recall with at least this precision, and of equal ones the fewest tags, or the
            highest precision if no cut reaches it; "recall", the highest precision with at least
            this recall, and of equal ones the most recall.
        wanted: The precision or recall asked for.
    """

    name: ObjectiveName = "f1"
    wanted: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.wanted <= 1:
            raise ValueError(f"wanted={self.wanted} must be above 0, up to 1")

    def __str__(self) -> str:
        """Returns a description such as "maximum F1"."""
        return "maximum F1" if self.name == "f1" else f"{self.name} of at least {self.wanted:g}"

    def cut(self, counts: ScoreCounts) -> float:
        """Returns the best edge of `counts`, which must have a positive."""
        judged, positives = counts.reaching()
        total = positives[0]
        if self.name == "f1":
            return float(counts.edges[_last_best(2 * positives / (judged + total))])
        precision = positives / judged
        if self.name == "recall":
            enough = positives / total >= self.wanted  # always so at the lowest cut
            return float(counts.edges[np.argmax(np.where(enough, precision, -1))])
        reached = precision >= self.wanted
        if not reached.any():
            return float(counts.edges[np.argmax(precision)])
        return float(counts.edges[_last_best(np.where(reached, positives, -1))])


@dataclasses.dataclass(frozen=True, eq=False)
class FoundThresholds:
    """Thresholds of C classes, and what they give on the examples they were found on.

    Attributes:
        objective: The quantity that they optimise.
        kappa: Number of positives at which a class's own cut counts as much as the pool's.
        probabilities: float64 [C], the thresholds, of calibrated probabilities.
        unshrunk: float64 [C], the classes' own cuts; nan without positives.
        overall: The pool's cut.
        positives: int64 [C], positive examples.
        predicted: int64 [C], judged examples that reach the threshold.
        right: int64 [C], the positive ones of these.
    """

    objective: Objective
    kappa: float
    probabilities: np.ndarray
    unshrunk: np.ndarray
    overall: float
    positives: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """float64 [C]; nan where nothing reaches the threshold."""
        return ratio(self.right, self.predicted)

    @property
    def recall(self) -> np.ndarray:
        """float64 [C]; nan without positives."""
        return ratio(self.right, self.positives)

    @property
    def f1(self) -> np.ndarray:
        """float64 [C]; nan without positives."""
        f1 = ratio(2 * self.right, self.predicted + self.positives)
        return np.where(self.positives > 0, f1, np.nan)

    @property
    def missed(self) -> np.ndarray:
        """Which classes have less than the precision or recall asked for, bool [C].

        Shrinkage has moved their cut, or no cut of theirs has that precision.
        """
        if self.objective.name == "f1":
            return np.zeros(len(self.positives), bool)
        values = self.precision if self.objective.name == "precision" else self.recall
        return values < self.objective.wanted  # never of nan


def find_thresholds(
    metrics: MultiLabelMetrics, objective: Objective, *, kappa: float = KAPPA
) -> FoundThresholds:
    """Finds a threshold for each class on the examples that metrics have seen, see the module.

    Args:
        metrics: Metrics that have seen logits.
        objective: The quantity to optimise.
        kappa: Strength of the shrinkage, 0 or more; 0: none.

    Raises:
        ValueError: If no class has a positive, or kappa is negative.
    """
    if kappa < 0:
        raise ValueError(f"kappa={kappa} must not be negative")
    pool = metrics.pooled_counts()
    if not pool.positives.sum():
        raise ValueError(
            "no image has a positive class, so there are no thresholds to find: give a split whose "
            "images have labels"
        )
    overall = objective.cut(pool)
    cuts = np.full((2, metrics.num_classes), np.nan)  # own, shrunk
    numbers = np.zeros((3, metrics.num_classes), np.int64)
    for i, counts in enumerate(metrics.counts_of_classes()):
        positives = int(counts.positives.sum())
        own = objective.cut(counts) if positives else math.nan
        shrunk = _shrunk(own, positives, overall, kappa)
        cuts[:, i] = own, shrunk
        numbers[:, i] = positives, *counts.at_least(shrunk)
    unshrunk, probabilities = (_probability(row, metrics.positive_weight) for row in cuts)
    return FoundThresholds(
        objective,
        kappa,
        probabilities=probabilities,
        unshrunk=unshrunk,
        overall=float(_probability(np.array(overall), metrics.positive_weight)),
        positives=numbers[0],
        predicted=numbers[1],
        right=numbers[2],
    )


def _shrunk(own: float, positives: int, overall: float, kappa: float) -> float:
    """Shrinks a cut by the module's rule; raw logits do, as the calibration shifts all alike."""
    if not positives:
        return overall
    return (positives * own + kappa * overall) / (positives + kappa)


def _last_best(values: np.ndarray) -> int:
    # argmax returns the first of equal values; the last one is the highest cut, with fewest tags.
    return len(values) - 1 - int(np.argmax(values[::-1]))


def _probability(logits: np.ndarray, positive_weight: float | None) -> np.ndarray:
    """As `calibrated_probability`, in float64: 1 / (1 + w exp(-x))."""
    shifted = logits - math.log(positive_weight or 1.0)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-shifted))
