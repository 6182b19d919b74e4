# SPDX-License-Identifier: BSD-3-Clause
"""The training loop: set up, restore, compile, iterate, evaluate, save."""

import functools
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mlimages_jax import configure, sharding, steps
from mlimages_jax.checkpoints import HEAD, Checkpoints, classes_of, restore_weights
from mlimages_jax.data import pipeline
from mlimages_jax.data.sources import DataSet
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics_writer import MetricsWriter
from mlimages_jax.phases import Phase
from mlimages_jax.progress import NonFiniteError, Progress
from mlimages_jax.state import TrainState, abstract_state, create_state, with_weights
from mlimages_jax.training_evaluation import evaluate_and_log, make_evaluations, write_report

CompiledStep = Callable[[TrainState, steps.Batch], tuple[TrainState, dict[str, jax.Array]]]


def train(config: ConfigDict, workdir: epath.PathLike) -> TrainState:
    """Trains as configured and returns the final state.

    Started again on the same workdir it goes on from the latest checkpoint, on any number of
    devices, and ends where an uninterrupted run would have ended.

    Args:
        config: see configs/pretrain.py and configs/finetune.py for every field.
        workdir: checkpoints, metrics and the configuration go here.

    Raises:
        FileNotFoundError: the data set or `init_from` is missing; says what to do.
        ConfigError: the configuration cannot run, or differs from the checkpoint's.
        CheckpointMismatchError: names, shapes or dtypes differ from the checkpoint's.
        DataSetError: the data set lacks a split.
        NonFiniteError: names the last good checkpoint.
        TooManyBadPicturesError: over `config.input.max_bad_pictures`.
    """
    # ---------- data and mesh
    workdir = epath.Path(workdir)
    data = DataSet.open(config.data.folder)
    records = data.records(config.data.train_split)
    mesh = sharding.make_mesh()
    phases = configure.phases(config)
    check_sizes(config, phases, mesh)
    if configure.is_single_label(config) and data.max_labels > 1:
        raise configure.ConfigError(
            f"loss.name='softmax' is for one class a picture, and {data.folder} has up to "
            f"{data.max_labels}: use --config.loss.name=sigmoid, asymmetric or weighted"
        )
    _log_layout(config, data, len(records), mesh)

    # ---------- model, loss, optimizer
    model = configure.model(config, num_classes=data.num_classes)
    loss, count_groups = configure.loss(config)
    side = config.image_size
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    optimizer = configure.optimizer(config, shapes["params"])
    averaged = config.optimizer.average_decay > 0
    initial = {"image_size": side, "count_groups": count_groups, "averaged": averaged}
    like = abstract_state(
        model, optimizer, mesh=mesh, fsdp_min_size=config.fsdp_min_size or None, **initial
    )
    train_step = jax.jit(
        functools.partial(
            steps.train_step,
            model=model,
            loss=loss,
            optimizer=optimizer,
            schedule=configure.schedule(config),
            augmentation=configure.augmentation(config),
            mixing=configure.mixup_and_cutmix(config),
            factors=configure.learning_rate_factors(config, shapes["params"]),
            average_decay=config.optimizer.average_decay,
            seed=config.seed,
            unlisted=data.unlisted,
        ),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, like), sharding.replicated(mesh)),
    )
    evaluations = make_evaluations(config, data, model, loss, mesh)

    settings = configure.values(config)
    with Checkpoints(
        workdir / "checkpoints",
        keep_latest=config.checkpoint.keep_latest,
        keep_every=config.checkpoint.keep_every,
    ) as checkpoints:
        # ---------- restore: 1 own latest, 2 config.init_from, 3 fresh
        fresh = functools.partial(
            create_state, model, optimizer, seed=config.seed, like=like, **initial
        )
        if checkpoints.steps:
            configure.check_unchanged(checkpoints.config_of(checkpoints.steps[-1]), settings)
            state = checkpoints.restore(like)
            logging.info("continuing from step %d of %s", checkpoints.steps[-1], workdir)
        elif config.init_from:
            state = begin_with(config.init_from, fresh, like, data)
        else:
            state = fresh()
        start = int(state.step)
        left = [phase for phase in phases if phase.stop > start]
        if not left:
            logging.info("all %d steps are done", config.total_steps)

        # ---------- compile: every size once, before the first step
        compiled = {
            phase: compile_step(train_step, like, phase, data.max_labels, mesh) for phase in left
        }

        # ---------- loop
        keep_in_workdir(workdir, settings, data)
        writer = MetricsWriter(workdir, start_step=start)
        progress = Progress(writer, total_steps=config.total_steps, every=config.log_every)
        inputs = training_inputs(config, data, mesh, workdir)
        waited = 0.0  # seconds for input, in the phases before
        try:
            for phase in left:
                first = max(start, phase.start)
                batches = inputs(phase, start_step=first - phase.start)
                _log_phase(phase, len(records))
                for step in range(first + 1, phase.stop + 1):
                    with jax.transfer_guard("disallow"):
                        state, metrics = compiled[phase](state, next(batches))
                    progress.add(
                        step,
                        metrics,
                        batch_size=phase.batch_size,
                        seconds_waited=waited + batches.seconds_waited,
                    )
                    last = step == config.total_steps
                    if last or step % config.checkpoint.every == 0:
                        with progress.pause():
                            progress.flush()  # a state that is not finite is never saved
                            checkpoints.save(state, step=step, config=settings)
                    if config.evaluate_every and step % config.evaluate_every == 0 and not last:
                        with progress.pause():
                            evaluate_and_log(evaluations, state, writer, step)
                waited += batches.seconds_waited
        except NonFiniteError as error:
            good = checkpoints.directory / str(checkpoints.steps[-1]) if checkpoints.steps else None
            raise NonFiniteError(
                f"{error}. The last good checkpoint is {good}. Lower the learning rate (in another "
                "--workdir, with --config.init_from) or look at the data of these steps."
            ) from error

        # ---------- what came out
        results = evaluate_and_log(evaluations, state, writer, int(state.step))
        writer.close()
        if results and jax.process_count() == 1:
            write_report(workdir, config, data, state, evaluations, results)
    return state


