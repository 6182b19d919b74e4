# SPDX-License-Identifier: BSD-3-Clause
"""Labels of exported images: class indices with confidences, or one class name per image.

Indices are written as in label lists, `class` or `class:confidence`, separated by white space. If
the first text is not such a label, every complete text is the name of a class.
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

_MOST_CLASSES = 100_000  # a larger index is a mistake, and would allocate too much memory


@dataclasses.dataclass(frozen=True, eq=False)
class SparseLabels:
    """Labels of n images, in compressed sparse rows.

    Attributes:
        num_classes: Number of classes, C.
        offsets: int64 [n + 1]; the labels of image i start at offsets[i].
        indices: int32 [m], class indices.
        confidences: float32 [m], -1 or in [0, 1].
    """

    num_classes: int
    offsets: np.ndarray
    indices: np.ndarray
    confidences: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def one_each(self) -> bool:
        """Returns whether every image has exactly one label, with confidence 1."""
        return bool((np.diff(self.offsets) == 1).all() and (self.confidences == 1).all())

    def select(self, rows: np.ndarray) -> "SparseLabels":
        """Returns the labels of some of the images.

        Args:
            rows: int64 [r], image indices.
        """
        counts, places = self._places(rows)
        return SparseLabels(
            num_classes=self.num_classes,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            indices=self.indices[places],
            confidences=self.confidences[places],
        )

    def matrix(self, chosen: np.ndarray) -> scipy.sparse.csr_array:
        """Returns a float64 matrix [n, C] with a one for each selected label.

        Args:
            chosen: bool [m].
        """
        counts = np.concatenate([[0], np.cumsum(chosen)])
        ones = np.ones(int(counts[-1]))
        shape = len(self), self.num_classes
        return scipy.sparse.csr_array((ones, self.indices[chosen], counts[self.offsets]), shape)

    def targets(self, rows: np.ndarray, *, missing_labels: float) -> np.ndarray:
        """Returns targets float32 [r, C] as metrics expect them: -1, 0 or a confidence.

        Args:
            rows: int64 [r], image indices.
            missing_labels: Target of classes missing from an image's labels: 0 (absent) or -1
                (unknown).
        """
        targets = np.full((len(rows), self.num_classes), missing_labels, np.float32)
        counts, places = self._places(rows)
        images = np.repeat(np.arange(len(rows)), counts)
        targets[images, self.indices[places]] = self.confidences[places]
        return targets

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the number of labels of each image, and the positions of all these labels."""
        # The k-th label in all belongs to an image whose own labels start at `offsets` in the table
        # and at `before` in the result, so it is at k + offsets - before.
        counts = np.diff(self.offsets)[rows]
        before = np.cumsum(counts) - counts
        first = np.repeat(self.offsets[rows] - before, counts)
        return counts, first + np.arange(counts.sum())


def with_labels(images: Exported, label_file: Path | None) -> Exported:
    """Returns the images that have labels, from the export or from a file.

    Raises:
        FeaturesError: If no image has labels, or a line of the file is malformed.
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
            f"{images.folder} has no labels: give --labels FILE with a name, a tab and a class "
            "on every line, or export a built set or a list with labels"
        )
    known = next(iter(texts), "")
    raise FeaturesError(
        f"{label_file} names no image of {images.folder}: names look like "
        f"{images.names[0]!r} there, but like {known!r} in the file"
    )


def read_label_file(path: Path) -> dict[str, str]:
    """Returns the text of the labels by name.

    Raises:
        FeaturesError: If a line has no tab, or contradicts an earlier line; names the line.
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
                    f"{path}:{number}: {name.strip()} has other labels further up; keep one line"
                )
    return found


def read_labels(sets: Sequence[Exported]) -> list[SparseLabels]:
    """Reads the labels of several sets of images, with common classes.

    Args:
        sets: Images that all have labels.

    Raises:
        FeaturesError: If a text cannot be parsed; names the image.
    """
    try:
        _numbers(sets[0].labels[0])
    except ValueError:
        names = sorted({normal(text) for images in sets for text in images.labels})
        numbers = {name: number for number, name in enumerate(names)}
        return [_one_class_each(images, numbers) for images in sets]
    tables = [_numbered(images) for images in sets]
    count = max(table.num_classes for table in tables)
    return [dataclasses.replace(table, num_classes=count) for table in tables]


def _one_class_each(images: Exported, numbers: dict[str, int]) -> SparseLabels:
    indices = np.array([numbers[normal(text)] for text in images.labels], np.int32)
    ones = np.ones(len(indices), np.float32)
    return SparseLabels(len(numbers), np.arange(len(indices) + 1), indices, ones)


def _numbered(images: Exported) -> SparseLabels:
    """Parses numeric labels; the largest index determines the number of classes."""
    counts, labels = [], []
    for name, text in zip(images.names, images.labels, strict=True):
        try:
            row = _numbers(text)
        except ValueError as error:
            raise FeaturesError(f"{images.folder}: the labels of {name}: {error}") from error
        counts.append(len(row))
        labels += row
    indices, confidences = zip(*labels, strict=True)
    return SparseLabels(
        num_classes=1 + max(indices),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        indices=np.array(indices, np.int32),
        confidences=np.array(confidences, np.float32),
    )


def _numbers(text: str) -> list[tuple[int, float]]:
    """Parses `class` and `class:confidence`; raises ValueError with the reason."""
    row = [parse_label(word.encode()) for word in text.split()]
    for class_, confidence in row:
        if class_ >= _MOST_CLASSES:
            raise ValueError(f"class {class_} is above {_MOST_CLASSES:,}: is it a class index?")
        if not (confidence == -1 or 0 <= confidence <= 1):
            raise ValueError(
                f"confidence {confidence} of class {class_} is neither -1 (unknown) nor from 0 to 1"
            )
    if len({class_ for class_, _ in row}) < len(row):
        raise ValueError("a class occurs twice; keep one of its labels")
    return row
