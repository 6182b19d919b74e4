# SPDX-License-Identifier: BSD-3-Clause
"""Pairs of classes that are confused, for images with several labels each. NumPy only.

An image with p positive classes is given its p best judged classes. Each positive among them is a
hit. Every other positive, a miss, is paired with every false alarm, without classes that another
miss or another false alarm implies: taking a poodle for a truck is one confusion, not also one of
dog and vehicle.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mlimages_jax.metrics.average_precision import NEGATIVE, POSITIVE
from mlimages_jax.metrics.top_k import top_classes


class ConfusedPair(NamedTuple):
    """A pair of classes, and how many images of the first were predicted as the second."""

    true: int
    predicted: int
    images: int


def confused_pairs(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], paths: np.ndarray | None, *, count: int
) -> list[ConfusedPair]:
    """Returns at most `count` pairs, most frequently confused first; ties by class indices.

    Args:
        batches: Scores float32 [n, C] and states int8 [n, C] of the images.
        paths: Integers [C, D] from `Hierarchy.paths`; None if no class implies another.
        count: Maximum number of pairs.
    """
    keys = [np.empty(0, np.int64)]
    num_classes = 1
    for scores, states in batches:
        num_classes = scores.shape[1]
        missed, wrong = _mistakes(scores, states)
        if paths is not None:
            _drop_implied(missed, paths)
            _drop_implied(wrong, paths)
        keys.append(_pairs(missed, wrong))
    pairs, images = np.unique(np.concatenate(keys), return_counts=True)
    worst = np.argsort(-images, kind="stable")[:count]
    return [
        ConfusedPair(pair // num_classes, pair % num_classes, number)
        for pair, number in zip(pairs[worst].tolist(), images[worst].tolist(), strict=True)
    ]


def _mistakes(scores: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the misses and the false alarms, bool [n, C] each."""
    is_positive = states == POSITIVE
    positives = is_positive.sum(axis=1)
    top = top_classes(scores, states, int(positives.max(initial=1)))
    rows, ranks = np.nonzero((np.arange(top.shape[1]) < positives[:, None]) & (top >= 0))
    given = np.zeros(states.shape, bool)
    given[rows, top[rows, ranks]] = True
    return is_positive & ~given, given & (states == NEGATIVE)


def _drop_implied(classes: np.ndarray, paths: np.ndarray) -> None:
    """Removes the ancestors of classes from bool [n, C], in place."""
    rows, columns = np.nonzero(classes)
    for above in paths[columns, 1:].T:
        exists = above >= 0
        classes[rows[exists], above[exists]] = False


def _pairs(missed: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Returns miss * C + false alarm for every pair of each row of bool [n, C], int64."""
    rows, true = np.nonzero(missed)
    other_rows, predicted = np.nonzero(wrong)
    first = np.searchsorted(other_rows, rows)
    partners = np.searchsorted(other_rows, rows, side="right") - first
    within = np.arange(partners.sum()) - np.repeat(np.cumsum(partners) - partners, partners)
    pairs = predicted[np.repeat(first, partners) + within]
    return np.repeat(true, partners).astype(np.int64) * missed.shape[1] + pairs
