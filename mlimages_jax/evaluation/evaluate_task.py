# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/evaluate.py: evaluates checkpoints of a run on a data set, in all views."""

import functools
import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.checkpoints import own_thresholds, saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError, VanishedCheckpointError
from mlimages_jax.data.class_positives import positives_per_class
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.views import EvaluationView, ViewName
from mlimages_jax.data.real_labels import RealLabels
from mlimages_jax.data.records import parse_record
from mlimages_jax.distributed import workdir_lock
from mlimages_jax.evaluation import published, report
from mlimages_jax.evaluation.checkpoint_evaluation import (
    check_batch,
    evaluation_of,
    load_to_evaluate,
)
from mlimages_jax.evaluation.class_details import ClassDetails
from mlimages_jax.evaluation.evaluate import Metrics, why_no_map
from mlimages_jax.evaluation.known_results import (
    Row,
    Thresholds,
    data_key,
    known_result,
    result_key,
)
from mlimages_jax.evaluation.which_checkpoints import checkpoints_to_evaluate
from mlimages_jax.files import paths
from mlimages_jax.files.remote import append_line, read_json_lines, write_text
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.settings import Evaluate, build, checked

IMAGENET = (1_000, 50_000)  # classes and images of ImageNet's validation set, as published

_BOTH: tuple[ViewName, ...] = ("central", "short_side")  # used when nothing names a view


def evaluate(config: Evaluate, workdir: epath.PathLike) -> list[Row]:
    """Evaluates as configured; prints a table and writes files to the workdir.

    Args:
        config: Settings of the task.
        workdir: Folder of the results; results it already has for the same weights, data and
            settings are not computed again.

    Returns:
        One row per evaluation, in order, with its inputs and all its metrics.

    Raises:
        FileNotFoundError: If there is no checkpoint or no data set.
        DamagedCheckpointError: If a checkpoint is damaged; raised after evaluating all others.
        ConfigError: If the checkpoint does not match the set, or a value is invalid.
        DataSetError: If the set does not have the split.
        TooManyBadImagesError: If there are more than `config.input.max_bad_images` bad images.
        Preempted: If asked to stop; results already in the workdir are kept and reused.
    """
    config = checked(config)
    workdir = epath.Path(paths.absolute(workdir))
    with workdir_lock.held(workdir, task="evaluate"):
        return _evaluate(config, workdir)


class _Task(NamedTuple):
    """The state that all evaluations of a task share.

    Attributes:
        config: Settings of the task.
        workdir: Folder of the results.
        data: The data set.
        data_key: Digests of the set and of the labels that replace its own.
        hierarchy: The classes.
        relabel: Replaces the labels of records; None keeps them.
        positives_in: Maps a split to its number of positive images by class, int64 [C]; None if
            they are not counted, see `positives_per_class`.
        rows: Results in results.jsonl, which grows with the task.
        writer: Writer for the metrics.
    """

    config: Evaluate
    workdir: epath.Path
    data: DataSet
    data_key: Row
    hierarchy: Hierarchy
    relabel: RealLabels | None
    positives_in: Callable[[str], np.ndarray | None]
    rows: list[Row]
    writer: MetricsWriter

    @property
    def results(self) -> epath.Path:
        """The file of all results."""
        return self.workdir / "results.jsonl"


def _evaluate(config: Evaluate, workdir: epath.Path) -> list[Row]:
    """Runs `evaluate` while the workdir is locked."""
    task = _begin(config, workdir)
    shown: list[Row] = []
    damaged: list[str] = []
    for folder in checkpoints_to_evaluate(config):
        try:
            checkpoint = load_to_evaluate(folder, task.data, loss=config.loss, ema=config.ema)
            views = _views(config, checkpoint, task.data)
        except (DamagedCheckpointError, VanishedCheckpointError) as error:
            # A single requested checkpoint must not fail silently; among several, one may be
            # damaged, or deleted by the running training before it was read.
            if config.which in ("latest", "best"):
                raise
            logging.warning("not evaluated: %s", error)
            damaged += [str(error)] if isinstance(error, DamagedCheckpointError) else []
            continue
        own = _own_thresholds(config, checkpoint, task.hierarchy)
        shown += [_result(task, folder, checkpoint, view, own) for view in views]
    task.writer.close()
    table = "\n".join(
        [_tables(config, task.data, shown), *(f"not evaluated: {line}" for line in damaged)]
    )
    if jax.process_index() == 0:
        write_text(workdir / "results.txt", table + "\n")
        print(table)
    if damaged:
        raise DamagedCheckpointError(f"not all checkpoints were evaluated: {'; '.join(damaged)}")
    return shown


def _begin(config: Evaluate, workdir: epath.Path) -> _Task:
    """Opens the data set and the results of earlier starts."""
    workdir.mkdir(parents=True, exist_ok=True)
    data = DataSet.open(config.data.folder, copy_to=config.data.copy_to)
    check_batch(config.evaluation.batch_size, name="evaluation.batch_size")
    count = functools.partial(positives_per_class, data, threshold=config.evaluation.threshold)
    return _Task(
        config,
        workdir,
        data,
        relabel=_real_labels(config, data),
        data_key=data_key(config, data),
        hierarchy=Hierarchy.from_file(data.class_list),
        positives_in=functools.cache(count),  # counting reads every record of the split
        rows=list(read_json_lines(workdir / "results.jsonl")),
        writer=MetricsWriter(workdir, start_step=None),
    )


