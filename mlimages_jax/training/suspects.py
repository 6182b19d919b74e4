# SPDX-License-Identifier: BSD-3-Clause
"""The task `suspects`: trains without each fold in turn, and ranks the labels of that fold."""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.folds import Fold, Subset
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.records import Records, record_at
from mlimages_jax.distributed import sharding, workdir_lock
from mlimages_jax.engines.options import open_engine
from mlimages_jax.engines.ordered import map_ordered
from mlimages_jax.evaluation.prediction_grid import Legend, save_grid
from mlimages_jax.evaluation.suspect_labels import Suspect, SuspectFinder
from mlimages_jax.files import paths
from mlimages_jax.files.escaping import tsv_row
from mlimages_jax.files.remote import write_text
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.settings import ConfigError, Train, build, replaced
from mlimages_jax.settings.tagger import Suspects
from mlimages_jax.step.state import TrainState
from mlimages_jax.training import what_next
from mlimages_jax.training.evaluations import make_evaluation
from mlimages_jax.training.tagger import as_training
from mlimages_jax.training.train import train

_COLUMNS = ("image", "class", "id", "name", "probability", "instead")
_ON_SHEET, _IMAGE_SIZE = 36, 128
# Given, not true: the labels are what is doubted.
_LEGENDS = {
    "wrong": Legend(miss="given, not predicted"),
    "missing": Legend(false_alarm="predicted, not given"),
}
_FILES = {
    "wrong_labels.tsv": "labels that are probably wrong",
    "wrong_labels.png": "their images",
    "missing_labels.tsv": "labels that are probably missing",
    "missing_labels.png": "their images",
}
WHAT_NEXT = """
Done. Look at
{files}
The strongest suspicion comes first. Correct the lists, and build the data set again.
"""


def find_suspects(config: Suspects, workdir: epath.PathLike) -> None:
    """Trains once per fold, and writes tables and sheets of suspect labels to the workdir.

    Every image is judged by the training that did not see it. The trainings are the parts of a job
    on an engine, and know nothing of each other. An interrupted task resumes with the folds that
    are not finished. With one class per image, no label can be missing.

    Args:
        config: Settings of the task.
        workdir: Folder for the tables, and for a workdir of each training.

    Raises:
        ConfigError: There are several processes, nothing is trained, or as for `train.train`.
        Exception: As for `tagger.tagger`, and for `engines.options.open_engine`.
    """
    workdir = epath.Path(paths.absolute(workdir))
    if jax.process_count() > 1:
        raise ConfigError("suspects: run it in one process; train folds elsewhere with data.fold")
    if config.compile_only:
        raise ConfigError("compile_only=True: suspects judges by what it trains; leave it out")
    name: Any = config.engine
    with (
        workdir_lock.held(workdir, task="suspects"),
        open_engine(name, workers=config.workers or None, whole_machines=True) as engine,
    ):
        # Where the folds will be trained, as the choices depend on the devices.
        choose = functools.partial(_choose, config, str(workdir))
        ((_, training),) = engine.map_unordered(choose, [_Fold(0, config.folds)])
        data = DataSet.open(training.data.folder, copy_to=training.data.copy_to)
        folds = [_Fold(number, config.folds) for number in range(config.folds)]
        found = functools.partial(_train_and_judge, training, str(workdir))
        finder = _finder(training, data)
        for fold, of_fold in map_ordered(engine, found, folds):
            logging.info("%s is done", fold)
            finder.add_found(of_fold)
        _write(config, workdir, training, data, finder)
    print(WHAT_NEXT.format(files=what_next.existing(workdir, _FILES)))


class _Fold(NamedTuple):
    number: int
    of: int

    def __str__(self) -> str:  # in messages of an engine
        return f"fold {self.number + 1} of {self.of}"


def _choose(config: Suspects, workdir: str, _: _Fold) -> Train:
    return as_training(config, epath.Path(workdir), begin=time.monotonic())


