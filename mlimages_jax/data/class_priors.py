# SPDX-License-Identifier: BSD-3-Clause
"""Estimates how often each class is present in a split: the prior that a classifier starts from."""

from typing import NamedTuple

import numpy as np

from mlimages_jax.data.class_positives import read_intact
from mlimages_jax.data.dataset import DataSet

MAX_IMAGES = 20_000  # of a larger split a sample will do, for an initial bias


class ClassCounts(NamedTuple):
    """What the labels of some images add up to.

    Attributes:
        totals: Sum of the targets of every class, float64 [C].
        known: Number of images in which a class is known, float64 [C].
        images: Number of images.
        unlabelled: Number of images in which no class is present.
    """

    totals: np.ndarray
    known: np.ndarray
    images: int
    unlabelled: int


def class_priors(data: DataSet, split: str, *, max_images: int = MAX_IMAGES) -> np.ndarray:
    """Returns the mean target of every class over the images in which it is known.

    With k images and a sum of targets s this is (s + 1/2) / (k + 1), which is never 0 or 1: the
    mean under Jeffreys' prior. Larger splits are sampled at equal distances, the same images in
    every run; damaged records are left out.

    Args:
        data: The data set.
        split: Name of the split.
        max_images: Number of images to read at most.

    Returns:
        float64 [C].
    """
    counts = class_counts(data, split, max_images=max_images)
    return (counts.totals + 0.5) / (counts.known + 1)


def class_counts(data: DataSet, split: str, *, max_images: int = MAX_IMAGES) -> ClassCounts:
    """Adds up the labels of a split, or of a sample of it. Arguments as for `class_priors`."""
    records = data.records(split)
    picked = np.linspace(0, len(records) - 1, min(max_images, len(records))).astype(int)

    totals = np.zeros(data.num_classes)
    known = np.zeros(data.num_classes)
    images = unlabelled = 0
    for record in read_intact(records, picked):
        images += 1
        unlabelled += not (record.confidences > 0).any()
        is_known = record.confidences >= 0
        np.add.at(totals, record.labels[is_known], record.confidences[is_known])
        # Where missing labels mean "absent", every class is known except those listed as -1, so the
        # exceptions are counted; where they mean "unknown", only listed classes are known.
        counted = ~is_known if data.missing_labels == 0 else is_known
        np.add.at(known, record.labels[counted], 1)
    if data.missing_labels == 0:
        known = images - known
    return ClassCounts(totals, known, images, unlabelled)