def _result(
    task: _Task, folder: epath.Path, checkpoint: SavedModel, view: EvaluationView, own: Thresholds
) -> Row:
    """Returns the result of a checkpoint in one view, which is computed unless it is known."""
    config = task.config
    key = result_key(config, checkpoint, view, own) | task.data_key
    where = {"checkpoint": str(folder), "data": str(config.data.folder)}
    name = f"{config.data.split}_{view.name}_{view.size}"
    if known := known_result(task.rows, key, step=checkpoint.step):
        logging.info("%s: %s was already evaluated", folder, name)
        # Its data set or checkpoint may have been at another path then.
        return known | where
    evaluation = evaluation_of(
        checkpoint,
        task.data,
        view,
        config.input,
        split=config.data.split,
        loss=config.loss,
        threshold=config.evaluation.threshold,
        batch_size=config.evaluation.batch_size,
        dtype=config.dtype,
        relabel=task.relabel,
        workdir=task.workdir,
    )
    values, metrics = evaluation.run(checkpoint.weights)
    details = None
    if isinstance(metrics, MultiLabelMetrics):
        positives = task.positives_in(_train_split(checkpoint))
        details = ClassDetails.of(
            metrics, task.hierarchy, thresholds=own, train_positives=positives
        )
        values |= details.means()
    row = {**where, **key, "step": checkpoint.step, **values}
    task.rows.append(row)
    _write(task, name, row, values, metrics, details)
    lines = [_line(values), *(details.lines() if details else ())]
    for line in lines:
        logging.info("step %d  %s: %s", checkpoint.step, name, line)
    if reason := why_no_map(values, metrics):
        logging.warning("step %d  %s: %s", checkpoint.step, name, reason)
    return row


def _write(
    task: _Task,
    name: str,
    row: Row,
    values: dict[str, float],
    metrics: Metrics,
    details: ClassDetails | None,
) -> None:
    """Writes the metrics, tables and figures of a result, and last its line in results.jsonl."""
    step = row["step"]
    task.writer.write(step, {f"{name}/{metric}": value for metric, value in values.items()})
    if jax.process_index() > 0:
        return
    title = f"step {step}, {row['split']} at {row['size']} px, {row['protocol']}"
    report.write_files(
        task.workdir / str(step) / name,
        metrics,
        task.hierarchy,
        title=title,
        values=values,
        details=details,
    )
    # Last, because a result with a line is not computed again: its tables must be complete.
    append_line(task.results, json.dumps(row))


def _own_thresholds(config: Evaluate, checkpoint: SavedModel, hierarchy: Hierarchy) -> Thresholds:
    """Returns the thresholds of a checkpoint and where they are from; None if there are none."""
    classes = checkpoint.hierarchy or hierarchy
    weight = checkpoint.usage(loss=config.loss).positive_weight
    found = own_thresholds.thresholds_of(checkpoint, classes, positive_weight=weight)
    return (found.of(classes), str(found)) if found else None


def _train_split(checkpoint: SavedModel) -> str:
    return checkpoint.config.get("data", {}).get("train_split", "train")


def _views(config: Evaluate, checkpoint: SavedModel, data: DataSet) -> list[EvaluationView]:
    """Returns the views to evaluate: as configured, or else as in the checkpoint's training.

    Raises:
        ConfigError: If no image size is known.
    """
    trained, usage = checkpoint.config, checkpoint.usage(loss=config.loss)
    upright = saved_model.turns_upright(trained, config.exif_orientation, built=True)
    if data.orientation == "exif" and trained.get("orientation") == "stored":
        logging.warning(
            "%s was trained on images with their stored orientation, but those of %s were turned "
            "upright when it was built: to reproduce its metrics build the set with "
            "--orientation=stored",
            checkpoint.where, data.folder,
        )  # fmt: skip
    sizes = config.evaluation.sizes or usage.sizes
    if not sizes:
        raise build.ConfigError(
            f"{checkpoint.where} does not say at which size it was trained: give "
            "--config.evaluation.sizes='(224,)'"
        )
    views = config.evaluation.views or usage.views or _BOTH
    return [EvaluationView(size, name, upright) for name in views for size in sizes]


def _real_labels(config: Evaluate, data: DataSet) -> RealLabels | None:
    """Loads other labels for the set, if configured, and checks them against it."""
    if not config.data.real_labels:
        return None
    records = data.records(config.data.split)
    try:
        labels = RealLabels.from_file(config.data.real_labels, num_classes=data.num_classes)
        labels.check_length(len(records))
        labels(parse_record(records[0]))
    except ValueError as error:
        raise build.ConfigError(f"data.real_labels: {error}") from error
    return labels


def _line(values: dict[str, float]) -> str:
    shown = (f"{key} {values[key]:.4f}" for key in published.METRICS if key in values)
    return "  ".join(shown)


def _tables(config: Evaluate, data: DataSet, rows: list[Row]) -> str:
    """Formats all results; for single-label sets, also the last step next to published results."""
    tables = [published.results_table(rows)]
    last = [row for row in rows if row["checkpoint"] == rows[-1]["checkpoint"]] if rows else []
    if last and "top1" in last[0]:
        images = len(data.records(config.data.split))
        imagenet = (data.num_classes, images) == IMAGENET and not config.data.real_labels
        ours = {(row["size"], row["protocol"]): row for row in last}
        title = f"{last[0]['checkpoint']} on {data.folder}, {config.data.split}"
        tables.append(published.table(ours, title=title, comparable=imagenet))
    return "\n".join(tables)
