# SPDX-License-Identifier: BSD-3-Clause
"""Labels of exported images: class numbers with confidences, or one word an image.

Numbers are written as in label lists, `class` or `class:confidence`, with white space between
labels. Where the first text is not such a label, every text as a whole is the name of a class.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.export.exported import Exported
from mlimages_jax.files.text_files import open_text
from mlimages_jax.labels.list_rows import parse_label
from mlimages_jax.labels.same_names import AmbiguousNameError, SameNames, normal

_MOST_CLASSES = 100_000  # a larger number is a mistake that would cost memory


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Labels of n images.

    Attributes:
        num_classes: C.
        offsets: int64 [n + 1]; the labels of image i are those from offsets[i] on.
        indices: int32 [m], class numbers.
        confidences: float32 [m], -1 or from 0 to 1.
    """

    num_classes: int
    offsets: np.ndarray
    indices: np.ndarray
    confidences: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def one_each(self) -> bool:
        """Whether every image has one label, of confidence 1."""
        return bool((np.diff(self.offsets) == 1).all() and (self.confidences == 1).all())

    def select(self, rows: np.ndarray) -> "Labels":
        """The labels of some of the images.

        Args:
            rows: int64 [r], images.
        """
        counts, places = self._places(rows)
        return Labels(
            num_classes=self.num_classes,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            indices=self.indices[places],
            confidences=self.confidences[places],
        )

    def matrix(self, chosen: np.ndarray) -> scipy.sparse.csr_array:
        """Some of the labels as float64 ones in a matrix [n, C].

        Args:
            chosen: bool [m].
        """
        counts = np.concatenate([[0], np.cumsum(chosen)])
        ones = np.ones(int(counts[-1]))
        shape = len(self), self.num_classes
        return scipy.sparse.csr_array((ones, self.indices[chosen], counts[self.offsets]), shape)

    def targets(self, rows: np.ndarray, *, unlisted: float) -> np.ndarray:
        """Targets float32 [r, C] as metrics take them: -1, 0 or a confidence.

        Args:
            rows: int64 [r], images.
            unlisted: the target of a class that an image does not list: 0, absent, or -1, unknown.
        """
        targets = np.full((len(rows), self.num_classes), unlisted, np.float32)
        counts, places = self._places(rows)
        images = np.repeat(np.arange(len(rows)), counts)
        targets[images, self.indices[places]] = self.confidences[places]
        return targets

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many labels each of some images has, and where they lie, one after the other."""
        counts = np.diff(self.offsets)[rows]
        before = np.cumsum(counts) - counts
        first = np.repeat(self.offsets[rows] - before, counts)
        return counts, first + np.arange(counts.sum())


def with_labels(images: Exported, label_file: Path | None) -> Exported:
    """Those of the images that have labels, of the export or else of a file.

    Raises:
        FeaturesError: none has, or a line of the file is wrong.
    """
    if label_file is not None:
        texts = read_label_file(label_file)
        listed = SameNames(texts)
        try:
            found = map(listed.find, images.names)
            labels = [texts[name] if name is not None else "" for name in found]
        except AmbiguousNameError as error:
            raise FeaturesError(f"{label_file}: {error}") from error
        images = dataclasses.replace(images, labels=labels)
    chosen = np.flatnonzero([bool(text) for text in images.labels])
    if len(chosen):
        return images.select(chosen)
    if label_file is None:
        raise FeaturesError(
            f"{images.folder} has no labels: give --labels FILE, with a name, a tab and a class "
            "in every line, or export a built set or a list with labels"
        )
    known = next(iter(texts), "")
    raise FeaturesError(
        f"{label_file} names no image of {images.folder}: there they are called like "
        f"{images.names[0]!r}, and in the file like {known!r}"
    )


def read_label_file(path: Path) -> dict[str, str]:
    """Name and text of labels of every line.

    Raises:
        FeaturesError: with the line, where it has no tab, or says something else about a name.
    """
    found: dict[str, str] = {}
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            name, tab, text = line.rstrip("\r\n").partition("\t")
            text = text.strip()
            if not tab or not name.strip():
                raise FeaturesError(f"{path}:{number}: write a name, a tab and a class")
            if found.setdefault(name.strip(), text) != text:
                raise FeaturesError(
                    f"{path}:{number}: {name.strip()} had other labels further up; keep one line"
                )
    return found


def read_labels(sets: Sequence[Exported]) -> list[Labels]:
    """The labels of several sets of images, with the same classes.

    Args:
        sets: images that all have labels.

    Raises:
        FeaturesError: a text that cannot be read, with its image.
    """
    try:
        _numbers(sets[0].labels[0])
    except ValueError:
        names = sorted({normal(text) for images in sets for text in images.labels})
        places = {name: place for place, name in enumerate(names)}
        return [_one_class_each(images, places) for images in sets]
    tables = [_numbered(images) for images in sets]
    count = max(table.num_classes for table in tables)
    return [dataclasses.replace(table, num_classes=count) for table in tables]


def _one_class_each(images: Exported, places: dict[str, int]) -> Labels:
    indices = np.array([places[normal(text)] for text in images.labels], np.int32)
    ones = np.ones(len(indices), np.float32)
    return Labels(len(places), np.arange(len(indices) + 1), indices, ones)


def _numbered(images: Exported) -> Labels:
    """Labels that are numbers; there are as many classes as the largest of them asks for."""
    counts, labels = [], []
    for name, text in zip(images.names, images.labels, strict=True):
        try:
            row = _numbers(text)
        except ValueError as error:
            raise FeaturesError(f"{images.folder}: the labels of {name}: {error}") from error
        counts.append(len(row))
        labels += row
    indices, confidences = zip(*labels, strict=True)
    return Labels(
        num_classes=1 + max(indices),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        indices=np.array(indices, np.int32),
        confidences=np.array(confidences, np.float32),
    )


def _numbers(text: str) -> list[tuple[int, float]]:
    """Reads `class` and `class:confidence`; ValueError says what is wrong."""
    row = [parse_label(word.encode()) for word in text.split()]
    for class_, confidence in row:
        if class_ >= _MOST_CLASSES:
            raise ValueError(f"class {class_} is beyond {_MOST_CLASSES:,}: is it a class at all?")
        if not (confidence == -1 or 0 <= confidence <= 1):
            raise ValueError(
                f"confidence {confidence} of class {class_} is neither -1 (unknown) nor between "
                "0 and 1"
            )
    if len({class_ for class_, _ in row}) < len(row):
        raise ValueError("a class occurs twice; keep one of its labels")
    return row
