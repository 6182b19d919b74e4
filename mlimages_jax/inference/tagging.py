# SPDX-License-Identifier: BSD-3-Clause
"""From the scores of all classes to the tags of an image. NumPy only."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from mlimages_jax.files.text_files import TextFileError, read_text
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.average_precision import IGNORED, NEGATIVE
from mlimages_jax.metrics.top_k import top_classes

Thresholds = str | os.PathLike[str] | Mapping[str | int, float]


class ThresholdError(ValueError):
    """Thresholds of classes that do not exist, or that are no numbers from 0 to 1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tag:
    """A class that an image is said to show.

    Attributes:
        index: of the class.
        id: its WordNet id.
        name: all its synonyms, such as "great white shark, white shark".
        score: its probability.
        path: names from the root down to the class itself.
    """

    index: int
    id: str
    name: str
    score: float
    path: tuple[str, ...]


def tagger(
    hierarchy: Hierarchy,
    *,
    top_k: int | None = 5,
    threshold: float | None = None,
    thresholds: Thresholds | None = None,
    consistent: bool = False,
) -> Callable[[np.ndarray], list[list[Tag]]]:
    """A function from scores [n, C] to the tags of n images.

    Args:
        hierarchy: of the C classes.
        top_k: as for `best_tags`.
        threshold: as for `class_limits`.
        thresholds: as for `class_limits`.
        consistent: apply `consistent_scores` first.

    Raises:
        ThresholdError: as `class_limits`.
    """
    limits = class_limits(hierarchy, threshold=threshold, thresholds=thresholds)

    def tags_of(scores: np.ndarray) -> list[list[Tag]]:
        scores = consistent_scores(scores, hierarchy) if consistent else scores
        return best_tags(scores, hierarchy, top_k=top_k, limits=limits)

    return tags_of


def best_tags(
    scores: np.ndarray,
    hierarchy: Hierarchy,
    *,
    top_k: int | None = 5,
    limits: np.ndarray | None = None,
) -> list[list[Tag]]:
    """The classes with the highest scores of every image, best first.

    Args:
        scores: float [n, C]; equal ones go to the lower class index.
        hierarchy: of the C classes.
        top_k: at most so many tags an image; None sets no such bound.
        limits: float [C], the score that a class needs, see `class_limits`; None asks for none.

    Raises:
        ValueError: the hierarchy has another number of classes, or top_k is below 1.
    """
    scores = _checked(scores, hierarchy)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1, or None for no bound")
    states = np.full(scores.shape, NEGATIVE, np.int8)
    if limits is not None:  # compared in the precision of the scores: 0.7 reaches 0.7
        states[scores < limits.astype(scores.dtype)] = IGNORED
    count = min(top_k or len(hierarchy), len(hierarchy))
    best = top_classes(scores, states, count)  # [n, count], filled up with -1
    return [
        [_tag(int(index), float(row[index]), hierarchy) for index in classes[classes >= 0]]
        for row, classes in zip(scores, best, strict=True)
    ]


def consistent_scores(scores: np.ndarray, hierarchy: Hierarchy) -> np.ndarray:
    """Scores in which no class is above its parent: s'_i = min of s_j over i and its ancestors j.

    A poodle is a dog: whatever speaks against a dog speaks against a poodle. These are the largest
    scores below the given ones that are consistent. Roots keep theirs.

    Args:
        scores: float [n, C].
        hierarchy: of the C classes.

    Returns:
        A new array, same shape and dtype.

    Raises:
        ValueError: the hierarchy has another number of classes.
    """
    scores = _checked(scores, hierarchy)
    consistent = scores.copy()
    for ancestors in hierarchy.paths().T[1:]:  # [C], one step further up each time
        has = np.flatnonzero(ancestors >= 0)
        consistent[:, has] = np.minimum(consistent[:, has], scores[:, ancestors[has]])
    return consistent


def class_limits(
    hierarchy: Hierarchy, *, threshold: float | None = None, thresholds: Thresholds | None = None
) -> np.ndarray | None:
    """The score that every class needs.

    Args:
        hierarchy: of the C classes.
        threshold: of all classes that `thresholds` does not name; None asks nothing of these.
        thresholds: by WordNet id (str) or class index (int); or a tab-separated file, id or index,
            then threshold, where digits that are an id of these classes are taken for the id.

    Returns:
        float64 [C], -inf for classes of which nothing is asked; None where that are all.

    Raises:
        ThresholdError: a number outside 0 to 1, an unknown class, or a class that comes twice; of a
            file it names the line.
    """
    if threshold is None and thresholds is None:
        return None
    limits = np.full(len(hierarchy), -np.inf)
    if threshold is not None:
        limits[:] = _probability(threshold, where=f"threshold={threshold!r}")
    seen: dict[int, str] = {}
    for where, key, value in _entries(thresholds):
        index = _class_index(key, hierarchy, where=where)
        if index in seen:
            raise ThresholdError(
                f"{where}: class {hierarchy.ids[index]} has a threshold already, {seen[index]}; "
                "keep one of them"
            )
        seen[index] = where
        limits[index] = _probability(value, where=where)
    return limits


def _entries(thresholds: Thresholds | None) -> Iterator[tuple[str, str | int, float | str]]:
    """Yields (where it stands, id or index, threshold)."""
    if thresholds is None:
        return
    if isinstance(thresholds, Mapping):
        for key, value in thresholds.items():
            yield f"thresholds[{key!r}]", key, value
        return
    path = Path(thresholds)
    try:
        lines = read_text(path).split("\n")
    except TextFileError as error:
        raise ThresholdError(str(error)) from error
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        columns = text.split("\t")
        if len(columns) != 2:
            raise ThresholdError(
                f"{path}:{line}: {len(columns)} columns instead of 2 (WordNet id or class "
                f"index, threshold); separate them by a tab: {text.strip()[:80]!r}"
            )
        yield f"{path}:{line}", columns[0].strip(), columns[1].strip()


def _class_index(key: str | int, hierarchy: Hierarchy, *, where: str) -> int:
    index = key
    if isinstance(key, str):
        with contextlib.suppress(KeyError):
            return hierarchy.index(key)
        index = int(key) if key.isdecimal() else -1
    if index in range(len(hierarchy)):
        return int(index)
    raise ThresholdError(
        f"{where}: {key!r} is neither a WordNet id of these classes (they look like "
        f"{hierarchy.ids[0]!r}) nor an index from 0 to {len(hierarchy) - 1}"
    )


def _probability(value: float | str, *, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ThresholdError(f"{where}: {value!r} is no threshold; give a number from 0 to 1")
    return number


def _tag(index: int, score: float, hierarchy: Hierarchy) -> Tag:
    path = (*hierarchy.ancestors(index)[::-1].tolist(), index)
    names = tuple(hierarchy.names[step] for step in path)
    return Tag(index, hierarchy.ids[index], hierarchy.names[index], score, names)


def _checked(scores: np.ndarray, hierarchy: Hierarchy) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] != len(hierarchy):
        raise ValueError(
            f"scores {scores.shape} must be [n, {len(hierarchy)}], one for each class of the "
            "hierarchy"
        )
    return scores
