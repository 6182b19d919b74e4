# SPDX-License-Identifier: BSD-3-Clause
"""Metrics of a multi-label classifier, as sums that add over batches and hosts. NumPy only.

How a target counts (see `judge`): at or above the threshold, 0.7 as in the training loss, the class
is positive; 0 is negative; -1 (unknown) and soft confidences between 0 and the threshold are
ignored. The loss teaches the network to score a soft class above the negatives. To count it as a
negative would punish what was taught; to count it as a positive would treat a doubt as a fact. Rows
that `mask` drops are ignored in every class, and an image without any judged class is not an
example.

Every accumulator has

    update(...)     adds one batch
    sums()          returns what it has seen, as a dict of arrays
    add_sums(sums)  adds what another batch, process or host has seen
    compute()       returns the final numbers

and stores nothing but integer counts (for the exact average precision, the scores themselves), so
any split into batches and hosts gives bitwise identical results. With several hosts, each with its
own `metrics`:

    gathered = multihost_utils.process_allgather(metrics.sums())  # a leading axis of hosts
    total = MultiLabelMetrics(num_classes, paths)
    for host in range(jax.process_count()):
        total.add_sums({name: values[host] for name, values in gathered.items()})

Such a gather carries 32 bits per number, enough for counts below 2^31.
"""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from mlimages_jax.metrics import score_counts
from mlimages_jax.metrics.average_precision import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    BinnedAveragePrecision,
    ExactAveragePrecision,
)
from mlimages_jax.metrics.calibration import Calibration, calibrated_probability
from mlimages_jax.metrics.confused_pairs import ConfusedPair, confused_pairs
from mlimages_jax.metrics.score_counts import ScoreCounts
from mlimages_jax.metrics.top_k import HierarchicalMetrics, InstanceMetrics, top_classes


def judge(
    scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None, *, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Checks one batch and marks which of its classes are positive, negative or ignored.

    Args:
        scores: Floats [n, C]; padding rows may contain anything.
        targets: Floats [n, C], each -1, 0 or in (0, 1].
        mask: bool [n], False for padding rows; None keeps all rows.
        threshold: Minimum confidence of a positive class.

    Returns:
        Scores float32 [n, C] with zeros in padding rows, and states int8 [n, C].

    Raises:
        ValueError: If the shapes do not match, a score is not finite, or a target is neither -1
            nor in [0, 1].
    """
    scores, targets, kept = check_batch(scores, targets, mask)
    states = np.full(targets.shape, IGNORED, np.int8)
    states[targets == 0] = NEGATIVE
    # Targets are float32, and float32 0.7 is below float64 0.7: round the threshold alike.
    states[targets >= np.float32(threshold)] = POSITIVE
    states[~kept] = IGNORED
    return scores, states


def check_batch(
    scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scores float32 [n, C], 0 in padding rows; targets float32 [n, C]; kept rows bool [n].

    Raises:
        ValueError: If the shapes do not match; or if in a kept row a score is not finite, or a
            target is neither -1 nor in [0, 1].
    """
    scores, targets = np.asarray(scores, np.float32), np.asarray(targets, np.float32)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(f"scores {scores.shape} and targets {targets.shape} must both be [n, C]")
    kept = np.ones(len(scores), bool) if mask is None else np.asarray(mask, bool)
    if kept.shape != scores.shape[:1]:
        raise ValueError(f"mask {kept.shape} must have one entry for each of {len(scores)} rows")
    if not kept.all():
        scores = np.where(kept[:, None], scores, np.float32(0))
    # Negated, so that nan is wrong too.
    wrong = ~((targets == -1) | ((targets >= 0) & (targets <= 1))) & kept[:, None]
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"the target of row {row}, class {column} is {targets[row, column]}: give 1 or a "
            "confidence from 0 to 1, 0 for an absent class, -1 for an unknown one"
        )
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"the score of row {row}, class {column} is {scores[row, column]}: scores must be "
            "finite; find the step at which the loss or the parameters became nan or infinite"
        )
    return scores, targets, kept


class _Part(Protocol):
    def sums(self) -> dict[str, np.ndarray]: ...
    def add_sums(self, sums: dict[str, np.ndarray]) -> None: ...
    def compute(self) -> dict[str, float]: ...


