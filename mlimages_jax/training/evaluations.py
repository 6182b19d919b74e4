# SPDX-License-Identifier: BSD-3-Clause
"""The evaluations of a training: what is evaluated, on the way and at the end, and what is left."""

from collections.abc import Callable

import jax
from absl import logging
from etils import epath
from flax import linen as nn
from jax.sharding import Mesh

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.evaluation import predictions, report
from mlimages_jax.evaluation.evaluate import (
    Evaluation,
    Metrics,
    empty_metrics,
    why_no_map,
)
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.settings import Train, build
from mlimages_jax.step.losses import Loss
from mlimages_jax.step.state import TrainState

SHOWN = (  # on the log line
    "loss", "top1", "top5", "mAP", "precision@5", "recall@5", "f1@5", "hierarchical_f1",
)  # fmt: skip

Results = dict[str, tuple[dict[str, float], Metrics]]


def make_evaluations(
    config: Train, data: DataSet, model: nn.Module, loss: Loss, mesh: Mesh
) -> dict[str, Evaluation]:
    """How each of `config.evaluation.splits` is evaluated, at every size in every view."""
    paths = Hierarchy.from_file(data.dictionary).paths()
    views = build.evaluation_views(config.evaluation, image_size=config.image_size)
    evaluations = {}
    for split in config.evaluation.splits:
        records = data.records(split)
        metrics = empty_metrics(
            len(records),
            paths,
            single_label=build.is_single_label(config.loss),
            threshold=config.evaluation.threshold,
            positive_weight=build.positive_weight(config.loss),
        )
        for view in views:
            name = split if len(views) == 1 else f"{split}_{view.protocol}_{view.size}"
            evaluations[name] = Evaluation(
                model=model,
                loss=loss,
                records=records,
                view=view,
                metrics=metrics,
                batch_size=config.evaluation.batch_size,
                max_labels=data.max_labels,
                mesh=mesh,
                unlisted=data.unlisted,
                num_threads=config.input.num_threads,
            )
    return evaluations


def evaluate_and_log(
    evaluations: dict[str, Evaluation],
    state: TrainState,
    writer: MetricsWriter,
    step: int,
    *,
    check_stop: Callable[[], None],
) -> Results:
    """Evaluates the weights, and their averages, everywhere; prints a line each, writes scalars.

    `check_stop` is called after every batch.

    Returns:
        Values and accumulators of each evaluation, of the averages where there are some.
    """
    kinds = {"": state.weights}
    if state.averages is not None:
        kinds["_averaged"] = state.averages
    results = {}
    for name, evaluation in evaluations.items():
        for kind, weights in kinds.items():
            results[name] = evaluation.run(weights, check_stop=check_stop)
            values = results[name][0]
            writer.write(step, {f"{name}{kind}/{key}": value for key, value in values.items()})
            shown = "  ".join(f"{key} {values[key]:.4f}" for key in SHOWN if key in values)
            logging.info("step %d  %s%s: %s", step, name, kind, shown)
            if told := why_no_map(*results[name]):
                logging.warning("step %d  %s%s: %s", step, name, kind, told)
    return results


def write_report(
    workdir: epath.Path,
    config: Train,
    data: DataSet,
    state: TrainState,
    evaluations: dict[str, Evaluation],
    results: Results,
) -> None:
    """Writes tables and images of the first evaluation into the workdir.

    Called by one process. Where there are others the grid of predictions is left out, which all
    would have to compute together.
    """
    values, metrics = next(iter(results.values()))
    hierarchy = Hierarchy.from_file(data.dictionary)
    title = f"{workdir.name}, step {int(state.step)}"
    report.write_files(workdir, metrics, hierarchy, title=title, values=values)
    if jax.process_count() > 1:
        return
    predictions.write_grid(
        workdir / "predictions.png",
        next(iter(evaluations.values())),
        state.averages or state.weights,
        hierarchy,
        probabilities=build.probabilities(config.loss),
        threshold=config.evaluation.threshold,
    )
