# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/evaluate.py: evaluates checkpoints of a run on a data set, in all views."""

import dataclasses
import functools
import hashlib
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.checkpoints import manager, own_thresholds, saved_model, step_folders
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError, VanishedCheckpointError
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.data import fingerprint
from mlimages_jax.data.class_positives import positives_per_class
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.views import EvaluationView, ViewName
from mlimages_jax.data.real_labels import RealLabels
from mlimages_jax.data.records import parse_record
from mlimages_jax.distributed import (
    agreement,
    preemption,
    workdir_lock,
)
from mlimages_jax.evaluation import published, report
from mlimages_jax.evaluation.checkpoint_evaluation import (
    check_batch,
    evaluation_of,
    load_to_evaluate,
)
from mlimages_jax.evaluation.class_details import ClassDetails
from mlimages_jax.evaluation.evaluate import why_no_map
from mlimages_jax.files import paths
from mlimages_jax.files.remote import append_line, read_json_lines, write_text
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.settings import Evaluate, build, checked

IMAGENET = (1_000, 50_000)  # classes and images of ImageNet's validation set, as published

_BOTH: tuple[ViewName, ...] = ("central", "short_side")  # used when nothing names a view

Row = dict[str, Any]


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


def _evaluate(config: Evaluate, workdir: epath.Path) -> list[Row]:
    """Runs `evaluate` while the workdir is locked."""
    workdir.mkdir(parents=True, exist_ok=True)
    data = DataSet.open(config.data.folder, copy_to=config.data.copy_to)
    check_batch(config.evaluation.batch_size, name="evaluation.batch_size")
    relabel = _real_labels(config, data)
    of_data = _data_key(config, data)
    hierarchy = Hierarchy.from_file(data.class_list)
    positives_in = functools.cache(
        functools.partial(positives_per_class, data, threshold=config.evaluation.threshold)
    )
    results = workdir / "results.jsonl"
    rows = list(read_json_lines(results))
    writer = MetricsWriter(workdir, start_step=None)
    shown: list[Row] = []
    damaged: list[str] = []
    for folder in _checkpoints(config):
        try:
            checkpoint = load_to_evaluate(folder, data, loss=config.loss, ema=config.ema)
            views = _views(config, checkpoint, data)
        except (DamagedCheckpointError, VanishedCheckpointError) as error:
            # A single requested checkpoint must not fail silently; among several, one may be
            # damaged, or deleted by the running training before it was read.
            if config.which in ("latest", "best"):
                raise
            logging.warning("not evaluated: %s", error)
            damaged += [str(error)] if isinstance(error, DamagedCheckpointError) else []
            continue
        own = _own_thresholds(config, checkpoint, hierarchy)
        where = {"checkpoint": str(folder), "data": str(config.data.folder)}
        for view in views:
            key = _key(config, checkpoint, view, own) | of_data
            name = f"{config.data.split}_{view.name}_{view.size}"
            if known := _known(rows, key, step=checkpoint.step):
                logging.info("%s: %s was already evaluated", folder, name)
                shown.append(known | where)
                continue
            evaluation = evaluation_of(
                checkpoint,
                data,
                view,
                config.input,
                split=config.data.split,
                loss=config.loss,
                threshold=config.evaluation.threshold,
                batch_size=config.evaluation.batch_size,
                dtype=config.dtype,
                relabel=relabel,
                workdir=workdir,
            )
            values, metrics = evaluation.run(checkpoint.weights)
            details = None
            if isinstance(metrics, MultiLabelMetrics):
                positives = positives_in(_train_split(checkpoint))
                details = ClassDetails.of(
                    metrics, hierarchy, thresholds=own, train_positives=positives
                )
                values |= details.means()
            row = {**where, **key, "step": checkpoint.step, **values}
            shown.append(row)
            rows.append(row)
            writer.write(checkpoint.step, {f"{name}/{key}": value for key, value in values.items()})
            if jax.process_index() == 0:
                title = f"step {row['step']}, {row['split']} at {view.size} px, {view.name}"
                output = workdir / str(checkpoint.step) / name
                report.write_files(
                    output, metrics, hierarchy, title=title, values=values, details=details
                )
                append_line(results, json.dumps(row))
            lines = [_line(values), *(details.lines() if details else ())]
            for line in lines:
                logging.info("step %d  %s: %s", checkpoint.step, name, line)
            if reason := why_no_map(values, metrics):
                logging.warning("step %d  %s: %s", checkpoint.step, name, reason)
    writer.close()
    table = "\n".join(
        [_tables(config, data, shown), *(f"not evaluated: {line}" for line in damaged)]
    )
    if jax.process_index() == 0:
        write_text(workdir / "results.txt", table + "\n")
        print(table)
    if damaged:
        raise DamagedCheckpointError(f"not all checkpoints were evaluated: {'; '.join(damaged)}")
    return shown


