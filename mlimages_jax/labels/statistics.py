# SPDX-License-Identifier: BSD-3-Clause
"""Statistics of label lists, as sums that can be merged: classes, tags, confidences, closure.

A tag is a label with a positive confidence: 1 is certain, less is soft. 0 (known to be absent) and
-1 (unknown) are labels but not tags; an image belongs to the classes of its tags.

A row is closed if the parent of every tag is a tag of the row too, with at least the child's
confidence. The same then holds for all ancestors: these are the rows that `Hierarchy.close` does
not change.
"""

import collections
import copy
from typing import Any

import numpy as np

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.names import row_digests
from mlimages_jax.labels.rows import label_rows

UNKNOWN, ABSENT, SOFT, CERTAIN = range(4)  # kinds of labels
STEPS = 1000  # resolution of confidences; they are rounded, so that there are few counts
_CONFIDENCES = np.append(-1, np.arange(STEPS + 1) / STEPS)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class ListStatistics:
    """Counts over rows, in some hundred bytes per class, and 8 per row (`compute`: 16) for names.

    Args:
        hierarchy: Hierarchy of C classes.

    Attributes:
        hierarchy: The same.
        labels: int64 [4, C], labels by kind and class.
        tags: int64 [C + 1], images by their number of tags.
        confidences: int64 [STEPS + 2], labels by confidence: -1, then 0, 0.001, ... 1 (rounded).
        orphans: int64 [C], tags whose parent is absent or weaker, by class.
        closure: int64 [3]: rows that are not closed, rows that lack an ancestor of a tag, and the
            tags that closing would add to these.
    """

    def __init__(self, hierarchy: Hierarchy):
        classes = len(hierarchy)
        self.hierarchy = hierarchy
        self.labels = np.zeros((4, classes), np.int64)
        self.tags = np.zeros(classes + 1, np.int64)
        self.confidences = np.zeros(STEPS + 2, np.int64)
        self.orphans = np.zeros(classes, np.int64)
        self.closure = np.zeros(3, np.int64)
        self._digests: list[np.ndarray] = []
        self._walk = _Walk(hierarchy)

    @property
    def images_per_class(self) -> np.ndarray:
        """int64 [C]: images with the class as a tag."""
        return self.labels[SOFT] + self.labels[CERTAIN]

    def update(self, rows: LabelList) -> None:
        """Counts some rows, with classes of the hierarchy."""
        classes, confidences = rows.classes.astype(np.int64), rows.confidences
        # Sums of three comparisons: UNKNOWN, ABSENT, SOFT and CERTAIN are 0 to 3.
        kinds = (confidences >= 0).astype(np.int64) + (confidences > 0) + (confidences == 1)
        cells = np.bincount(kinds * len(self.hierarchy) + classes, minlength=self.labels.size)
        self.labels += cells.reshape(self.labels.shape)
        steps = np.rint(np.maximum(confidences, -1 / STEPS) * STEPS).astype(np.int64)
        self.confidences += np.bincount(steps + 1, minlength=STEPS + 2)

        is_tag = confidences > 0
        row = label_rows(rows)[is_tag]
        tags = np.bincount(row, minlength=len(rows))
        self.tags += np.bincount(tags, minlength=len(self.tags))
        self._update_closure(row, classes[is_tag], confidences[is_tag])
        # Of 17.6 million names, two share these 8 bytes by chance with a probability of 1e-5.
        self._digests.append(row_digests(rows).view(np.uint64)[::2].copy())

    def _update_closure(
        self, row: np.ndarray, classes: np.ndarray, confidences: np.ndarray
    ) -> None:
        """Updates `orphans` and `closure` with tags [n], ordered by row."""
        key = row * len(self.hierarchy) + self._walk.rank[classes]
        order = np.argsort(key)  # by row, and by rank within a row
        key, classes, confidences = key[order], classes[order], confidences[order]
        lacking = self._walk.new_ancestors(row, classes)

        parent = self.hierarchy.parents[classes]
        orphan = parent >= 0
        wanted = (row * len(self.hierarchy) + self._walk.rank[parent])[orphan]
        # A parent ranks before its child, so the index is at most the child's own: no overflow.
        found = np.searchsorted(key, wanted)
        orphan[orphan] = (key[found] != wanted) | (confidences[found] < confidences[orphan])

        self.orphans += np.bincount(classes[orphan], minlength=len(self.orphans))
        rows = [np.count_nonzero(np.bincount(row[which])) for which in (orphan, lacking > 0)]
        self.closure += [*rows, lacking.sum()]

    def emptied(self) -> "ListStatistics":
        """Returns statistics of the same classes without counts; faster than to create them."""
        empty = copy.copy(self)
        for name, counts in self.sums().items():
            if name != "digests":
                setattr(empty, name, np.zeros_like(counts))
        empty._digests = []
        return empty

    def sums(self) -> dict[str, np.ndarray]:
        """Returns all counts so far, for `add_sums` in another process."""
        return {
            "labels": self.labels.copy(),
            "tags": self.tags.copy(),
            "confidences": self.confidences.copy(),
            "orphans": self.orphans.copy(),
            "closure": self.closure.copy(),
            "digests": np.concatenate([np.zeros(0, np.uint64), *self._digests]),
        }

    def add_sums(self, sums: dict[str, np.ndarray]) -> None:
        """Adds the counts of other statistics with the same hierarchy."""
        self.labels += sums["labels"]
        self.tags += sums["tags"]
        self.confidences += sums["confidences"]
        self.orphans += sums["orphans"]
        self.closure += sums["closure"]
        self._digests.append(sums["digests"])

    def compute(self, *, trainable_above: int = 100) -> dict[str, dict[str, Any]]:
        """Returns the statistics as nested dicts of plain Python numbers, ready for JSON.

        Args:
            trainable_above: A class with more images than this counts as trainable.

        Raises:
            ValueError: No rows were counted.
        """
        if not self.tags.any():
            raise ValueError("no rows were counted: an empty list has no statistics")
        per_class = self.images_per_class
        not_closed, lacking, to_add = self.closure.tolist()
        kinds = self.labels.sum(axis=1).tolist()
        return {
            "images": {
                "total": int(self.tags.sum()),
                "without_tags": int(self.tags[0]),
                "repeated_names": _count_repetitions(self._digests),
            },
            "classes": {
                "total": len(per_class),
                "with_images": int((per_class > 0).sum()),
                "trainable": int((per_class > trainable_above).sum()),
                "trainable_above": trainable_above,
            },
            "labels": {
                "total": sum(kinds),
                "certain": kinds[CERTAIN],
                "soft": kinds[SOFT],
                "absent": kinds[ABSENT],
                "unknown": kinds[UNKNOWN],
            },
            "confidences": _as_dict(self.confidences, _CONFIDENCES),
            "tags_per_image": _describe_tags(self.tags),
            "images_per_class": _describe_classes(per_class),
            "closure": {
                "rows_not_closed": not_closed,
                "rows_lacking_an_ancestor": lacking,
                "tags_to_add": to_add,
                "tags_without_parent": int(self.orphans.sum()),
            },
            "hierarchy": _describe_hierarchy(self.hierarchy),
            "depth_of_tags": _describe_depths(per_class, self.hierarchy.depth),
        }


