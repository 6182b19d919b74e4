# SPDX-License-Identifier: BSD-3-Clause
"""Finds classes that occur together in a model's predictions on images of one known class.

After Wu et al., "Tencent ML-Images" (2019): CO(i, j) is the fraction of the images of class i in
which the model confidently predicts class j too. If it is large and neither class is an ancestor of
the other, every image labelled i gets the label j. (Labels along a path of the hierarchy need no
statistics: closing the list adds them.)
"""

from typing import NamedTuple

import numpy as np

from mlimages_jax.labels import label_keys
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.rows import iter_blocks, label_rows

_LEAST_MERGED = 1 << 20  # minimum number of waiting pairs before they are merged into the sums


class Pairs(NamedTuple):
    """P pairs of classes i and j with their counts; ordered by i, then j.

    Attributes:
        first: int64 [P], class i, of the image.
        second: int64 [P], class j, predicted.
        images: int64 [P], images of class i.
        both: int64 [P], images of class i for which j was predicted.
    """

    first: np.ndarray
    second: np.ndarray
    images: np.ndarray
    both: np.ndarray

    @property
    def fraction(self) -> np.ndarray:
        """float64 [P]: CO(i, j)."""
        return self.both / self.images

    def where(self, chosen: np.ndarray) -> "Pairs":
        """Returns the pairs selected by a bool [P]."""
        return Pairs(*(column[chosen] for column in self))


class CoOccurrences:
    """Counts images of each class, and of each pair of classes that occurs.

    Takes 16 bytes per occurring pair, three times as much while counts are merged; never a C x C
    matrix.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int):
        self.images = np.zeros(num_classes, np.int64)  # [C] images of each class
        self._keys = np.empty(0, np.int64)  # i * C + j of the pairs, ascending
        self._both = np.empty(0, np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []  # keys and counts, not merged yet
        self._num_waiting = 0  # pairs in them

    def add(self, classes: np.ndarray, images: np.ndarray, predicted: np.ndarray) -> None:
        """Adds a batch of N images.

        Args:
            classes: int [N], class of each image.
            images: int [n], index of an image, 0 to N - 1, ...
            predicted: int [n], ... and a class predicted for it, each at most once.
        """
        self.images += np.bincount(classes, minlength=len(self.images))
        keys = classes[images].astype(np.int64) * len(self.images) + predicted
        keys, both = np.unique(keys, return_counts=True)
        self._waiting.append((keys, both))
        self._num_waiting += len(keys)
        # A merge takes time proportional to all pairs, so it waits until there is enough to merge.
        if self._num_waiting > max(_LEAST_MERGED, len(self._keys)):
            self._merge()

    def pairs(self) -> Pairs:
        """Returns all pairs that occur, including those with i = j."""
        self._merge()
        first, second = np.divmod(self._keys, len(self.images))
        return Pairs(first, second, self.images[first], self._both)

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
        both = np.concatenate([self._both, *(counts for _, counts in self._waiting)])
        self._waiting.clear()
        self._num_waiting = 0
        order = np.argsort(keys)
        keys, both = keys[order], both[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))  # the first of each run of equal keys
        self._keys = keys[starts]
        self._both = np.add.reduceat(both, starts) if len(starts) else both


class Addition(NamedTuple):
    """A list with the labels of pairs added.

    Attributes:
        label_list: The same rows, classes ascending within each.
        new_labels: int64 [P]: rows with class i that did not have class j. A label that a row gets
            from two pairs counts for both.
    """

    label_list: LabelList
    new_labels: np.ndarray


def on_common_path(hierarchy: Hierarchy, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns bool [n]: whether the two classes are equal or one is an ancestor of the other.

    Args:
        hierarchy: Hierarchy of the classes.
        first: int [n].
        second: int [n].
    """
    return _is_above(hierarchy, first, second) | _is_above(hierarchy, second, first)


def single_classes(label_list: LabelList, hierarchy: Hierarchy) -> np.ndarray:
    """Finds the class of the images that have exactly one.

    One of the labels with a positive confidence must be below all others in the hierarchy: a row
    with a class and any of its ancestors, closed or not, is an image of that class.

    Args:
        label_list: A list with classes of `hierarchy`.
        hierarchy: Hierarchy of the classes.

    Returns:
        int32 [N], -1 for rows without a positive label or with labels on different paths.
    """
    positive = label_list.confidences > 0
    rows, classes = label_rows(label_list)[positive], label_list.classes[positive]
    # NumPy assigns in order: of several writes to a row, the last one, the deepest label, remains.
    order = np.argsort(hierarchy.depth[classes], kind="stable")
    deepest = np.full(len(label_list), -1, np.int32)
    deepest[rows[order]] = classes[order]
    elsewhere = ~_is_above(hierarchy, classes, deepest[rows])
    deepest[rows[elsewhere]] = -1
    return deepest


def add_pairs(label_list: LabelList, pairs: Pairs, *, confidence_factors: np.ndarray) -> Addition:
    """Adds class j to every row that has class i with a positive confidence, for every pair.

    The new label has the confidence of i times the factor of the pair. If the row already has j, or
    gets it from several pairs, the maximum confidence is kept. Added labels do not add others.

    Args:
        label_list: Any rows.
        pairs: Pairs ordered by i.
        confidence_factors: float [P], between 0 and 1.
    """
    new_labels = np.zeros(len(pairs.first), np.int64)

    def add_to(block: LabelList) -> label_keys.RowLabels:
        nonlocal new_labels
        rows = label_rows(block)
        old = label_keys.class_keys(block.classes) + label_keys.row_keys(rows, block.confidences)
        label, pair = _matches(block, pairs.first)
        values = (block.confidences[label] * confidence_factors[pair]).astype(np.float32)
        more = label_keys.class_keys(pairs.second[pair])
        more += label_keys.row_keys(rows[label], values)
        known = np.isin(label_keys.without_confidences(more), label_keys.without_confidences(old))
        new_labels += np.bincount(pair[~known], minlength=len(new_labels))
        return label_keys.unite_labels(np.concatenate([old, more]), num_rows=len(block))

    blocks = iter_blocks(label_list, label_keys.MAX_ROWS)
    return Addition(label_keys.relabel(label_list, map(add_to, blocks)), new_labels)


def _is_above(hierarchy: Hierarchy, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Returns bool [n]: whether `upper` equals `lower` or is an ancestor of it."""
    # An ancestor is as many steps above as its depth is smaller, which needs no walk.
    steps = hierarchy.depth[lower] - hierarchy.depth[upper]
    return (steps >= 0) & (hierarchy.paths()[lower, np.maximum(steps, 0)] == upper)


def _matches(label_list: LabelList, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of positive labels and of pairs, [n] each, with the same class i."""
    positive = np.flatnonzero(label_list.confidences > 0)
    start = np.searchsorted(first, label_list.classes[positive])
    count = np.searchsorted(first, label_list.classes[positive], side="right") - start
    labels = np.repeat(positive, count)
    within = np.arange(len(labels)) - np.repeat(np.cumsum(count) - count, count)
    return labels, np.repeat(start, count) + within
