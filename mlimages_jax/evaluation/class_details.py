# SPDX-License-Identifier: BSD-3-Clause
"""Describes each class after an evaluation with several labels per image: table, means, log."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.average_precision import mean_over_present
from mlimages_jax.metrics.class_statistics import ClassStatistics, class_statistics
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.thresholds import Objective, find_thresholds

# Positives in training: classes with fewer are the tail, with more the head. These are the few,
# medium and many shots of Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", 2019.
TAIL_BELOW, HEAD_ABOVE = 20, 100

COLUMNS = (
    "class", "id", "depth", "average_precision", "ap_low", "ap_high", "balanced_ap",
    "train_positives", "positives", "threshold", "precision", "recall", "f1", "name",
)  # fmt: skip

Groups = list[tuple[str, str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassDetails:
    """Numbers of the classes of one evaluation.

    Attributes:
        hierarchy: The classes.
        statistics: Their numbers.
        threshold_source: Where the thresholds are from, for the log.
        train_positives: int64 [C], positive images in training; None if unknown.
    """

    hierarchy: Hierarchy
    statistics: ClassStatistics
    threshold_source: str
    train_positives: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        metrics: MultiLabelMetrics,
        hierarchy: Hierarchy,
        *,
        thresholds: tuple[np.ndarray, str] | None = None,
        train_positives: np.ndarray | None = None,
    ) -> "ClassDetails":
        """Computes the numbers.

        Args:
            metrics: Metrics of the evaluation.
            hierarchy: A hierarchy of the same classes.
            thresholds: Those of the model, float64 [C], and where they are from; None to find
                those of the highest F1 on the evaluated images themselves, which flatters
                precision, recall and F1.
            train_positives: int64 [C], positive images in training; None if unknown.
        """
        used, source = thresholds or (_found_here(metrics), "maximum F1 on these images")
        return cls(hierarchy, class_statistics(metrics, used), source, train_positives)

    def means(self) -> dict[str, float]:
        """Returns the mean average precision of groups of classes, by name of the metric."""
        every = mean_over_present(self.statistics.balanced)
        means = {"balanced_mAP": every}
        for groups in self._groupings().values():
            means |= {name: self._mean(members) for name, _, members in groups}
        return {name: value for name, value in means.items() if not math.isnan(value)}

    def lines(self) -> list[str]:
        """Returns the same as log lines, with numbers of classes and the source of thresholds."""
        lines = [f"thresholds in per_class.tsv: {self.threshold_source}"]
        for title, groups in self._groupings().items():
            parts = [
                f"{what} {self._mean(members):.4f} ({self._counted(members).sum()})"
                for _, what, members in groups
                if self._counted(members).any()
            ]
            if parts:
                lines.append(f"mAP (classes) by {title}: {', '.join(parts)}")
        return lines

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yields the cells of COLUMNS of every class, the best first; undefined ones are empty."""
        found, tree, counts = self.statistics, self.hierarchy, self.train_positives
        precision = found.average_precision
        # nan as -1 puts classes without positives last; stable, so that ties keep their order.
        for i in np.argsort(-np.nan_to_num(precision, nan=-1), kind="stable").tolist():
            numbers = [precision[i], *found.interval[i], found.balanced[i]]
            at_threshold = [found.precision[i], found.recall[i], found.f1[i]]
            threshold = found.thresholds[i]
            yield (
                i, tree.ids[i], tree.depth[i], *map(fraction, numbers),
                "" if counts is None else counts[i], found.positives[i],
                "" if math.isnan(threshold) else f"{threshold:.6g}",
                *map(fraction, at_threshold), tree.names[i],
            )  # fmt: skip

    def _groupings(self) -> dict[str, Groups]:
        """Returns groups of classes by title: name of the metric, description, members bool [C]."""
        depth, counts = self.hierarchy.depth, self.train_positives
        groupings: dict[str, Groups] = {}
        if counts is not None:
            medium = f"medium ({TAIL_BELOW} to {HEAD_ABOVE})"
            groupings["positives in training"] = [
                ("mAP_head", f"head (more than {HEAD_ABOVE})", counts > HEAD_ABOVE),
                ("mAP_medium", medium, (counts >= TAIL_BELOW) & (counts <= HEAD_ABOVE)),
                ("mAP_tail", f"tail (fewer than {TAIL_BELOW})", counts < TAIL_BELOW),
            ]
        if depth.any():  # else all classes are roots
            groupings["depth in the hierarchy"] = [
                (f"mAP_depth_{level}", f"{level}:", depth == level)
                for level in range(int(depth.max()) + 1)
            ]
        return groupings

    def _counted(self, members: np.ndarray) -> np.ndarray:
        """Returns which classes of a group have an average precision."""
        return members & ~np.isnan(self.statistics.average_precision)

    def _mean(self, members: np.ndarray) -> float:
        return mean_over_present(self.statistics.average_precision[members])


def fraction(value: float) -> str:
    """Formats a number with four decimals; "" for nan."""
    return "" if math.isnan(value) else f"{value:.4f}"


def _found_here(metrics: MultiLabelMetrics) -> np.ndarray:
    """Returns the thresholds of the highest F1, float64 [C]; nan if there are no positives."""
    if not metrics.pooled_counts().positives.sum():
        return np.full(metrics.num_classes, np.nan)
    return find_thresholds(metrics, Objective()).probabilities
