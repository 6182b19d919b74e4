# SPDX-License-Identifier: BSD-3-Clause
"""Checks before a training whether a data set has labels that something can be learned from."""

import numpy as np
from absl import logging

from mlimages_jax.data.class_priors import ClassCounts, class_counts
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.files.counting import counted
from mlimages_jax.labels.hierarchy import Hierarchy

_SHOWN_CLASSES = 5


class UnsuitableSetError(ValueError):
    """Nothing can be learned from a data set; the message says why."""


def check_labels(data: DataSet, split: str) -> ClassCounts:
    """Warns of classes that no image has, and refuses what nothing can be learned from.

    Args:
        data: The data set.
        split: Name of the split to train on.

    Returns:
        The labels of the split, or of a sample of it.

    Raises:
        UnsuitableSetError: The split has fewer than two images, no image has a label, or all have
            the only class.
    """
    images = data.num_records(split)
    if images < 2:
        raise UnsuitableSetError(
            f"{data.folder}: {split} has {counted(images, 'image')}: give at least two, "
            "better a hundred per class"
        )
    counts = class_counts(data, split)
    if not counts.totals.any():
        raise UnsuitableSetError(
            f"{data.folder}: no image of {split} has a label: look at the rows that `mlimages data "
            "import --dry-run` shows, and name the columns of the labels with --label-columns"
        )
    if data.num_classes == 1 and not counts.unlabelled:
        raise UnsuitableSetError(
            f"{data.folder}: every image of {split} has the only class: add images without it, or "
            "of other classes"
        )
    _warn_of_missing_classes(data, split, counts)
    return counts


def _warn_of_missing_classes(data: DataSet, split: str, counts: ClassCounts) -> None:
    missing = np.flatnonzero(counts.totals == 0)
    if not len(missing):
        return
    where = split
    if counts.images < data.num_records(split):
        where = f"the {counts.images:,} images of {split} that were sampled"
    names = Hierarchy.from_file(data.class_list).names
    shown = ", ".join(repr(names[i]) for i in missing[:_SHOWN_CLASSES].tolist())
    logging.warning(
        "%d of %d classes have no image in %s, and one without any cannot be learned: %s%s",
        len(missing), data.num_classes, where, shown, " ..." * (len(missing) > _SHOWN_CLASSES),
    )  # fmt: skip
