# SPDX-License-Identifier: BSD-3-Clause
"""What the k best classes of each image are, and how good they are: instance and hierarchical.

`states` is int8 [n, C], `POSITIVE`, `NEGATIVE` or `IGNORED` (made by `metrics.judge`). The
accumulators hold integer counts, which add over batches and hosts without rounding.
"""

import dataclasses

import numpy as np

from mlimages_jax.metrics.average_precision import IGNORED, POSITIVE

NAN = float("nan")


def top_classes(scores: np.ndarray, states: np.ndarray, k: int) -> np.ndarray:
    """The k best judged classes of each image, int32 [n, k], best first.

    Equal scores go to the lower class index. Ignored classes take no place; -1 fills the places
    of an image with fewer than k judged classes.
    """
    judged = states != IGNORED
    ranked = np.where(judged, scores, np.float32(-np.inf))
    cut = max(scores.shape[1] - k, 0)
    last_place = np.partition(ranked, cut, axis=1)[:, cut, None]  # the k-th best score, [n, 1]
    rows, classes = np.nonzero((ranked >= last_place) & judged)  # k a row, more where scores tie
    order = np.lexsort((-ranked[rows, classes], rows))  # stable: ties stay in class order
    rows, classes = rows[order], classes[order]
    place = np.arange(rows.size) - np.searchsorted(rows, rows)
    top = np.full((len(scores), k), -1, np.int32)
    top[rows[place < k], place[place < k]] = classes[place < k]
    return top


@dataclasses.dataclass
class InstanceMetrics:
    """Precision, recall and F1 of each image's k best classes, averaged over images.

    With h positives among the k classes and p positives in all: precision h / k, recall h / p, F1
    2 h / (k + p), their harmonic mean. These are the example-based measures (Godbole and Sarawagi,
    2004; `average="samples"` in scikit-learn), each averaged by itself over the images that have
    a positive, so the F1 reported is not the harmonic mean of the two numbers beside it. Precision
    divides by k even where an image has fewer judged classes.

    All three are functions of (h, p): what is kept is the table of how many images have which.
    """

    k: int
    num_classes: int

    def __post_init__(self) -> None:
        self.images = np.zeros((self.k + 1, self.num_classes + 1), np.int64)  # [h, p]

    def update(self, top: np.ndarray, states: np.ndarray) -> None:
        """Count one batch; `top` from `top_classes` with this k or a greater one."""
        top = top[:, : self.k]
        found = (np.take_along_axis(states, top, axis=1) == POSITIVE) & (top >= 0)
        examples = (states != IGNORED).any(axis=1)
        positives = (states == POSITIVE).sum(axis=1)
        np.add.at(self.images, (found.sum(axis=1)[examples], positives[examples]), 1)

    def sums(self) -> dict[str, np.ndarray]:
        """Images by hits and positives, int64 [k + 1, C + 1]."""
        return {"images": self.images.copy()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Add another accumulator's table."""
        self.images += sums["images"]

    def examples(self) -> int:
        """Images with a judged class, whether or not one is positive."""
        return int(self.images.sum())

    def compute(self) -> dict[str, float]:
        """`precision@k`, `recall@k` and `f1@k`; nan when no image has a positive."""
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

    The k best classes of an image and its positive classes are both closed over ancestors; with
    these sets S and T, hP = sum |S and T| / sum |S|, hR = sum |S and T| / sum |T|, and hF is their
    harmonic mean. The sums run over the images that have a positive. The paper leaves out the
    root that all its classes share; the roots here are several and say something, so they count.
    Classes that are ignored in an image are taken out of both its sets after closing them.

    Args:
        paths: int [C, D]; row i is class i, then its ancestors, then -1.
        k: how many classes are predicted for each image.
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
        """Count one batch; `top` from `top_classes` with this k or a greater one."""
        top = top[:, : self.k]
        rows, places = np.nonzero(top >= 0)
        predicted = self._close(rows, top[rows, places], states=states)
        true = self._close(*np.nonzero(states == POSITIVE), states=states)
        predicted &= (states == POSITIVE).any(axis=1)[:, None]
        self.counts += [(predicted & true).sum(), predicted.sum(), true.sum()]

    def _close(self, rows: np.ndarray, classes: np.ndarray, *, states: np.ndarray) -> np.ndarray:
        """Judged classes among the given ones and their ancestors, bool [n, C]."""
        closed = np.zeros((states.shape[0], states.shape[1] + 1), bool)
        closed[rows[:, None], self.paths[classes]] = True  # the padding -1 falls into column C
        return closed[:, :-1] & (states != IGNORED)

    def sums(self) -> dict[str, np.ndarray]:
        """Sizes of intersections, predicted and true sets, int64 [3]."""
        return {"counts": self.counts.copy()}

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Add another accumulator's counts."""
        self.counts += sums["counts"]

    def compute(self) -> dict[str, float]:
        """`hierarchical_precision`, `_recall` and `_f1`; nan when no image has a positive."""
        both, predicted, true = (int(count) for count in self.counts)
        return {
            "hierarchical_precision": both / predicted if predicted else NAN,
            "hierarchical_recall": both / true if true else NAN,
            "hierarchical_f1": 2 * both / (predicted + true) if predicted + true else NAN,
        }
