# SPDX-License-Identifier: BSD-3-Clause
"""Labels of many rows as sortable integers: one sort unites them, the largest confidence first.

A key holds row, class and confidence from its highest bits to its lowest. The bits of a float32
that is not negative, read as an integer, are in the order of the floats; 1.0 needs 30 of them.
Sorting such keys is several times as fast as sorting the labels by three columns.
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mlimages_jax.labels.lists import LabelList

MAX_CLASSES = 1 << 20  # that fit into a key
MAX_ROWS = 1 << 13  # likewise: work on blocks of so many rows
_CONFIDENCE_BITS = 30
_CLASS_BITS = 20


def class_keys(classes: np.ndarray) -> np.ndarray:
    """The part of a class in a key, int64 of the same shape; add the others to it.

    Args:
        classes: any shape, 0 to MAX_CLASSES - 1.

    Raises:
        ValueError: a class is too large.
    """
    if classes.size and classes.max() >= MAX_CLASSES:
        raise ValueError(f"class {classes.max()} is not below {MAX_CLASSES}")
    return classes.astype(np.int64) << _CONFIDENCE_BITS


def row_keys(rows: np.ndarray, confidences: np.ndarray) -> np.ndarray:
    """The part of rows and confidences in a key.

    Args:
        rows: int [n], 0 to MAX_ROWS - 1.
        confidences: float32 [n], -1 or between 0 and 1.

    Returns:
        int64 [n].
    """
    unsigned = np.float32(0) + confidences  # adding makes 0 of -0, whose sign is a high bit
    numbers = np.where(unsigned < 0, 0, unsigned.view(np.int32) + 1)  # unknown is below any known
    return (rows.astype(np.int64) << (_CLASS_BITS + _CONFIDENCE_BITS)) + numbers


class Labels(NamedTuple):
    """The labels of R rows.

    Attributes:
        counts: int64 [R], of each row.
        classes: int32 [n], ascending within a row, each once.
        confidences: float32 [n].
    """

    counts: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray


def without_confidences(keys: np.ndarray) -> np.ndarray:
    """Returns int64 of the same shape, which say row and class of keys: equal if both are."""
    return keys >> _CONFIDENCE_BITS


def unite_labels(keys: np.ndarray, *, num_rows: int) -> Labels:
    """Unites labels: every class once a row, with its largest confidence (-1 is below 0).

    Args:
        keys: int64 [n], sums of `class_keys` and `row_keys`, in any order. Sorted in place.
        num_rows: MAX_ROWS at most.
    """
    keys.sort()
    labels = without_confidences(keys)
    last = np.append(labels[1:] != labels[:-1], True)[: len(labels)]  # the largest of a class
    labels = labels[last]
    numbers = (keys[last] & ((1 << _CONFIDENCE_BITS) - 1)).astype(np.int32)
    return Labels(
        counts=np.bincount(labels >> _CLASS_BITS, minlength=num_rows),
        classes=(labels & (MAX_CLASSES - 1)).astype(np.int32),
        confidences=np.where(numbers == 0, np.float32(-1), (numbers - 1).view(np.float32)),
    )


def relabel(label_list: LabelList, blocks: Iterable[Labels]) -> LabelList:
    """Returns the list with other labels: those of its first rows, of the next ones, and so on."""
    empty = Labels(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    counts, classes, confidences = map(np.concatenate, zip(empty, *blocks, strict=True))
    return dataclasses.replace(
        label_list, offsets=np.cumsum(counts), classes=classes, confidences=confidences
    )
