# SPDX-License-Identifier: BSD-3-Clause
"""A training that is set up: data set, devices, network, evaluations; no state yet."""

from typing import Any, NamedTuple

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.distributed import devices, processes, sharding
from mlimages_jax.evaluation.evaluate import Evaluation
from mlimages_jax.monitoring.goodput import Goodput
from mlimages_jax.monitoring.step_bar import StepBar
from mlimages_jax.monitoring.trackers import Trackers
from mlimages_jax.settings import Train, build, restart
from mlimages_jax.settings.build import training_step
from mlimages_jax.step.state import memory_line
from mlimages_jax.step.training_step import TrainingStep
from mlimages_jax.training import tracking
from mlimages_jax.training.evaluations import make_evaluations
from mlimages_jax.training.start import check_sizes, data_identity, frequencies, open_data


class Run(NamedTuple):
    """A training that is set up: what stays the same from its first step to its report.

    Attributes:
        config: Settings of the training.
        workdir: Folder of the run.
        data: The data set.
        mesh: Mesh over all devices.
        training: Model, optimizer and layout of the state.
        evaluations: Evaluations by name.
        settings: JSON values that are saved with every checkpoint.
        goodput: Records where the time goes.
        trackers: Experiment trackers, on process 0.
        bar: Progress bar, on process 0.
    """

    config: Train
    workdir: epath.Path
    data: DataSet
    mesh: Mesh
    training: TrainingStep
    evaluations: dict[str, Evaluation]
    settings: dict[str, Any]
    goodput: Goodput
    trackers: Trackers
    bar: StepBar


def set_up(config: Train, workdir: epath.Path, *, started: float | None) -> Run:
    """Opens the data set and builds the network; checks sizes before anything is computed."""
    is_first = jax.process_index() == 0  # it writes for all, which do the same at the same time
    goodput = Goodput(workdir / "goodput.jsonl" if is_first else None, started=started)
    goodput.devices = devices.described(jax.devices())
    data = open_data(config)
    mesh = sharding.make_mesh()
    check_sizes(config, build.stages(config), mesh)
    data_set = data_identity(config, data)
    _log_layout(config, data, mesh)
    # Only shapes so far: the state gets memory when it is restored or initialised.
    training = training_step(
        config,
        mesh,
        num_classes=data.num_classes,
        missing_labels=data.missing_labels,
        priors=frequencies(config, data),
    )
    logging.info("%s", memory_line(training.abstract_state))
    evaluations = make_evaluations(config, data, training.model, training.loss, mesh)
    settings = restart.values(config) | {"orientation": data.orientation, "data_set": data_set}
    trackers = tracking.open_trackers(config, workdir)
    bar = StepBar(total_steps=config.total_steps, goodput=goodput, active=is_first)
    return Run(config, workdir, data, mesh, training, evaluations, settings, goodput, trackers, bar)


def _log_layout(config: Train, data: DataSet, mesh: Mesh) -> None:
    logging.info(
        "%s: %d images, %d classes, up to %d labels, missing labels are %s",
        data.folder, data.num_records(config.data.train_split), data.num_classes, data.max_labels,
        "unknown" if data.missing_labels < 0 else "absent",
    )  # fmt: skip
    processes.log_layout(
        mesh,
        batch_size=config.batch_size,
        groups=config.batch_size // (config.group_size or config.batch_size),
    )
