# SPDX-License-Identifier: BSD-3-Clause
"""Metrics of a multi-label classifier, as sums that add over batches and hosts. NumPy only.

How a target counts (`judge`): at or above the threshold, 0.7 as in the training loss, the class is
positive; 0 is negative; -1 (unknown) and soft confidences between 0 and the threshold are ignored.
The loss teaches a soft class to score above the negatives, so counting it as a negative would
punish what was taught, and as a positive would call a doubt a fact. Rows that `mask` drops become
ignored in every class, and a picture without any judged class is no example.

Every accumulator has

    update(...)     one batch
    sums()          what it has seen, as a dict of arrays
    add_sums(sums)  adds what another batch, process or host has seen
    compute()       numbers for people

and holds nothing but integer counts (exact average precision: the scores themselves), so any split
into batches and hosts ends in the same bits. Several hosts, each with its own `metrics`:

    gathered = multihost_utils.process_allgather(metrics.sums())  # a leading axis of hosts
    total = MultiLabelMetrics(num_classes, paths)
    for host in range(jax.process_count()):
        total.add_sums({name: values[host] for name, values in gathered.items()})

Such a gather carries 32 bits a number, enough for counts below 2^31.
"""

import dataclasses
from typing import Protocol

import numpy as np

from mlimages_jax.average_precision import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    BinnedAveragePrecision,
    ExactAveragePrecision,
)
from mlimages_jax.top_k import NAN, HierarchicalMetrics, InstanceMetrics, top_classes


def judge(
    scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None, *, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Checks one batch, and says which classes of it are positive, negative or ignored.

    Args:
        scores: float [n, C]; padding rows may hold anything.
        targets: float [n, C], each -1, 0 or in (0, 1].
        mask: bool [n], False for padding rows; None keeps all.
        threshold: the confidence from which a class is positive.

    Returns:
        scores float32 [n, C] with zeros in padding rows, and states int8 [n, C].

    Raises:
        ValueError: shapes that do not fit, or a score that is not finite.
    """
    scores, targets = np.asarray(scores, np.float32), np.asarray(targets, np.float32)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(f"scores {scores.shape} and targets {targets.shape} must both be [n, C]")
    scores, kept = _drop_padding(scores, mask)
    states = np.full(targets.shape, IGNORED, np.int8)
    states[targets == 0] = NEGATIVE
    # The threshold is rounded as the targets are: a stored 0.7 is below the float64 0.7.
    states[targets >= np.float32(threshold)] = POSITIVE
    states[~kept] = IGNORED
    return scores, states


def _drop_padding(scores: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Scores with zeros in padding rows, and the kept rows bool [n]; refuses nan and infinity."""
    kept = np.ones(len(scores), bool) if mask is None else np.asarray(mask, bool)
    if kept.shape != scores.shape[:1]:
        raise ValueError(f"mask {kept.shape} must have one entry for each of {len(scores)} rows")
    if not kept.all():
        scores = np.where(kept[:, None], scores, np.float32(0))
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"the score of row {row}, class {column} is {scores[row, column]}: scores must be "
            "finite; look for the step at which the loss or the parameters stopped being so"
        )
    return scores, kept


@dataclasses.dataclass
class SingleLabelAccuracy:
    """Share of pictures whose one true class is the best (top1) or among the five best (top5)."""

    def __post_init__(self) -> None:
        self.counts = np.zeros(3, np.int64)  # top-1, top-5, examples

    def update(
        self, scores: np.ndarray, labels: np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        """Count one batch: scores float [n, C], labels int [n]; ties go to the lower class."""
        scores, kept = _drop_padding(np.asarray(scores, np.float32), mask)
        labels = np.where(kept, labels, 0)[:, None]
        if labels.min(initial=0) < 0:
            raise ValueError(f"label {labels.min()}: mask out the pictures without a class")
        own = np.take_along_axis(scores, labels, axis=1)
        ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels))
        rank = ahead.sum(axis=1)
        self.counts += [((rank < 1) & kept).sum(), ((rank < 5) & kept).sum(), kept.sum()]

    def sums(self) -> dict[str, np.ndarray]:
        """Top-1 hits, top-5 hits and examples, int64 [3]."""
        return {"counts": self.counts.copy()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Add another accumulator's counts."""
        self.counts += sums["counts"]

    def compute(self) -> dict[str, float]:
        """`top1`, `top5` and `examples`."""
        top1, top5, examples = (int(count) for count in self.counts)
        return {
            "top1": top1 / examples if examples else NAN,
            "top5": top5 / examples if examples else NAN,
            "examples": float(examples),
        }


class _Part(Protocol):
    def sums(self) -> dict[str, np.ndarray]: ...
    def add_sums(self, sums: dict[str, np.ndarray]) -> None: ...
    def compute(self) -> dict[str, float]: ...


@dataclasses.dataclass
class MultiLabelMetrics:
    """All multi-label metrics together.

    Args:
        num_classes: C.
        paths: int [C, D] for the hierarchical metrics (see there); None leaves them out.
        threshold: the confidence from which a class is positive.
        exact: True keeps all scores for the exact mAP; False counts logits in bins, and
            `compute` adds `mAP_error_bound`.
    """

    num_classes: int
    paths: np.ndarray | None = None
    _: dataclasses.KW_ONLY
    threshold: float = 0.7
    exact: bool = True

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

    def update(
        self, scores: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        """Count one batch.

        Args:
            scores: float [n, C], finite. Only their order matters, but without `exact` logits are
                binned more finely than probabilities.
            targets: float [n, C], each -1, 0 or in (0, 1].
            mask: bool [n], False for padding rows.
        """
        scores, states = judge(scores, targets, mask, threshold=self.threshold)
        self._average_precision.update(scores, states)
        top = top_classes(scores, states, self._at_10.k)
        self._at_5.update(top, states)
        self._at_10.update(top, states)
        if self._hierarchical:
            self._hierarchical.update(top, states)

    def sums(self) -> dict[str, np.ndarray]:
        """Sums of all parts, under "part/name"."""
        return {
            f"{part}/{name}": values
            for part, accumulator in self._parts.items()
            for name, values in accumulator.sums().items()
        }

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Add the `sums()` of metrics made with the same arguments."""
        for part, accumulator in self._parts.items():
            names = (name for name in sums if name.startswith(f"{part}/"))
            accumulator.add_sums({name.removeprefix(f"{part}/"): sums[name] for name in names})

    def merge(self, other: "MultiLabelMetrics") -> None:
        """Add what other metrics, made with the same arguments, have seen."""
        self.add_sums(other.sums())

    def per_class_ap(self) -> np.ndarray:
        """Average precision of each class, float64 [C]; nan for classes without positives."""
        return self._average_precision.per_class()

    def compute(self) -> dict[str, float]:
        """All numbers by name, and `examples`: pictures with a judged class."""
        numbers = {"examples": float(self._at_5.examples())}
        for accumulator in self._parts.values():
            numbers |= accumulator.compute()
        return numbers
