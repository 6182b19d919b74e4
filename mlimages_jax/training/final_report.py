# SPDX-License-Identifier: BSD-3-Clause
"""Writes tables and figures at the end of a training, of the weights that `load` will take.

These are the best ones if the run records which they are, else the last ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.checkpoints.loading import restore_weights
from mlimages_jax.checkpoints.manager import Checkpoints
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.data.class_positives import positives_per_class
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.distributed import collectives
from mlimages_jax.evaluation import examples_file, prediction_grid, report
from mlimages_jax.evaluation.class_details import ClassDetails
from mlimages_jax.evaluation.evaluate import Evaluation, Metrics, Weights
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.settings import Train, build
from mlimages_jax.step.state import TrainState
from mlimages_jax.training.evaluations import Reports


class Reported(NamedTuple):
    """What the report describes: weights, in the first split, view and size.

    Attributes:
        step: Updates done.
        weights: The weights, of the EMA if there is one.
        values: All metrics by name.
        metrics: Their accumulators.
    """

    step: int
    weights: Weights
    values: dict[str, float]
    metrics: Metrics


def evaluated_for_report(
    checkpoints: Checkpoints,
    evaluation: Evaluation,
    *,
    state: TrainState,
    abstract_state: TrainState,
    reports: Reports,
    check_stop: Callable[[], None],
) -> Reported:
    """Returns what the report describes; if the best step is not the last, evaluates it again.

    All processes call it together. The evaluation in the course of the training is not kept: a
    restart would not have it, and its counts take as much memory as those of the last.

    Args:
        checkpoints: Checkpoints of the run; all saves are complete.
        evaluation: The first evaluation.
        state: The last state.
        abstract_state: Names, shapes, dtypes and shardings of a state.
        reports: Evaluations of the last state.
        check_stop: Called after every batch; may raise `Preempted`.
    """
    last = int(state.step)
    # One answer for all processes, to which a shared disk may show a step at different times.
    while (step := collectives.of_process_0(checkpoints.best_step(checkpoints.steps))) is not None:
        if step == last:
            break
        try:
            weights = restore_weights(checkpoints.directory / str(step), abstract_state)
        except DamagedCheckpointError as error:
            checkpoints.set_aside(step, error)  # then `load` takes the next best, and so do we
            continue
        logging.info("evaluating the best checkpoint, step %d, which the report describes", step)
        return Reported(step, weights, *evaluation.run(weights, check_stop=check_stop))
    return Reported(last, state.ema or state.weights, *next(iter(reports.values())))


def write_report(
    workdir: epath.Path,
    reported: Reported,
    *,
    config: Train,
    data: DataSet,
    evaluation: Evaluation,
) -> None:
    """Writes tables and figures of an evaluation to the workdir.

    Called on process 0 only. With several processes the prediction grid is skipped, because all of
    them would have to compute it together; one of an earlier training is removed, as it shows what
    other weights predict.
    """
    metrics, limits = reported.metrics, None
    hierarchy = Hierarchy.from_file(data.class_list)
    title = f"{workdir.name}, step {reported.step}"
    details = None
    if isinstance(metrics, MultiLabelMetrics):
        threshold, split = config.evaluation.threshold, config.data.train_split
        positives = positives_per_class(data, split, threshold=threshold)
        details = ClassDetails.of(metrics, hierarchy, train_positives=positives)
        limits = details.statistics.thresholds
        for line in details.lines():
            logging.info("%s: %s", title, line)
    # With the step, as a reader of the file cannot see of which one it is.
    values = {"step": reported.step} | reported.values
    report.write_files(workdir, metrics, hierarchy, title=title, values=values, details=details)
    grid = workdir / "predictions.png"
    for path in (grid, workdir / examples_file.FILE_NAME):
        path.unlink(missing_ok=True)
    if jax.process_count() > 1:
        return
    prediction_grid.write_grid(
        grid,
        evaluation,
        reported.weights,
        hierarchy,
        probabilities=build.probabilities(config.loss),
        threshold=config.evaluation.threshold,
        # Without any positive there are no thresholds, and tagging shows the most probable tags.
        limits=None if limits is None or np.isnan(limits).all() else limits,
    )
