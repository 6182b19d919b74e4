# SPDX-License-Identifier: BSD-3-Clause
"""The training loop: set up, restore, iterate, evaluate, save."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mlimages_jax import configure, predictions, sharding, steps
from mlimages_jax.checkpoints import Checkpoints, restore_weights
from mlimages_jax.data import augment, pipeline
from mlimages_jax.data.sources import DataSet, Records
from mlimages_jax.evaluate import Evaluation
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.losses import Loss
from mlimages_jax.metrics import MultiLabelMetrics
from mlimages_jax.metrics_writer import MetricsWriter
from mlimages_jax.progress import NonFiniteError, Progress
from mlimages_jax.state import TrainState, abstract_state, create_state

SHOWN = ("loss", "mAP", "precision@5", "recall@5", "f1@5", "hierarchical_f1")  # on the log line


def train(config: ConfigDict, workdir: epath.PathLike) -> TrainState:
    """Trains as configured and returns the final state.

    Started again on the same workdir it goes on from the latest checkpoint, on any number of
    devices, and ends where an uninterrupted run would have ended.

    Args:
        config: see configs/pretrain.py for every field.
        workdir: checkpoints, metrics and the configuration go here.

    Raises:
        FileNotFoundError: the data set or `init_from` is missing; says what to do.
        ConfigError: the configuration cannot run, or differs from the checkpoint's.
        CheckpointMismatchError: names, shapes or dtypes differ from the checkpoint's.
        NonFiniteError: names the last good checkpoint.
        TooManyBadPicturesError: over `config.input.max_bad_pictures`.
    """
    # ---------- data and mesh
    workdir = epath.Path(workdir)
    data = DataSet.open(config.data.folder)
    records = data.records(config.data.train_split)
    mesh = sharding.make_mesh()
    check_sizes(config, mesh)
    _log_layout(config, data, len(records), mesh)

    # ---------- model, loss, optimizer
    model = configure.model(config, num_classes=data.num_classes)
    loss, count_groups = configure.loss(config)
    side = config.image_size
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    optimizer = configure.optimizer(config, shapes["params"])
    initial = {"image_size": side, "count_groups": count_groups}
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
            augmentation=functools.partial(augment.pretrain_augment, **config.augmentation),
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
            params, batch_stats = restore_weights(config.init_from, like)
            state = dataclasses.replace(fresh(), params=params, batch_stats=batch_stats)
            logging.info("starting with the parameters of %s", config.init_from)
        else:
            state = fresh()
        start = int(state.step)

        if start >= config.total_steps:
            logging.info("all %d steps are done", config.total_steps)

        # ---------- loop
        (workdir / "config.json").write_text(json.dumps(settings, indent=1))
        writer = MetricsWriter(workdir, start_step=start)
        progress = Progress(
            writer,
            total_steps=config.total_steps,
            batch_size=config.batch_size,
            every=config.log_every,
        )
        batches = training_input(config, data, records, mesh, start=start, workdir=workdir)
        try:
            for step in range(start + 1, config.total_steps + 1):
                with jax.transfer_guard("disallow"):
                    state, metrics = train_step(state, next(batches))
                progress.add(step, metrics, seconds_waited=batches.seconds_waited)
                last = step == config.total_steps
                if last or step % config.checkpoint.every == 0:
                    with progress.pause():
                        progress.flush()  # a state that is not finite is never saved
                        checkpoints.save(state, step=step, config=settings)
                if config.evaluate_every and step % config.evaluate_every == 0 and not last:
                    with progress.pause():
                        evaluate_and_log(evaluations, state, writer, step)
        except NonFiniteError as error:
            good = checkpoints.directory / str(checkpoints.steps[-1]) if checkpoints.steps else None
            raise NonFiniteError(
                f"{error}. The last good checkpoint is {good}. Lower the learning rate (in another "
                "--workdir, with --config.init_from) or look at the data of these steps."
            ) from error

        # ---------- what came out
        metrics = evaluate_and_log(evaluations, state, writer, int(state.step))
        writer.close()
        if jax.process_count() == 1:
            hierarchy = Hierarchy.from_file(data.dictionary)
            evaluation = evaluations[config.evaluation.splits[0]]
            weight = configure.positive_weight(config)
            predictions.write_per_class_table(workdir / "per_class.tsv", metrics, hierarchy)
            predictions.write_grid(
                workdir / "predictions.png", evaluation, state, hierarchy, positive_weight=weight
            )
    return state


def check_sizes(config: ConfigDict, mesh: Mesh) -> None:
    """Checks that devices, groups and processes divide the batches.

    Raises:
        ConfigError: with the numbers.
    """
    try:
        sharding.check_batch(batch_size=config.batch_size, group_size=config.group_size, mesh=mesh)
        sharding.check_batch(batch_size=config.evaluation.batch_size, group_size=None, mesh=mesh)
    except ValueError as error:
        raise configure.ConfigError(str(error)) from error


def make_evaluations(
    config: ConfigDict, data: DataSet, model: nn.Module, loss: Loss, mesh: Mesh
) -> dict[str, Evaluation]:
    """How each of `config.evaluation.splits` is evaluated."""
    evaluation = functools.partial(
        Evaluation,
        model=model,
        loss=loss,
        view=configure.evaluation_view(config),
        batch_size=config.evaluation.batch_size,
        max_labels=data.max_labels,
        paths=Hierarchy.from_file(data.dictionary).paths(),
        mesh=mesh,
        threshold=config.evaluation.threshold,
        unlisted=data.unlisted,
    )
    return {split: evaluation(records=data.records(split)) for split in config.evaluation.splits}


def training_input(
    config: ConfigDict,
    data: DataSet,
    records: Records,
    mesh: Mesh,
    *,
    start: int,
    workdir: epath.Path,
) -> pipeline.DeviceBatches:
    """The training batches from step `start` on, placed on the mesh."""
    bad_pictures = pipeline.BadPictures(
        workdir / "bad_pictures.tsv", limit=config.input.max_bad_pictures
    )
    batches = pipeline.training_batches(
        records,
        configure.training_view(config),
        batch_size=config.batch_size,
        max_labels=data.max_labels,
        seed=config.seed,
        start_step=start,
        bad_pictures=bad_pictures,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.input.num_threads,
        prefetch=config.input.prefetch,
    )
    return pipeline.DeviceBatches(batches, mesh)


def evaluate_and_log(
    evaluations: dict[str, Evaluation], state: TrainState, writer: MetricsWriter, step: int
) -> MultiLabelMetrics:
    """Evaluates every split, prints a line each, writes the scalars.

    Returns:
        The accumulators of the first split.
    """
    accumulators = []
    for split, evaluation in evaluations.items():
        values, metrics = evaluation.run(state)
        accumulators.append(metrics)
        writer.write(step, {f"{split}/{name}": value for name, value in values.items()})
        shown = "  ".join(f"{name} {values[name]:.4f}" for name in SHOWN if name in values)
        logging.info("step %d  %s: %s", step, split, shown)
    return accumulators[0]


def _log_layout(config: ConfigDict, data: DataSet, pictures: int, mesh: Mesh) -> None:
    groups = config.batch_size // (config.group_size or config.batch_size)
    logging.info(
        "%s: %d pictures, %d classes, up to %d labels, unlisted classes are %s; batch %d in %d "
        "groups on %d %s devices of %d processes; %.1f epochs",
        data.folder, pictures, data.num_classes, data.max_labels,
        "unknown" if data.unlisted < 0 else "absent", config.batch_size, groups,
        mesh.size, jax.default_backend(), jax.process_count(),
        config.total_steps * config.batch_size / max(pictures, 1),
    )  # fmt: skip
