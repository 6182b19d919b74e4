# SPDX-License-Identifier: BSD-3-Clause
r"""Reads and writes thresholds.tsv, the file with a threshold for each class.

It is tab-separated text. The first lines say how the thresholds were found; each has a name that
starts with `# ` and a value. Then come a line of column names and one line per class:

    # mlimages thresholds    1
    # optimised              maximum F1
    # weights                3f0c...
    class  id         threshold  own threshold  positives  precision  recall  F1    name
    0      n00001740  0.21       0.18           412        0.81       0.77    0.79  entity

Only the columns `id` and `threshold` are read back, so users may change a threshold, sort the lines
or add a column with a spreadsheet. Cells are quoted as in CSV files where necessary.
"""

import csv
import dataclasses
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mlimages_jax.files.text_files import TextFileError, read_text
from mlimages_jax.labels.hierarchy import Hierarchy

FILE_NAME = "thresholds.tsv"  # in the workdir of the model
FIND_THEM = "find those of this model by `mlimages thresholds WORKDIR --data=DATA`"
_MARK = "# mlimages thresholds"
_WEIGHTS = "# weights"
_POSITIVE_WEIGHT = "# positive weight"


class ThresholdError(ValueError):
    """Thresholds are of unknown or other classes, of another model, or not numbers in [0, 1]."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClassThresholds:
    """One threshold for each class of a model.

    Attributes:
        ids: WordNet ids of the classes, in any order.
        values: float64 [C], minimum probability of a tag, in the same order.
        about: How they were found, by name, such as "# optimised", in the order of the file.
        source: Where they are from, for messages.
    """

    ids: tuple[str, ...]
    values: np.ndarray
    about: Mapping[str, str]
    source: str

    @property
    def weights(self) -> str:
        """Digest of the weights they were found for; "" if the file does not say."""
        return self.about.get(_WEIGHTS, "")

    def problem(self, hierarchy: Hierarchy, weights: str, *, positive_weight: float) -> str | None:
        """Returns why these thresholds do not belong to a model; None if they do.

        Args:
            hierarchy: The classes of the model.
            weights: The digest of its weights.
            positive_weight: The weight that calibrates its probabilities.
        """
        # As sets, because lines may have been sorted in a spreadsheet.
        if set(self.ids) != set(hierarchy.ids):
            return f"{self.source} has thresholds of other classes: {FIND_THEM}"
        if self.weights and self.weights != weights:
            return (
                f"{self.source} was found for other weights, {self.weights}, and these are "
                f"{weights}: {FIND_THEM}, or delete its line {_WEIGHTS!r} to use it all the same"
            )
        # Files without this line, such as those of users, apply to any calibration.
        weight = self.about.get(_POSITIVE_WEIGHT, f"{positive_weight:g}")
        if weight != f"{positive_weight:g}":
            return (
                f"{self.source} was found for probabilities of a loss that weights positives by "
                f"{weight}, and these are of one that weights them by {positive_weight:g}: give "
                "the loss of the training, or find thresholds with this one"
            )
        return None

    def of(self, hierarchy: Hierarchy) -> np.ndarray:
        """Returns the thresholds in the order of a hierarchy of the same classes, float64 [C]."""
        values = dict(zip(self.ids, self.values.tolist(), strict=True))
        return np.array([values[wordnet_id] for wordnet_id in hierarchy.ids])

    def __str__(self) -> str:
        """Returns a description for a log line."""
        known = [self.about[name] for name in ("# optimised", "# split") if name in self.about]
        return f"{self.source} ({', '.join(known)})" if known else self.source


def is_one(text: str) -> bool:
    """Returns whether a text is such a file, rather than lines of a class and a number."""
    return text.startswith(_MARK)


def read(path: str | os.PathLike[str]) -> ClassThresholds:
    """Reads such a file.

    Raises:
        ThresholdError: It is malformed; the message has path and line.
        FileNotFoundError: It does not exist.
    """
    try:
        return parse(read_text(path), where=os.fspath(path))
    except TextFileError as error:
        raise ThresholdError(str(error)) from error


def parse(text: str, *, where: str) -> ClassThresholds:
    """Parses the content of such a file; `where` is its name for messages.

    Raises:
        ThresholdError: It is malformed; the message has path and line.
    """
    if not is_one(text):
        raise ThresholdError(f"{where}:1: the first line must begin with {_MARK!r}: {FIND_THEM}")
    rows = _rows(text, where)
    about: dict[str, str] = {}
    columns: list[str] = []
    for _, row in rows:
        if not row[0].startswith("# "):
            columns = row
            break
        about[row[0]] = row[1] if len(row) > 1 else ""
    if "id" not in columns or "threshold" not in columns:
        raise ThresholdError(
            f"{where}: below the lines that begin with '# ' there must be a line of column names "
            f"with id and threshold: {FIND_THEM}"
        )
    key, value = columns.index("id"), columns.index("threshold")
    values: dict[str, float] = {}
    for line, row in rows:
        if len(row) <= max(key, value):
            raise ThresholdError(f"{where}:{line}: the id or the threshold is missing: {FIND_THEM}")
        if row[key] in values:
            raise ThresholdError(f"{where}:{line}: class {row[key]} already has a threshold")
        values[row[key]] = probability(row[value], where=f"{where}:{line}")
    if not values:
        raise ThresholdError(f"{where} has no thresholds: {FIND_THEM}")
    return ClassThresholds(tuple(values), np.array(list(values.values())), about, where)


def write_text(about: Mapping[str, object], columns: Mapping[str, Sequence[object]]) -> str:
    """Returns the content of such a file.

    Args:
        about: How the thresholds were found, by name, without "# "; "weights" is the digest of the
            model's weights, and "positive weight" what calibrates its probabilities.
        columns: Cells by name of the column, with `id` and `threshold`; all equally long.
    """
    file = io.StringIO()
    writer = csv.writer(file, "excel-tab", lineterminator="\n")
    writer.writerow([_MARK, "1"])  # the version of the format
    writer.writerows([f"# {name}", value] for name, value in about.items())
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return file.getvalue()


def decimals(values: Iterable[float]) -> list[str]:
    """Formats numbers with six digits, which is what a probability in float32 has; "" for nan."""
    return ["" if math.isnan(value) else f"{value:.6g}" for value in values]


def probability(value: float | str, *, where: str) -> float:
    """Converts a threshold; `where` is its place for the message.

    Raises:
        ThresholdError: It is not a number from 0 to 1.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ThresholdError(f"{where}: {value!r} is not a threshold; give a number from 0 to 1")
    return number


def _rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yields line numbers and cells; blank lines are left out, as are empty cells at their end."""
    reader = csv.reader(io.StringIO(text), "excel-tab")
    try:
        for row in reader:
            while row and not row[-1].strip():  # a spreadsheet makes all lines equally long
                row.pop()
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ThresholdError(f"{where}:{reader.line_num}: {error}: {FIND_THEM}") from error