@dataclasses.dataclass
class MultiLabelMetrics:
    """All multi-label metrics combined.

    Args:
        num_classes: Number of classes, C.
        paths: Integers [C, D] for `HierarchicalMetrics`; None omits the hierarchical metrics.
        threshold: Minimum confidence of a positive class.
        exact: True stores all scores for the exact mAP; False counts logits in bins, and `compute`
            adds `mAP_error_bound`.
        positive_weight: Weight w of positives in the training loss (12 as published, 1 for an
            unweighted loss), to calibrate the probabilities; None omits the calibration.

    Attributes:
        calibration: Calibration of the probability that a judged class is positive; None without
            `positive_weight`.
    """

    num_classes: int
    paths: np.ndarray | None = None
    _: dataclasses.KW_ONLY
    threshold: float = 0.7
    exact: bool = True
    positive_weight: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} must be in (0, 1]")
        if self.paths is not None and len(self.paths) != self.num_classes:
            raise ValueError(f"paths has {len(self.paths)} rows for {self.num_classes} classes")
        ap_class = ExactAveragePrecision if self.exact else BinnedAveragePrecision
        self._average_precision = ap_class(self.num_classes)
        self._at_5 = InstanceMetrics(5, self.num_classes)
        self._at_10 = InstanceMetrics(10, self.num_classes)
        self._parts: dict[str, _Part] = {
            "average_precision": self._average_precision,
            "at_5": self._at_5,
            "at_10": self._at_10,
        }
        self._hierarchical = None if self.paths is None else HierarchicalMetrics(self.paths)
        if self._hierarchical:
            self._parts["hierarchical"] = self._hierarchical
        self.calibration = None if self.positive_weight is None else Calibration()
        if self.calibration:
            self._parts["calibration"] = self.calibration

    def update(
        self, scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        """Counts one batch.

        Args:
            scores: Floats [n, C], finite. Only their order matters for most metrics, but without
                `exact` logits are binned more finely than probabilities, and the calibration
                needs logits.
            targets: Floats [n, C], each -1, 0 or in (0, 1].
            mask: bool [n], False for padding rows.
        """
        scores, states = judge(scores, targets, mask, threshold=self.threshold)
        self._average_precision.update(scores, states)
        top = top_classes(scores, states, self._at_10.k)  # sorted once, for all that need it
        self._at_5.update(top, states)
        self._at_10.update(top, states)
        if self._hierarchical:
            self._hierarchical.update(top, states)
        if self.calibration and self.positive_weight is not None:
            judged = states != IGNORED
            probabilities = calibrated_probability(
                scores[judged], positive_weight=self.positive_weight
            )
            self.calibration.update(probabilities, states[judged] == POSITIVE)

    def sums(self) -> dict[str, np.ndarray]:
        """Returns the sums of all parts, as "part/name"; shapes as in their own `sums`."""
        return {
            f"{part}/{name}": values
            for part, accumulator in self._parts.items()
            for name, values in accumulator.sums().items()
        }

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds the `sums()` of metrics made with the same arguments."""
        for part, accumulator in self._parts.items():
            names = (name for name in sums if name.startswith(f"{part}/"))
            accumulator.add_sums({name.removeprefix(f"{part}/"): sums[name] for name in names})

    def merge(self, other: "MultiLabelMetrics") -> None:
        """Adds what other metrics, made with the same arguments, have seen."""
        self.add_sums(other.sums())

    def per_class_ap(self) -> np.ndarray:
        """Returns average precision per class, float64 [C]; nan for classes without positives."""
        return self._average_precision.per_class()

    def counts_of_classes(self) -> Iterator[ScoreCounts]:
        """Yields the counts of positives by score of every class, see `score_counts`."""
        return score_counts.of_each_class(self._average_precision)

    def pooled_counts(self) -> ScoreCounts:
        """Returns the counts of positives by score of all classes together, in bins."""
        return score_counts.pooled(self._average_precision)

    @property
    def has_pairs(self) -> bool:
        """Whether confused pairs can be counted: bins do not tell the scores of an image."""
        return self.exact

    def worst_pairs(self, count: int) -> list[ConfusedPair]:
        """Returns at most `count` pairs, most frequently confused first, see `confused_pairs`.

        Raises:
            ValueError: Without `exact`, see `has_pairs`.
        """
        return confused_pairs(self._batches(), self.paths, count=count)

    def images_of_classes(self) -> np.ndarray:
        """Returns the number of images of each class, int64 [C].

        Raises:
            ValueError: Without `exact`.
        """
        counts = [(states == POSITIVE).sum(axis=0) for _, states in self._batches()]
        return np.sum([np.zeros(self.num_classes, np.int64), *counts], axis=0)

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields scores and states of every batch."""
        stored = self._average_precision
        if not isinstance(stored, ExactAveragePrecision):
            raise ValueError("the scores of an image are known with exact=True only")
        return zip(stored.scores, stored.states, strict=True)

    def compute(self) -> dict[str, float]:
        """Returns all metrics by name, and `examples`, the number of images with a judged class."""
        numbers = {"examples": float(self._at_5.examples())}
        for accumulator in self._parts.values():
            numbers |= accumulator.compute()
        return numbers
