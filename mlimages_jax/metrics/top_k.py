# SPDX-License-Identifier: BSD-3-Clause
"""The k best classes of each image, and their quality: per-image and hierarchical metrics.

`states` is int8 [n, C], `POSITIVE`, `NEGATIVE` or `IGNORED` (made by `multi_label.judge`). The
accumulators store integer counts, which add over batches and hosts without rounding.
"""

import dataclasses

import numpy as np

from mlimages_jax.metrics.average_precision import IGNORED, POSITIVE

NAN = float("nan")


def top_classes(scores: np.ndarray, states: np.ndarray, k: int) -> np.ndarray:
    """Returns the k best judged classes of each image, int32 [n, k], best first.

    Ties go to the lower class index. Ignored classes are skipped; images with fewer than k judged
    classes are padded with -1.
    """
    judged = states != IGNORED
    ranked = np.where(judged, scores, np.float32(-np.inf))
    start = max(scores.shape[1] - k, 0)
    # Not argpartition, which would choose among tied classes arbitrarily.
    kth_best = np.partition(ranked, start, axis=1)[:, start, None]  # [n, 1]
    rows, classes = np.nonzero((ranked >= kth_best) & judged)  # k per row, more if scores tie
    order = np.lexsort((-ranked[rows, classes], rows))  # stable: ties stay in class order
    rows, classes = rows[order], classes[order]
    rank = np.arange(rows.size) - np.searchsorted(rows, rows)
    top = np.full((len(scores), k), -1, np.int32)
    top[rows[rank < k], rank[rank < k]] = classes[rank < k]
    return top


@dataclasses.dataclass
class InstanceMetrics:
    """Precision, recall and F1 of each image's k best classes, averaged over images.

    With h positives among the k classes and p positives in all: precision h / k, recall h / p, and
    F1 2 h / (k + p), their harmonic mean. These are the example-based measures (Godbole and
    Sarawagi, 2004; `average="samples"` in scikit-learn). Each is averaged separately over the
    images with a positive, so the reported F1 is not the harmonic mean of the reported precision
    and recall. Precision divides by k even if an image has fewer judged classes.

    All three are functions of (h, p), so only the number of images for each (h, p) is stored.
    """

    k: int
    num_classes: int

    def __post_init__(self) -> None:
        self.images = np.zeros((self.k + 1, self.num_classes + 1), np.int64)  # [h, p]

    def update(self, top: np.ndarray, states: np.ndarray) -> None:
        """Counts one batch: states int8 [n, C], top int [n, >= k] from `top_classes`."""
        top = top[:, : self.k]
        found = (np.take_along_axis(states, top, axis=1) == POSITIVE) & (top >= 0)
        examples = (states != IGNORED).any(axis=1)
        positives = (states == POSITIVE).sum(axis=1)
        # add.at counts an index every time it occurs; += would count it once.
        np.add.at(self.images, (found.sum(axis=1)[examples], positives[examples]), 1)

    def sums(self) -> dict[str, np.ndarray]:
        """Returns images by hits and positives, int64 [k + 1, C + 1]."""
        return {"images": self.images.copy()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds another accumulator's table."""
        self.images += sums["images"]

    def examples(self) -> int:
        """Returns the number of images with a judged class, whether or not one is positive."""
        return int(self.images.sum())

    def compute(self) -> dict[str, float]:
        """Returns `precision@k`, `recall@k` and `f1@k`; nan if no image has a positive."""
        images = self.images[:, 1:]
        hits, positives = np.arange(self.k + 1)[:, None], np.arange(1, self.num_classes + 1)
        total = images.sum()
        values = {
            "precision": hits / self.k,
            "recall": hits / positives,
            "f1": 2 * hits / (self.k + positives),
        }
        return {
            f"{name}@{self.k}": float((images * value).sum() / total) if total else NAN
            for name, value in values.items()
        }


@dataclasses.dataclass
class HierarchicalMetrics:
    """Hierarchical precision, recall and F1 (Kiritchenko, Matwin, Nock and Famili, 2006).

    The k best classes of an image and its positive classes are both closed over ancestors. With
    these sets S and T, hP = sum |S and T| / sum |S|, hR = sum |S and T| / sum |T|, and hF is their
    harmonic mean. The sums run over the images with a positive. The paper leaves out the root that
    all its classes share; here there are several informative roots, so they count. Classes that are
    ignored in an image are removed from both its sets after closing them.

    Args:
        paths: Integers [C, D]; row i is class i, then its ancestors, then -1.
        k: Number of predicted classes per image.
    """

    paths: np.ndarray
    k: int = 5

    def __post_init__(self) -> None:
        self.paths = np.asarray(self.paths)
        firsts = self.paths[:, 0]
        wrong = np.flatnonzero(firsts != np.arange(len(firsts)))
        if wrong.size:
            raise ValueError(
                f"paths[{wrong[0]}] starts with {firsts[wrong[0]]}: each row must be the class "
                "itself, then its ancestors, padded with -1"
            )
        self.counts = np.zeros(3, np.int64)  # |S and T|, |S|, |T|

    def update(self, top: np.ndarray, states: np.ndarray) -> None:
        """Counts one batch: states int8 [n, C], top int [n, >= k] from `top_classes`."""
        top = top[:, : self.k]
        rows, places = np.nonzero(top >= 0)
        predicted = self._close(rows, top[rows, places], states=states)
        true = self._close(*np.nonzero(states == POSITIVE), states=states)
        # An image without a positive would only lower the precision.
        predicted &= (states == POSITIVE).any(axis=1)[:, None]
        self.counts += [(predicted & true).sum(), predicted.sum(), true.sum()]

    def _close(self, rows: np.ndarray, classes: np.ndarray, *, states: np.ndarray) -> np.ndarray:
        """Returns the judged classes among the given ones and their ancestors, bool [n, C]."""
        closed = np.zeros((states.shape[0], states.shape[1] + 1), bool)
        closed[rows[:, None], self.paths[classes]] = True  # padding -1 marks the extra column C
        return closed[:, :-1] & (states != IGNORED)

    def sums(self) -> dict[str, np.ndarray]:
        """Returns the sizes of the intersections and the predicted and true sets, int64 [3]."""
        return {"counts": self.counts.copy()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds another accumulator's counts."""
        self.counts += sums["counts"]

    def compute(self) -> dict[str, float]:
        """Returns `hierarchical_precision`, `_recall` and `_f1`; nan if no image has a positive."""
        both, predicted, true = (int(count) for count in self.counts)
        return {
            "hierarchical_precision": both / predicted if predicted else NAN,
            "hierarchical_recall": both / true if true else NAN,
            "hierarchical_f1": 2 * both / (predicted + true) if predicted + true else NAN,
        }