def check_sizes(config: ConfigDict, phases: list[Phase], mesh: Mesh) -> None:
    """Checks that devices, groups and processes divide the batches.

    Raises:
        ConfigError: with the numbers.
    """
    try:
        for phase in phases:
            sharding.check_batch(
                batch_size=phase.batch_size, group_size=config.group_size, mesh=mesh
            )
        sharding.check_batch(batch_size=config.evaluation.batch_size, group_size=None, mesh=mesh)
    except ValueError as error:
        raise configure.ConfigError(str(error)) from error


def begin_with(
    path: str, fresh: Callable[[], TrainState], like: TrainState, data: DataSet
) -> TrainState:
    """A fresh state with the weights of another run, apart from a head for other classes."""
    weights = restore_weights(path, like)
    logging.info("starting with the parameters of %s", path)
    kept = classes_of(path)
    if kept and Hierarchy.from_file(kept).ids != Hierarchy.from_file(data.dictionary).ids:
        weights["params"].pop(HEAD, None)
    if HEAD not in weights["params"]:
        logging.info(
            "its classifier is for other classes: a new one for %d begins", data.num_classes
        )
    return with_weights(fresh(), weights)


def compile_step(
    train_step: Any, like: TrainState, phase: Phase, max_labels: int, mesh: Mesh
) -> CompiledStep:
    """Compiles the step for the sizes of a phase and logs how long that took."""
    batch = pipeline.abstract_batch(
        phase.image_size, batch_size=phase.batch_size, max_labels=max_labels, mesh=mesh
    )
    begin = time.perf_counter()
    compiled = train_step.lower(like, batch).compile()
    logging.info(
        "compiled the step for %d px, batch %d, in %.1f s",
        phase.image_size, phase.batch_size, time.perf_counter() - begin,
    )  # fmt: skip
    return compiled


def training_inputs(
    config: ConfigDict, data: DataSet, mesh: Mesh, workdir: epath.Path
) -> Callable[..., pipeline.DeviceBatches]:
    """Makes, for a phase and `start_step` within it, its training batches, placed on the mesh."""
    records = data.records(config.data.train_split)
    bad_pictures = pipeline.BadPictures(
        workdir / "bad_pictures.tsv", limit=config.input.max_bad_pictures
    )

    def inputs(phase: Phase, *, start_step: int) -> pipeline.DeviceBatches:
        batches = pipeline.training_batches(
            records,
            configure.training_view(config, image_size=phase.image_size),
            batch_size=phase.batch_size,
            max_labels=data.max_labels,
            seed=config.seed,
            start_step=start_step,
            first_picture=phase.first_picture,
            bad_pictures=bad_pictures,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=config.input.num_threads,
            prefetch=config.input.prefetch,
        )
        return pipeline.DeviceBatches(batches, mesh)

    return inputs


def keep_in_workdir(workdir: epath.Path, settings: dict[str, Any], data: DataSet) -> None:
    """Writes the configuration, and the classes, which whoever uses the checkpoints needs.

    Raises:
        ConfigError: when the workdir holds the classes of another data set.
    """
    classes, kept = data.dictionary.read_text(), workdir / "dictionary.txt"
    if kept.exists() and kept.read_text() != classes:
        raise configure.ConfigError(
            f"{kept} and {data.dictionary} hold different classes: train on the data set that this "
            "workdir began with, or give another --workdir"
        )
    if jax.process_index() == 0:
        (workdir / "config.json").write_text(json.dumps(settings, indent=1))
        kept.write_text(classes)


def _log_layout(config: ConfigDict, data: DataSet, pictures: int, mesh: Mesh) -> None:
    groups = config.batch_size // (config.group_size or config.batch_size)
    logging.info(
        "%s: %d pictures, %d classes, up to %d labels, unlisted classes are %s; batch %d in %d "
        "groups on %d %s devices of %d processes",
        data.folder, pictures, data.num_classes, data.max_labels,
        "unknown" if data.unlisted < 0 else "absent", config.batch_size, groups,
        mesh.size, jax.default_backend(), jax.process_count(),
    )  # fmt: skip


def _log_phase(phase: Phase, pictures: int) -> None:
    epochs = (phase.stop - phase.start) * phase.batch_size / max(pictures, 1)
    logging.info(
        "steps %d to %d: %d px, batch %d, %.1f epochs",
        phase.start + 1, phase.stop, phase.image_size, phase.batch_size, epochs,
    )  # fmt: skip
