# SPDX-License-Identifier: BSD-3-Clause
"""Runs the evaluations during and at the end of a training."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import RandomAccess
from mlimages_jax.evaluation.evaluate import (
    Evaluation,
    Metrics,
    empty_metrics,
    why_no_map,
)
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.settings import Train, build, metric_names
from mlimages_jax.step.losses import Loss
from mlimages_jax.step.state import TrainState

SHOWN = (  # metrics on the log line
    "loss", "top1", "top5", "mAP", "precision@5", "recall@5", "f1@5", "hierarchical_f1",
)  # fmt: skip

Reports = dict[str, tuple[dict[str, float], Metrics]]


class Results(NamedTuple):
    """The results of the evaluations of a step.

    Attributes:
        values: All metrics by the names under which they are logged, such as "val/mAP".
        reports: Values and accumulators by name of the evaluation, of the EMA weights if there are
            any.
    """

    values: dict[str, float]
    reports: Reports


def make_evaluations(
    config: Train, data: DataSet, model: nn.Module, loss: Loss, mesh: Mesh
) -> dict[str, Evaluation]:
    """Returns the evaluations of every split, size and view in `config.evaluation`, by name."""
    views = build.evaluation_views(config.evaluation, image_size=config.image_size)
    evaluations = {}
    for split in config.evaluation.splits:
        of_split = make_evaluation(config, data, model, loss, mesh, data.records(split))
        for view in views:
            name = metric_names.evaluation_name(split, view.name, view.size, views=len(views))
            evaluations[name] = dataclasses.replace(of_split, view=view)
    return evaluations


def make_evaluation(
    config: Train,
    data: DataSet,
    model: nn.Module,
    loss: Loss,
    mesh: Mesh,
    records: RandomAccess,
) -> Evaluation:
    """Sets up the evaluation of some records in the first view of `config.evaluation`.

    Args:
        config: Settings of the training.
        data: The data set of the records.
        model: The network.
        loss: The loss to report.
        mesh: Mesh over all devices.
        records: Serialised records.
    """
    (view, *_) = build.evaluation_views(config.evaluation, image_size=config.image_size)
    return Evaluation(
        model=model,
        loss=loss,
        records=records,
        view=view,
        metrics=empty_metrics(
            len(records),
            Hierarchy.from_file(data.class_list).paths(),
            single_label=build.is_single_label(config.loss),
            threshold=config.evaluation.threshold,
            positive_weight=build.positive_weight(config.loss),
        ),
        batch_size=config.evaluation.batch_size,
        max_labels=data.max_labels,
        mesh=mesh,
        missing_labels=data.missing_labels,
        num_threads=config.input.num_threads,
        num_workers=config.input.num_workers,
    )


def evaluate_and_log(
    evaluations: dict[str, Evaluation],
    state: TrainState,
    writer: MetricsWriter,
    step: int,
    *,
    check_stop: Callable[[], None],
) -> Results:
    """Runs all evaluations with the weights, and with the EMA weights if there are any.

    Logs a line and writes scalars for each.

    Args:
        evaluations: Evaluations by name.
        state: State to evaluate.
        writer: Writer for the scalars.
        step: Updates done.
        check_stop: Called after every batch; may raise `Preempted`.

    Returns:
        The values and accumulators.
    """
    kinds = {False: state.weights}
    if state.ema is not None:
        kinds[True] = state.ema
    results = Results({}, {})
    for name, evaluation in evaluations.items():
        for ema, weights in kinds.items():
            values, metrics = evaluation.run(weights, check_stop=check_stop)
            # The EMA weights come second and replace the raw ones: the report is of those in use.
            results.reports[name] = values, metrics
            title = metric_names.with_kind(name, ema=ema)
            named = {f"{title}/{key}": value for key, value in values.items()}
            results.values.update(named)
            writer.write(step, named)
            shown = "  ".join(f"{key} {values[key]:.4f}" for key in SHOWN if key in values)
            logging.info("step %d  %s: %s", step, title, shown)
            if told := why_no_map(values, metrics):
                logging.warning("step %d  %s: %s", step, title, told)
    return results
