# SPDX-License-Identifier: BSD-3-Clause
"""Counts which classes a model predicts in images of each class."""

import collections
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlimages_jax.engines.engine import Engine
from mlimages_jax.engines.ordered import map_ordered
from mlimages_jax.labels.class_map import map_classes
from mlimages_jax.labels.cooccurrence import CoOccurrences, single_classes
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, iter_label_list
from mlimages_jax.labels.names import NameIndex, name_digests, row_digests
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.co_occurrence.predictions import PredictionFile, SurePredictions
from mlimages_jax.prepare.url_lists import count_rows

# Instead of a class index: why an image does not count.
_OF_NO_CLASS, _UNLISTED, _REPEATED = -1, -2, -3
_REASONS = {
    _OF_NO_CLASS: "not of one class",
    _UNLISTED: "in none of the lists",
    _REPEATED: "predicted before",
}


class PredictionCounter:
    """Counts predictions by the classes of the lists.

    Args:
        hierarchy: Classes of the lists.
        model: Classes of the predictions.
        posterior: A class counts as predicted if its score is above this.

    Attributes:
        occurrences: Counts of classes in images that have one class.
        left_out: Number of images with scores that do not count, by reason.

    Raises:
        PrepareError: The model and the lists have no class in common.
    """

    def __init__(self, hierarchy: Hierarchy, *, model: Hierarchy, posterior: float):
        self._hierarchy = hierarchy
        self._table = map_classes(model, hierarchy)  # [classes of the model]
        if not (self._table >= 0).any():
            raise PrepareError("the two class lists have no id (column 2) in common")
        self._posterior = posterior
        self.occurrences = CoOccurrences(len(hierarchy))
        self.left_out: collections.Counter[str] = collections.Counter()
        self._predicted = self._without_scores = 0
        self._an_unlisted = ""  # the first name found in no list, and its file

    def count(self, predictions: Sequence[Path], lists: Sequence[Path], *, engine: Engine) -> None:
        """Reads files of predictions, and the lists if a file has no column of labels.

        Workers read the scores, of which few are kept. Names are looked up here, in the order of
        the files, because only the first prediction of a name counts.

        Raises:
            PrepareError: A file of predictions is malformed.
            LabelListError: A list is malformed.
        """
        files = [PredictionFile(path, num_classes=len(self._table)) for path in predictions]
        listed = None
        if not all(file.has_labels for file in files):
            listed = ListedClasses(lists, self._hierarchy)
        total = sum(file.num_rows for file in files)
        with progress(total, what="predictions") as bar:
            groups = (_Group(file, i) for file in files for i in range(len(file.group_rows)))
            read = functools.partial(_read, self._posterior)
            for group, pieces in map_ordered(engine, read, groups):
                for sure in pieces:
                    self._predicted += sure.num_images
                    self._without_scores += sure.without_scores
                    self._add(sure, self._classes_of(sure, group.file.path, listed))
                    bar.update(sure.num_images + sure.without_scores)

    def _classes_of(
        self, sure: SurePredictions, path: Path, listed: "ListedClasses | None"
    ) -> np.ndarray:
        """Returns int64 [N]: the class of each image, or a negative key of `_REASONS`."""
        if sure.labels is not None:
            largest = sure.labels.max(initial=-1)
            if largest >= len(self._hierarchy):
                raise PrepareError(
                    f"{path}: label {largest} is not in 0..{len(self._hierarchy) - 1}; "
                    "labels are class numbers of --dictionary"
                )
            return np.maximum(sure.labels, _OF_NO_CLASS)
        assert sure.names is not None and listed is not None
        classes = listed.look_up(sure.names)
        unlisted = classes == _UNLISTED
        if unlisted.any() and not self._an_unlisted:
            name = sure.names[int(unlisted.argmax())].decode(errors="replace")
            self._an_unlisted = f"{name} of {path}"
        return classes

    def _add(self, sure: SurePredictions, classes: np.ndarray) -> None:
        for reason, text in _REASONS.items():
            self.left_out[text] += int(np.count_nonzero(classes == reason))
        counted = classes >= 0
        number = np.cumsum(counted) - 1  # index of each image among those that count
        predicted = self._table[sure.classes]
        use = counted[sure.images] & (predicted >= 0)
        self.occurrences.add(classes[counted], number[sure.images[use]], predicted[use])

    def summary(self) -> str:
        """Returns the counts of the predicted images, one per line."""
        images = self.occurrences.images
        classes = f"of {np.count_nonzero(images):,} classes"
        lines = [
            (self._predicted + self._without_scores, "predictions read"),
            (self._without_scores, "  left out: without scores"),
            *((count, f"  left out: {text}") for text, count in self.left_out.items()),
            (int(images.sum()), f"images counted, {classes}"),
            (int((self._table < 0).sum()), "classes of the model are not in --dictionary: ignored"),
        ]
        return "\n".join(f"{count:>14,} {text}" for count, text in lines)

    def check(self, max_unlisted: float) -> None:
        """Checks that enough images were counted.

        Raises:
            PrepareError: No image counted, or too many are in none of the lists.
        """
        unlisted = self.left_out[_REASONS[_UNLISTED]]
        if unlisted > max_unlisted * self._predicted:
            raise PrepareError(
                f"{unlisted:,} of {self._predicted:,} predicted images are in none of the lists, "
                f"such as {self._an_unlisted}; give their list too, or allow it with --max-unlisted"
            )
        if not self.occurrences.images.any():
            raise PrepareError("none of the predicted images counts; the table above says why")


class _Group(NamedTuple):
    """A row group of a file of predictions."""

    file: PredictionFile
    number: int

    def __str__(self) -> str:  # in messages of an engine
        return f"row group {self.number} of {self.file.path}"


def _read(posterior: float, group: _Group) -> list[SurePredictions]:
    return list(group.file.sure(posterior, group=group.number))


class ListedClasses:
    """Looks up the class of an image by name, in 29 bytes a row.

    Args:
        lists: Label lists; the first row of a name counts.
        hierarchy: Classes of the lists.
    """

    def __init__(self, lists: Sequence[Path], hierarchy: Hierarchy):
        digests, classes = [row_digests(LabelList.from_rows([], num_classes=1))], []
        with progress(count_rows(lists), what="lists", unit=" rows") as bar:
            for part in iter_lists(lists, hierarchy):
                digests.append(row_digests(part))
                classes.append(single_classes(part, hierarchy))
                bar.update(len(part))
        self._index = NameIndex(np.concatenate(digests))
        self._classes = np.concatenate([np.empty(0, np.int32), *classes])
        self._seen = np.zeros(len(self._classes), bool)

    def look_up(self, names: Sequence[bytes]) -> np.ndarray:
        """Returns int64 [n]: the class of each image, or a negative key of `_REASONS`."""
        rows = self._index.find(name_digests(names))
        listed = np.flatnonzero(rows >= 0)
        _, firsts = np.unique(rows[listed], return_index=True)
        new = listed[firsts]
        new = new[~self._seen[rows[new]]]
        self._seen[rows[new]] = True
        classes = np.full(len(rows), _UNLISTED, np.int64)
        classes[listed] = _REPEATED
        classes[new] = self._classes[rows[new]]
        return classes


def iter_lists(lists: Sequence[Path], hierarchy: Hierarchy) -> Iterator[LabelList]:
    """Yields parts of lists, one list after the other."""
    for path in lists:
        yield from iter_label_list(path, num_classes=len(hierarchy))
