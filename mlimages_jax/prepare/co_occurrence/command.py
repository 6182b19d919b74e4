# SPDX-License-Identifier: BSD-3-Clause
"""The command `cooccurrence`: adds labels that occur together in a model's predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tyro.conf import OmitArgPrefixes, Positional

from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import tsv_row
from mlimages_jax.labels.cooccurrence import Pairs, add_pairs, on_common_path
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelListWriter
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.co_occurrence.prediction_counts import PredictionCounter, iter_lists
from mlimages_jax.prepare.url_lists import count_rows

_COLUMNS = (
    "class i", "id", "name", "class j", "id", "name",
    "images of i", "with j", "share", "common path", "labels added",
)  # fmt: skip


def co_occurrence(
    lists: Positional[list[Path]],
    /,
    *,
    predictions: list[Path],
    dictionary: Path,
    output: Path,
    pairs: Path,
    posterior: float = 0.95,
    share: float = 0.5,
    min_images: int = 1,
    prediction_dictionary: Path | None = None,
    confidence: Literal["label", "share"] = "label",
    max_unlisted: float = 0.0,
    engine: OmitArgPrefixes[EngineOptions] = EngineOptions(),
) -> None:
    r"""Add labels of classes that co-occur in a model's predictions, as in the ML-Images paper.

    CO(i, j) is the fraction of the images of class i for which the model's posterior of class j
    exceeds --posterior. If CO(i, j) exceeds --share (equality is not enough in either case), and
    neither class is an ancestor of the other, every row of the lists with a positive label i gets
    the label j:

        mlimages data cooccurrence train_image_list.txt \
            --predictions scores_0.parquet scores_1.parquet \
            --dictionary dictionary_and_semantic_hierarchy.txt \
            --prediction-dictionary model_dictionary.txt \
            --output train_image_list_more.txt --pairs pairs.tsv

    Predictions are Parquet files with a row per image and these columns:

        name      string
        scores    list of probabilities, one per class of the model; null: not predicted
        classes   if scores are not of all classes: list of the classes they are of, others have 0
        label     if the file knows it: the class of the image, a class index of --dictionary

    Without a column "label", the class is taken from the first row of the lists with this name: the
    label that is below all other positive ones in the hierarchy, so rows may be closed over
    ancestors. A row with labels on different paths has no single class and does not count; nor does
    an image that was predicted before.

    Added labels are not closed over ancestors and do not add further ones: `labels --close` closes
    the list.

    Args:
        lists: the label lists to extend; they also give, by name, the classes of the predicted
            images.
        predictions: Parquet files with the columns above.
        dictionary: the class list (dictionary.txt) of the label lists.
        output: the new list, classes ascending in each row. It may be one of the lists.
        pairs: tab-separated table of all pairs above --share, including those on common paths.
            A label that a row gets through two pairs counts for both.
        posterior: threshold for the posterior of class j in an image of class i.
        share: threshold for CO(i, j), a fraction of the images of class i.
        min_images: leave out pairs whose class i has fewer images. The paper has no such limit.
        prediction_dictionary: the class list of the model, if it is not that of the label lists.
            Classes are matched by id (column 2); other classes of the model are ignored.
        confidence: confidence of a new label: that of the row's label i, or this times CO(i, j).
            If the row has label j already, it keeps the larger confidence.
        max_unlisted: fraction of the predicted images that may be in none of the lists.
        engine: where the predictions are read, by row groups; the result is the same.
    """
    if not lists or not predictions:
        raise PrepareError("give at least one list and one file of predictions")
    if not (0 <= posterior < 1 and 0 <= share < 1):
        raise PrepareError(f"--posterior {posterior} and --share {share}: from 0 to below 1")
    for path in (output, pairs):  # checked before minutes or hours of counting
        if not path.absolute().parent.is_dir():
            raise PrepareError(f"{path}: there is no such folder; create it first")
    hierarchy = Hierarchy.from_file(dictionary)
    model = Hierarchy.from_file(prediction_dictionary) if prediction_dictionary else hierarchy
    counter = PredictionCounter(hierarchy, model=model, posterior=posterior)
    with engine.open() as opened:
        counter.count(predictions, lists, engine=opened)
    print(counter.summary())
    counter.check(max_unlisted)

    found = counter.occurrences.pairs()
    above = (found.fraction > share) & (found.images >= min_images)
    # A model usually predicts class i in images of class i, which adds nothing.
    found = found.where(above & (found.first != found.second))
    adder = PairAdder(hierarchy, found, times_fraction=confidence == "share")
    adder.write_lists(lists, output)
    adder.write_table(pairs)
    print(adder.summary())
    print(f"written: {output}, {pairs}")


class PairAdder:
    """Adds the labels of pairs to lists, and writes the table of pairs.

    Args:
        hierarchy: Hierarchy of the classes.
        pairs: P pairs of two different classes, ordered by the first.
        times_fraction: Whether a new label has the confidence of label i times CO(i, j).

    Attributes:
        pairs: The same.
        apart: bool [P], whether the two classes are on no common path; only these add labels.
        new_labels: int64 [P], as counted by `Addition`.
    """

    def __init__(self, hierarchy: Hierarchy, pairs: Pairs, *, times_fraction: bool):
        self._hierarchy, self._times_fraction = hierarchy, times_fraction
        self.pairs = pairs
        self.apart = ~on_common_path(hierarchy, pairs.first, pairs.second)
        self.new_labels = np.zeros(len(self.apart), np.int64)
        self._rows = self._added = 0

    def write_lists(self, lists: Sequence[Path], output: Path) -> None:
        """Writes one list with the rows of all lists and the labels of the pairs.

        Raises:
            LabelListError: A row cannot be read.
        """
        pairs = self.pairs.where(self.apart)
        factors = pairs.fraction if self._times_fraction else np.ones(len(pairs.first))
        bar = progress(count_rows(lists), what="labels", unit=" rows")
        with LabelListWriter(output) as writer, bar:
            for part in iter_lists(lists, self._hierarchy):
                more, new_labels = add_pairs(part, pairs, confidence_factors=factors)
                writer.write(more)
                self.new_labels[self.apart] += new_labels
                self._rows += len(part)
                self._added += len(more.classes) - len(part.classes)
                bar.update(len(part))

    def write_table(self, path: Path) -> None:
        """Writes the pairs, those with the most images first."""
        with (
            complete_file(path) as unfinished,
            unfinished.open("w", encoding="utf-8", newline="\n") as file,
        ):
            file.write(tsv_row(_COLUMNS))
            for pair in np.argsort(-self.pairs.both, kind="stable").tolist():
                file.write(tsv_row(self._row(pair)))

    def _row(self, pair: int) -> list[object]:
        ids, names = self._hierarchy.ids, self._hierarchy.names
        i, j = int(self.pairs.first[pair]), int(self.pairs.second[pair])
        return [
            i, ids[i], names[i], j, ids[j], names[j],
            self.pairs.images[pair], self.pairs.both[pair], f"{self.pairs.fraction[pair]:.4f}",
            "no" if self.apart[pair] else "yes", self.new_labels[pair],
        ]  # fmt: skip

    def summary(self) -> str:
        """Returns the counts of pairs and labels, one per line."""
        lines = [
            (len(self.apart), "pairs of classes above the share"),
            (int((~self.apart).sum()), "  left out: on a common path"),
            (self._rows, "rows written"),
            (self._added, "labels added"),
        ]
        return "\n".join(f"{count:>14,} {text}" for count, text in lines)
