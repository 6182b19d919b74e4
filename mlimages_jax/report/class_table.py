# SPDX-License-Identifier: BSD-3-Clause
"""The numbers of every class, from per_class.tsv and the class list beside it."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.class_thresholds import ThresholdError
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.report.tables import Row, number, read_table

# Columns of per_class.tsv and what they are called in the page. The first is the measure, by which
# classes are compared: average precision, or top-1 accuracy for one class per image.
_MEASURES = {"average_precision": "average precision", "top1": "top-1 accuracy"}
_COUNTS = {"positives": "positives", "images": "images", "train_positives": "training positives"}
_FRACTIONS = {
    "ap_low": "average precision, low", "ap_high": "average precision, high",
    "balanced_ap": "balanced average precision", "top5": "top-5 accuracy",
    "threshold": "threshold", "precision": "precision", "recall": "recall", "f1": "F1",
}  # fmt: skip

Column = list[float | None]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassTable:
    """Classes and their numbers, each list in the order of the class indices.

    Attributes:
        ids: WordNet ids, or those of the user.
        names: Names; the id where there is none.
        parents: Index of the parent, -1 for a root.
        measure: What the classes are compared by, such as "average precision".
        columns: Numbers by name, with `measure` among them.
        support: Name of the column with the number of evaluated images of each class.
    """

    ids: Sequence[str]
    names: Sequence[str]
    parents: Sequence[int]
    measure: str
    columns: Mapping[str, Column]
    support: str

    @classmethod
    def read(
        cls, folder: epath.Path, workdir: epath.Path, problems: list[str]
    ) -> "ClassTable | None":
        """Reads the table of an evaluation.

        Args:
            folder: Where per_class.tsv is.
            workdir: Where dictionary.txt and thresholds.tsv are, if there are any.
            problems: Gets a sentence for each file that could not be used.

        Returns:
            The table; None if there is none, or it is not one of ours.
        """
        rows = {int(row["class"]): row for row in read_table(folder / "per_class.tsv")
                if row.get("class", "").isdecimal()}  # fmt: skip
        measure = next((name for name in _MEASURES if name in next(iter(rows.values()), {})), None)
        if measure is None:
            return None
        ids, names, parents = _classes(workdir / "dictionary.txt", rows, problems)
        columns = {
            title: [number(rows.get(i, {}).get(name)) for i in range(len(ids))]
            for name, title in ({measure: _MEASURES[measure]} | _COUNTS | _FRACTIONS).items()
            if name in next(iter(rows.values()))
        }
        if own := _thresholds(workdir / class_thresholds.FILE_NAME, ids, problems):
            columns["threshold"] = own
        support = "positives" if "positives" in columns else "images"
        return cls(ids, names, parents, _MEASURES[measure], columns, support)

    def values(self, name: str) -> np.ndarray:
        """Returns a column, float64 [C]; nan where it is undefined."""
        return np.array([np.nan if one is None else one for one in self.columns[name]], float)

    @property
    def depth(self) -> np.ndarray:
        """int64 [C], the number of edges between a class and its root."""
        return np.array([len(self.ancestors(i)) for i in range(len(self.ids))], int)

    def ancestors(self, i: int) -> list[int]:
        """Returns the ancestors of a class, nearest first."""
        above = []
        while (i := self.parents[i]) >= 0:
            above.append(i)
        return above


def _classes(
    path: epath.Path, rows: Mapping[int, Row], problems: list[str]
) -> tuple[Sequence[str], Sequence[str], Sequence[int]]:
    """Returns ids, names and parents: of the class list, or else of the table, all roots."""
    last = max(rows)
    try:
        if path.exists():
            hierarchy = Hierarchy.from_file(path)
            if len(hierarchy) > last:
                return hierarchy.ids, hierarchy.names, hierarchy.parents.tolist()
            problems.append(
                f"{path} has {len(hierarchy)} classes and per_class.tsv one of number {last}: "
                "the classes are shown without their hierarchy."
            )
    except HierarchyError as error:
        problems.append(f"The classes are shown without their hierarchy: {error}.")
    ids = [rows.get(i, {}).get("id") or f"class {i}" for i in range(last + 1)]
    names = [rows.get(i, {}).get("name") or ids[i] for i in range(last + 1)]
    return ids, names, [-1] * (last + 1)


def _thresholds(path: epath.Path, ids: Sequence[str], problems: list[str]) -> Column | None:
    """Returns the thresholds of a model, which count more than those of an evaluation."""
    if not path.exists():
        return None
    try:
        found = class_thresholds.read(path)
    except ThresholdError as error:
        problems.append(f"{error}.")
        return None
    values = dict(zip(found.ids, found.values.tolist(), strict=True))
    return [values.get(one) for one in ids]