def _train_and_judge(training: Train, workdir: str, fold: _Fold) -> SuspectFinder:
    """Trains without a fold, and returns what that network finds in it."""
    logging.info("%s", fold)
    # Only the last weights are used, so the evaluations on the way are left out; `patience`, which
    # needs them, is refused before (settings.relations).
    changes = {"data.fold": tuple(fold), "evaluate_every": 0, "checkpoint.best": ""}
    of_fold = replaced(training, changes)
    # A finished fold only restores its last checkpoint, so a restart costs little.
    state = train(of_fold, epath.Path(workdir) / f"fold_{fold.number}")
    data = DataSet.open(training.data.folder, copy_to=training.data.copy_to)
    finder = _finder(training, data)
    _judge(finder, of_fold, data, state)
    return finder


def _finder(training: Train, data: DataSet) -> SuspectFinder:
    return SuspectFinder(
        data.num_classes,
        threshold=training.evaluation.threshold,
        single_label=build.is_single_label(training.loss),
    )


def _judge(finder: SuspectFinder, config: Train, data: DataSet, state: TrainState) -> None:
    """Adds the predictions for the images that were kept out of a training."""
    mesh = sharding.make_mesh()
    records = data.records(config.data.train_split)
    kept_out = Subset(records, Fold(*config.data.fold).mask(len(records)))
    training = build.training_step(
        config, mesh, num_classes=data.num_classes, missing_labels=data.missing_labels
    )
    evaluation = make_evaluation(config, data, training.model, training.loss, mesh, kept_out)
    probabilities = build.probabilities(config.loss)
    start = 0  # rows come in the order of the records, padding last
    for outputs in evaluation.outputs(state.ema or state.weights, kept_out):
        mask = sharding.local_rows(outputs["mask"])
        positions = np.arange(start, start + len(mask))
        start += len(mask)
        finder.add(
            kept_out.positions[positions[mask]],
            probabilities(sharding.local_rows(outputs["logits"])[mask]),
            sharding.local_rows(outputs["targets"])[mask],
        )


def _write(
    config: Suspects, workdir: epath.Path, training: Train, data: DataSet, finder: SuspectFinder
) -> None:
    """Writes a table and a sheet for wrong and for missing labels."""
    hierarchy = Hierarchy.from_file(data.class_list)
    records = data.records(training.data.train_split)
    problems: tuple[Literal["wrong", "missing"], ...] = ("wrong", "missing")
    for problem in problems:
        found = [one for one, _ in zip(finder.ranked(problem), range(config.shown), strict=False)]
        logging.info("%d labels are probably %s", len(found), problem)
        lines = [tsv_row(_COLUMNS), *map(tsv_row, _rows(found, records, hierarchy))]
        write_text(workdir / f"{problem}_labels.tsv", "".join(lines))
        _write_sheet(workdir, problem, found[:_ON_SHEET], records, hierarchy)


def _rows(
    found: Sequence[Suspect], records: Records, hierarchy: Hierarchy
) -> Iterator[tuple[object, ...]]:
    for one in found:
        yield (
            record_at(records, one.position).name,
            one.class_,
            hierarchy.ids[one.class_],
            hierarchy.names[one.class_],
            f"{one.probability:.4f}",
            "" if one.instead is None else hierarchy.names[one.instead[0]],
        )


def _write_sheet(
    workdir: epath.Path,
    problem: Literal["wrong", "missing"],
    found: Sequence[Suspect],
    records: Records,
    hierarchy: Hierarchy,
) -> None:
    """Draws the images: a wrong label appears as a miss, a missing one as a false alarm."""
    legend = _LEGENDS[problem]
    view = EvaluationView(_IMAGE_SIZE, "whole")
    images, given, predicted = [], [], []
    for one in found:
        try:
            images.append(view(record_at(records, one.position).jpeg))
        except BadImage:
            continue
        name = hierarchy.names[one.class_]
        given.append([name] if problem == "wrong" else [])
        predicted.append([] if problem == "wrong" else [(name, one.probability, False)])
        if one.instead is not None:
            class_, probability = one.instead
            predicted[-1].append((hierarchy.names[class_], probability, False))
            legend = legend._replace(false_alarm="predicted instead")
    if images:
        save_grid(
            workdir / f"{problem}_labels.png",
            np.stack(images),
            true_tags=given,
            predicted_tags=predicted,
            legend=legend,
        )