def _checkpoints(config: Evaluate) -> Iterator[epath.Path]:
    """Yields the step folders to evaluate, the same on all processes.

    Raises:
        FileNotFoundError: If there is none, or none was written in time.
    """
    if config.which == "best":
        yield step_folders.chosen_by_process_0(manager.best(config.checkpoint))
        return
    if config.which != "new":
        step_folders.resolve_quietly(config.checkpoint)  # its error explains what is missing
        found = manager.find(config.checkpoint)
        yield from (
            step_folders.chosen_by_process_0(folder)
            for folder in (found[-1:] if config.which == "latest" else found)
        )
        return
    done: set[epath.Path] = set()
    deadline = time.monotonic() + 60 * config.wait_minutes
    while time.monotonic() < deadline:
        fresh = [folder for folder in manager.find(config.checkpoint) if folder not in done]
        if not fresh:
            time.sleep(config.poll_seconds)
            preemption.check()
            continue
        folder = step_folders.chosen_by_process_0(fresh[0])
        done.add(folder)
        yield folder
        # The training that writes these checkpoints has reached its end: there will be no further
        # one.
        if int(folder.name) >= _total_steps(folder):
            return
        deadline = time.monotonic() + 60 * config.wait_minutes
    logging.warning(
        "no new checkpoint in %s for %.0f minutes: done", config.checkpoint,
        config.wait_minutes,
    )  # fmt: skip
    if not done:
        step_folders.resolve_quietly(config.checkpoint)  # its error explains what is missing


def _total_steps(folder: epath.Path) -> float:
    """Returns the last step of a checkpoint's training; inf if the checkpoint has been deleted."""
    try:
        return float(manager.config_of(folder).get("total_steps", math.inf))
    except (DamagedCheckpointError, VanishedCheckpointError):
        return math.inf


def _own_thresholds(
    config: Evaluate, checkpoint: SavedModel, hierarchy: Hierarchy
) -> tuple[np.ndarray, str] | None:
    """Returns the thresholds of a checkpoint and where they are from; None if there are none."""
    classes = checkpoint.hierarchy or hierarchy
    weight = checkpoint.usage(loss=config.loss).positive_weight
    found = own_thresholds.thresholds_of(checkpoint, classes, positive_weight=weight)
    return (found.of(classes), str(found)) if found else None


def _train_split(checkpoint: SavedModel) -> str:
    return checkpoint.config.get("data", {}).get("train_split", "train")


def _key(
    config: Evaluate,
    checkpoint: SavedModel,
    view: EvaluationView,
    own: tuple[np.ndarray, str] | None,
) -> Row:
    """Returns what identifies an evaluation on given data: the network, and how it is used."""
    used = checkpoint.usage(loss=config.loss).loss_settings
    arguments = getattr(used, used.name, None)
    loss = {"name": used.name, **(dataclasses.asdict(arguments) if arguments else {})}
    return {
        "split": config.data.split,
        "size": view.size,
        # These three keys are as version 0.1 wrote them, so that its results stay known.
        "protocol": view.name,
        "labels": config.data.real_labels,
        "averaged": config.ema,
        "dtype": config.dtype,
        "orientation": "exif" if view.exif_orientation else "stored",
        "weights": weights_digest(checkpoint.weights),
        "loss_settings": json.dumps(loss, sort_keys=True),
        "threshold": config.evaluation.threshold,
        # Only if there are any, so that results from before there were thresholds stay known.
        **({"thresholds": hashlib.sha256(own[0].tobytes()).hexdigest()[:16]} if own else {}),
    }


def _data_key(config: Evaluate, data: DataSet) -> Row:
    """Returns digests of the data set and of its replaced labels, the same on all processes.

    Raises:
        DifferentProcessesError: If the processes see different files.
    """
    parts = fingerprint.fingerprint(data, [config.data.split])
    found = {"data_digest": "-".join(parts.values()), "labels_digest": ""}
    if config.data.real_labels:
        labels = epath.Path(config.data.real_labels).read_bytes()
        found["labels_digest"] = hashlib.sha256(labels).hexdigest()[:16]
    agreement.check_same(found)
    return found


def _known(rows: list[Row], key: Row, *, step: int) -> Row | None:
    """Returns the result of the same evaluation, if its tables were not overwritten since."""
    # Tables are named by split, view, size and step only: a later evaluation that differs
    # elsewhere, such as in its labels, has replaced them.
    named = {name: key[name] for name in ("split", "size", "protocol")} | {"step": step}
    last = [row for row in rows if named.items() <= row.items()][-1:]
    return next((row for row in last if key.items() <= row.items()), None)


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
