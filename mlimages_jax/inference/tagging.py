# SPDX-License-Identifier: BSD-3-Clause
"""Converts the scores of all classes to the tags of an image. Uses NumPy only."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from mlimages_jax.files.text_files import TextFileError, read_text
from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.class_thresholds import ThresholdError as ThresholdError
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.average_precision import IGNORED, NEGATIVE
from mlimages_jax.metrics.top_k import top_classes

FEW = 5  # tags of an image where nothing else limits them

Thresholds = str | os.PathLike[str] | Mapping[str | int, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Tag:
    """A class predicted for an image.

    Attributes:
        index: Class index.
        id: WordNet id of the class.
        name: All synonyms, such as "great white shark, white shark".
        score: Probability of the class.
        path: Names from the root to the class itself.
    """

    index: int
    id: str
    name: str
    score: float
    path: tuple[str, ...]


def rounded(score: float) -> float:
    """Returns a float32 as the number that its shortest decimal is: 0.3, not 0.30000001192092896.

    Args:
        score: A float32, as a Python float.
    """
    return float(str(np.float32(score)))


def tagger(
    hierarchy: Hierarchy,
    *,
    top_k: int | None = 5,
    threshold: float | None = None,
    thresholds: Thresholds | None = None,
    consistent: bool = False,
) -> Callable[[np.ndarray], list[list[Tag]]]:
    """Returns a function from scores [n, C] to the tags of n images.

    Args:
        hierarchy: A hierarchy of the C classes.
        top_k: See `best_tags`.
        threshold: See `class_limits`.
        thresholds: See `class_limits`.
        consistent: Whether to apply `consistent_scores` first.

    Raises:
        ThresholdError: See `class_limits`.
    """
    limits = class_limits(hierarchy, threshold=threshold, thresholds=thresholds)

    def tags_of(scores: np.ndarray) -> list[list[Tag]]:
        scores = consistent_scores(scores, hierarchy) if consistent else scores
        return best_tags(scores, hierarchy, top_k=top_k, limits=limits)

    return tags_of


def usual_top_k(limits: np.ndarray | None, *, one_class: bool) -> int | None:
    """Returns the maximum number of tags per image where nobody asks for a number.

    Args:
        limits: Floats [C], see `class_limits`; None for no limits.
        one_class: Whether the model predicts one class per image.

    Returns:
        1 for one class per image. None, which sets no limit, if every class has to reach a
        threshold: a number would leave out classes that reach theirs. Otherwise `FEW`, as a class
        without a threshold would be a tag of every image.
    """
    if one_class:
        return 1
    return FEW if limits is None or (limits <= 0).any() else None


def best_tags(
    scores: np.ndarray,
    hierarchy: Hierarchy,
    *,
    top_k: int | None = 5,
    limits: np.ndarray | None = None,
) -> list[list[Tag]]:
    """Returns the classes with the highest scores of every image, best first.

    Args:
        scores: Floats [n, C]; ties go to the lower class index.
        hierarchy: A hierarchy of the C classes.
        top_k: Maximum number of tags per image; None sets no limit, which suits `limits`.
        limits: Floats [C], the minimum score of each class, see `class_limits`; None sets none.

    Raises:
        ValueError: If the hierarchy has another number of classes, or `top_k` is below 1.
    """
    scores = _checked(scores, hierarchy)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1, or None for no limit")
    states = np.full(scores.shape, NEGATIVE, np.int8)
    if limits is not None:
        # float32 0.7 is below float64 0.7, so compare in the precision of the scores.
        states[scores < limits.astype(scores.dtype)] = IGNORED
    count = min(top_k or len(hierarchy), len(hierarchy))
    best = top_classes(scores, states, count)  # [n, count], padded with -1
    return [
        [_tag(int(index), float(row[index]), hierarchy) for index in classes[classes >= 0]]
        for row, classes in zip(scores, best, strict=True)
    ]


def consistent_scores(scores: np.ndarray, hierarchy: Hierarchy) -> np.ndarray:
    """Lowers scores so that no class is above its parent: s'_i = min of s_j, j = i or ancestor.

    A poodle is a dog, so evidence against a dog is evidence against a poodle. The result is the
    largest consistent set of scores that is nowhere above the given one. Roots keep their scores.

    Args:
        scores: Floats [n, C].
        hierarchy: A hierarchy of the C classes.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        ValueError: If the hierarchy has another number of classes.
    """
    scores = _checked(scores, hierarchy)
    consistent = scores.copy()
    for ancestors in hierarchy.paths().T[1:]:  # [C], one level further up each time
        has = np.flatnonzero(ancestors >= 0)
        consistent[:, has] = np.minimum(consistent[:, has], scores[:, ancestors[has]])
    return consistent


def class_limits(
    hierarchy: Hierarchy, *, threshold: float | None = None, thresholds: Thresholds | None = None
) -> np.ndarray | None:
    """Returns the minimum score of every class.

    Args:
        hierarchy: A hierarchy of the C classes.
        threshold: Minimum of all classes that `thresholds` does not name; None sets none.
        thresholds: Minimums by WordNet id (str) or class index (int); or a file: thresholds.tsv
            from `mlimages thresholds`, or an id or index and a threshold on each line, separated
            by a tab. Digits that are the id of a class are read as the id.

    Returns:
        float64 [C], -inf for classes without a minimum; None if no class has one.

    Raises:
        ThresholdError: If a number is outside [0, 1], a class is unknown or repeated, or a file is
            empty. For a file, the message names the line.
    """
    if threshold is None and thresholds is None:
        return None
    limits = np.full(len(hierarchy), -np.inf)
    if threshold is not None:
        limits[:] = class_thresholds.probability(threshold, where=f"threshold={threshold!r}")
    seen: dict[int, str] = {}
    for where, key, value in _entries(thresholds):
        index = _class_index(key, hierarchy, where=where)
        if index in seen:
            raise ThresholdError(
                f"{where}: class {hierarchy.ids[index]} already has a threshold, {seen[index]}; "
                "keep one of them"
            )
        seen[index] = where
        limits[index] = class_thresholds.probability(value, where=where)
    return limits


def _entries(thresholds: Thresholds | None) -> Iterator[tuple[str, str | int, float | str]]:
    """Yields (location, id or index, threshold)."""
    if thresholds is None:
        return
    if isinstance(thresholds, Mapping):
        for key, value in thresholds.items():
            yield f"thresholds[{key!r}]", key, value
        return
    path = Path(thresholds)
    try:
        text = read_text(path)
    except TextFileError as error:
        raise ThresholdError(str(error)) from error
    if class_thresholds.is_one(text):
        found = class_thresholds.parse(text, where=f"{path}")
        for wordnet_id, number in zip(found.ids, found.values.tolist(), strict=True):
            yield f"{path}: {wordnet_id}", wordnet_id, number
    elif text.strip():
        yield from _lines(path, text)
    else:
        raise ThresholdError(
            f"{path} is empty: write a WordNet id or class index, a tab and a threshold on each "
            f"line, or {class_thresholds.FIND_THEM}"
        )


def _lines(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        columns = row.split("\t")
        if len(columns) != 2:
            raise ThresholdError(
                f"{path}:{line}: {len(columns)} columns instead of 2 (WordNet id or class "
                f"index, then threshold), separated by a tab: {row.strip()[:80]!r}"
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