class _Walk:
    """An order of the classes in which every class comes before its descendants (preorder).

    Attributes:
        rank: int64 [C], position of each class in this order.
    """

    def __init__(self, hierarchy: Hierarchy):
        paths, depth = hierarchy.paths(), hierarchy.depth
        upwards = depth[:, None] - np.arange(paths.shape[1])  # edges from the class to a column
        down = np.take_along_axis(paths, np.maximum(upwards, 0), axis=1)  # [C, D], root first
        order = np.lexsort(np.where(upwards >= 0, down, -1).T[::-1])
        self.rank = np.empty(len(hierarchy), np.int64)
        self.rank[order] = np.arange(len(hierarchy))
        # Beyond its end a path repeats its class, which no other path has in these columns: two
        # paths are equal exactly as far as they share nodes.
        self._down = np.ascontiguousarray(down.T)  # [D, C]
        self._depth = depth

    def new_ancestors(self, row: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Counts the ancestors of each tag that are neither tags nor ancestors of an earlier tag.

        The sum over a row is what the row lacks. An ancestor that is a tag comes before its
        descendants, and everything between the two descends from it too; so the path of a tag
        leaves all earlier paths where it leaves the previous one.

        Args:
            row: [n], ascending.
            classes: [n], in preorder within a row.

        Returns:
            int32 [n].
        """
        shared = np.zeros(len(classes), np.int32)
        for column in self._down:
            nodes = column[classes]
            shared[1:] += nodes[1:] == nodes[:-1]
        shared[1:][row[1:] != row[:-1]] = 0
        return self._depth[classes] - shared


def _count_repetitions(digests: list[np.ndarray]) -> int:
    """Counts the rows that repeat the name of an earlier row."""
    every = np.concatenate(digests)
    every.sort()
    return int((every[1:] == every[:-1]).sum())


def _as_dict(counts: np.ndarray, values: np.ndarray) -> dict[str, int]:
    """Returns {value: count} without zero counts; JSON keys must be strings."""
    return {f"{values[i]:.10g}": int(counts[i]) for i in np.flatnonzero(counts)}


def _describe_tags(histogram: np.ndarray) -> dict[str, Any]:
    numbers, images = np.arange(len(histogram)), int(histogram.sum())
    total = int(histogram @ numbers)
    middle = [(images - 1) // 2, images // 2]  # equal if the number of images is odd
    return {
        "total": total,
        "mean": total / images,
        "median": float(np.searchsorted(histogram.cumsum(), middle, side="right").mean()),
        "max": int(np.flatnonzero(histogram)[-1]),
        "histogram": _as_dict(histogram, numbers),
    }


def _describe_classes(images: np.ndarray) -> dict[str, Any]:
    return {
        "mean": float(images.mean()),
        "min": int(images.min()),
        "max": int(images.max()),
        "quantiles": {f"{q:g}": float(np.quantile(images, q)) for q in _QUANTILES},
    }


def _describe_hierarchy(hierarchy: Hierarchy) -> dict[str, Any]:
    depth, uses = hierarchy.depth, collections.Counter(hierarchy.names)
    return {
        "roots": len(hierarchy.roots),
        "leaves": len(hierarchy.leaves),
        "max_depth": int(depth.max()),
        "mean_depth": float(depth.mean()),
        "classes_by_depth": _as_dict(np.bincount(depth), np.arange(depth.max() + 1)),
        "repeated_names": sum(count > 1 for count in uses.values()),
    }


def _describe_depths(images: np.ndarray, depth: np.ndarray) -> dict[str, Any]:
    tags = int(images.sum())
    by_depth = np.zeros(depth.max() + 1, np.int64)
    np.add.at(by_depth, depth, images)
    return {
        "mean": int(images @ depth) / tags if tags else None,
        "histogram": _as_dict(by_depth, np.arange(len(by_depth))),
    }
