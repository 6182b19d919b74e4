# SPDX-License-Identifier: BSD-3-Clause
"""The training loop: set up, restore, compile, iterate, evaluate, save."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import logging
from etils import epath
from jax.sharding import Mesh

from mlimages_jax.checkpoints.manager import (
    HEAD,
    Checkpoints,
    classes_of,
    restore_weights,
)
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.data import fingerprint, pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.order import Rows
from mlimages_jax.distributed import (
    agreement,
    preemption,
    processes,
    sharding,
    workdir_lock,
)
from mlimages_jax.distributed.preemption import Preempted
from mlimages_jax.files import paths, text_files
from mlimages_jax.files.remote import write_text
from mlimages_jax.labels import word_list
from mlimages_jax.labels.class_map import same_classes
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.monitoring.goodput import Goodput
from mlimages_jax.monitoring.input_wait import InputWait
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.monitoring.training_log import NonFiniteError, Progress
from mlimages_jax.settings import Train, build, checked, restart
from mlimages_jax.settings.build import training_step
from mlimages_jax.step import steps
from mlimages_jax.step.phases import Phase
from mlimages_jax.step.state import TrainState, memory_line, with_weights
from mlimages_jax.step.training_step import TrainingStep
from mlimages_jax.training import open_network, out_of_memory
from mlimages_jax.training.evaluations import (
    Results,
    evaluate_and_log,
    make_evaluations,
    write_report,
)

CompiledStep = Callable[[TrainState, steps.Batch], tuple[TrainState, dict[str, jax.Array]]]


def train(config: Train, workdir: epath.PathLike, *, started: float | None = None) -> TrainState:
    """Trains as configured and returns the final state.

    Started again on the same workdir it goes on from the latest checkpoint, on any number of
    devices, and ends where an uninterrupted run would have ended. Asked to end (`preemption`), it
    saves and ends on all processes at the same step; an evaluation that is cut short on the way is
    left out, the one at the end is made after the restart.

    Args:
        config: Settings of the training, as `settings.load` reads them.
        workdir: checkpoints, metrics and the configuration go here.
        started: of time.monotonic(), when the program began, for goodput.jsonl.

    Raises:
        FileNotFoundError: the data set or `init_from` is missing; says what to do.
        ConfigError: the configuration cannot run, or differs from the checkpoint's.
        CheckpointMismatchError: names, shapes or dtypes differ from the checkpoint's.
        DamagedCheckpointError: none of the workdir is whole, or that of `init_from` is not.
        DataSetError: the data set lacks a split.
        NonFiniteError: names the last good checkpoint.
        TooManyBadImagesError: over `config.input.max_bad_images`.
        CheckpointWriteError: the disk is full or read-only.
        WorkdirInUseError: another program writes to the workdir.
        OutOfMemoryError: names the batch and what helps.
        Preempted: asked to end; all that was trained is saved.
    """
    checked(config)
    workdir = epath.Path(paths.absolute(workdir))
    with workdir_lock.held(workdir, task="train"):
        given = open_network.filled(config, workdir)
        return _train(checked(given), workdir, given=given, started=started)


def _train(
    config: Train, workdir: epath.Path, *, given: Train, started: float | None
) -> TrainState:
    """As `train`, in a workdir that is held; `given` has the fractions of `config`'s steps."""
    # ---------- data and mesh
    first_process = jax.process_index() == 0
    goodput = Goodput(workdir / "goodput.jsonl" if first_process else None, started=started)
    data = open_data(config)
    images = data.num_records(config.data.train_split)
    mesh = sharding.make_mesh()
    phases = build.phases(config)
    check_sizes(config, phases, mesh)
    data_set = data_identity(config, data)
    _log_layout(config, data, images, mesh)

    # ---------- model, loss, optimizer
    training = training_step(config, mesh, num_classes=data.num_classes, unlisted=data.unlisted)
    logging.info("%s", memory_line(training.like))
    evaluations = make_evaluations(config, data, training.model, training.loss, mesh)

    settings = restart.values(config) | {"orientation": data.orientation, "data_set": data_set}
    with (
        out_of_memory.named(config, num_classes=data.num_classes),
        goodput,
        goodput.phase("save"),  # what is still to do at the end
        Checkpoints(
            workdir / "checkpoints",
            keep_latest=config.checkpoint.keep_latest,
            keep_every=config.checkpoint.keep_every,
        ) as checkpoints,
        goodput.phase("startup"),
    ):
        # ---------- restore: 1 own latest, 2 config.init_from, 3 fresh
        with goodput.phase("restore"):
            if found := restored(checkpoints, settings, training.like, given=given):
                state = found
            elif config.init_from:
                state = begin_with(config.init_from, training, data, seed=config.seed)
            else:
                state = training.fresh_state(seed=config.seed)
            start = int(state.step)
        goodput.restored = goodput.step = start
        preemption.check()  # here and below: nothing new to save, so one process may end alone
        left = [phase for phase in phases if phase.stop > start]
        if not left:
            logging.info("all %d steps are done", config.total_steps)

        # ---------- compile: every size once, before the first step
        with goodput.phase("compile"):
            compiled = {phase: compile_step(training, phase, data.max_labels) for phase in left}
        preemption.check()
        processes.meet(f"mlimages_jax/compiled at step {start}")

        # ---------- loop
        keep_in_workdir(workdir, settings, data)
        stop = processes.StopRequest(mesh)
        writer = MetricsWriter(workdir, start_step=start)
        progress = Progress(writer, total_steps=config.total_steps, every=config.log_every)
        inputs = training_inputs(config, data, mesh, workdir)
        input_wait: InputWait[dict[str, jax.Array]] = InputWait()
        step = start

        def save() -> None:
            with progress.pause(), goodput.phase("save"):
                progress.flush()  # a state that is not finite is never saved
                checkpoints.save(state, step=step, config=settings)

        def evaluate() -> Results:
            with progress.pause(), goodput.phase("evaluation"):
                return evaluate_and_log(evaluations, state, writer, step, check_stop=stop.check)

        with _naming_the_last_good(checkpoints), goodput.phase("step"):
            try:
                for phase in left:
                    first = max(start, phase.start)
                    batches = inputs(phase, start_step=first - phase.start)
                    _log_phase(phase, images)
                    for step in range(first + 1, phase.stop + 1):
                        before = input_wait.seconds
                        batch = input_wait.next(batches)
                        goodput.move(input_wait.seconds - before, "input")
                        with jax.transfer_guard("disallow"):
                            state, metrics = compiled[phase](state, batch)
                        input_wait.dispatched(metrics["loss"])
                        progress.add(
                            step, metrics, batch_size=phase.batch_size,
                            seconds_waited=input_wait.seconds,
                        )  # fmt: skip
                        last = step == config.total_steps
                        if last or step % config.checkpoint.every == 0:
                            save()
                        goodput.step = step
                        if step % config.log_every == 0:
                            goodput.write()
                            checkpoints.check()
                        stop.check()
                        if config.evaluate_every and step % config.evaluate_every == 0 and not last:
                            evaluate()
                results = evaluate()
            except Preempted:
                save()
                logging.info("asked to end at step %d of %d: saved", step, config.total_steps)
                raise
            finally:
                input_wait.close()
                writer.close()

        # ---------- what came out
        if results and first_process:
            with goodput.phase("evaluation"):
                write_report(workdir, config, data, state, evaluations, results)
        goodput.finished = True
    return state


def open_data(config: Train) -> DataSet:
    """The data set, which has to suit the loss.

    Raises:
        FileNotFoundError: it is missing.
        ConfigError: the loss is for one class an image, of two or more.
    """
    data = DataSet.open(config.data.folder, copy_to=config.data.copy_to)
    if build.is_single_label(config.loss) and data.num_classes < 2:
        raise build.ConfigError(
            f"loss.name='softmax' is for two classes or more, and {data.folder} has "
            f"{data.num_classes}: use --config.loss.name=sigmoid, asymmetric or weighted"
        )
    if build.is_single_label(config.loss) and data.max_labels > 1:
        raise build.ConfigError(
            f"loss.name='softmax' is for one class an image, and {data.folder} has up to "
            f"{data.max_labels}: use --config.loss.name=sigmoid, asymmetric or weighted"
        )
    return data


def data_identity(config: Train, data: DataSet) -> dict[str, str]:
    """The fingerprint of the splits that a configuration uses, the same on all processes.

    Raises:
        DataSetError: the set lacks a split.
        DifferentProcessesError: the processes see different sets.
    """
    splits = [config.data.train_split, *config.evaluation.splits]
    found = fingerprint.fingerprint(data, splits)
    agreement.check_same({f"data set ({part})": digest for part, digest in found.items()})
    return found


def check_sizes(config: Train, phases: list[Phase], mesh: Mesh) -> None:
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
        raise build.ConfigError(str(error)) from error


def restored(
    checkpoints: Checkpoints,
    settings: dict[str, Any],
    like: TrainState,
    *,
    given: Train | None = None,
) -> TrainState | None:
    """The state of the newest checkpoint that is whole, if there is one.

    Damaged ones are set aside, and said.

    Args:
        checkpoints: of the workdir.
        settings: to go on with.
        like: gives names, shapes, dtypes and shardings.
        given: the configuration with its fractions of the run, which may have another length now;
            None: nothing in it follows the length.

    Raises:
        ConfigError: it was trained with other settings, or on another data set.
        DamagedCheckpointError: there are some, and none is whole.
    """
    while (step := checkpoints.newest()) is not None:
        try:
            saved = checkpoints.config_of(step)
            as_long = restart.values_as_long_as(saved, given) if given else {}
            check_same_training(saved, settings | as_long)
            state = checkpoints.restore(like, step=step)
        except DamagedCheckpointError as error:
            checkpoints.set_aside(step, error)
            continue
        logging.info("continuing from %s", checkpoints.directory / str(step))
        if given and (told := restart.change_of_schedule(saved, given, step=step)):
            logging.warning("%s", told)
        return state
    checkpoints.check_any_left()
    return None


def check_same_training(saved: dict[str, Any], settings: dict[str, Any]) -> None:
    """Compares the settings of a checkpoint with those to go on with.

    Raises:
        ConfigError: they differ, or the data set does.
    """
    if "imported" not in saved:
        saved = {"orientation": "stored"} | saved  # as all sets were before there was a choice
    if paths.same_place(saved.get("init_from"), settings.get("init_from")):
        saved = saved | {"init_from": settings.get("init_from")}  # typed otherwise
    restart.check_unchanged(saved, settings)
    check_same_set(saved, settings)


def check_same_set(saved: dict[str, Any], settings: dict[str, Any]) -> None:
    """Compares the data set with the one that a checkpoint was trained on.

    Raises:
        ConfigError: it is another one, and nobody insists.
    """
    if "data_set" not in saved:
        logging.info("the checkpoint does not say what its data set was: not compared")
        return
    changed = fingerprint.differences(saved["data_set"], settings["data_set"])
    if not changed:
        return
    before, now = saved["data"]["folder"], settings["data"]["folder"]
    line = (
        f"the data set in {now} is not the one that the checkpoint was trained on (there in "
        f"{before}): {', '.join(changed)} differ"
    )
    if not settings["data"].get("allow_change"):
        raise build.ConfigError(
            f"{line}. Give that one with --config.data.folder, or another --workdir; if the change "
            "is meant, --config.data.allow_change=True goes on with it"
        )
    logging.warning("%s; going on, as data.allow_change says", line)


def begin_with(path: str, training: TrainingStep, data: DataSet, *, seed: int) -> TrainState:
    """A fresh state with the weights of another run, apart from a head for other classes."""
    weights = restore_weights(path, training.like)
    logging.info("starting with the parameters of %s", path)
    kept = classes_of(path)
    if kept and not same_classes(Hierarchy.from_file(kept), Hierarchy.from_file(data.dictionary)):
        weights["params"].pop(HEAD, None)
    if HEAD not in weights["params"]:
        logging.info(
            "its classifier is for other classes: a new one for %d begins", data.num_classes
        )
    return with_weights(training.fresh_state(seed=seed), weights)


def compile_step(training: TrainingStep, phase: Phase, max_labels: int) -> CompiledStep:
    """Compiles the step for the sizes of a phase and logs how long that took."""
    begin = time.perf_counter()
    compiled = training.compile(phase, max_labels=max_labels)
    logging.info(
        "compiled the step for %d px, batch %d, in %.1f s",
        phase.image_size, phase.batch_size, time.perf_counter() - begin,
    )  # fmt: skip
    return compiled


def training_inputs(
    config: Train, data: DataSet, mesh: Mesh, workdir: epath.Path
) -> Callable[..., pipeline.DeviceBatches]:
    """Makes, for a phase and `start_step` within it, its training batches, placed on the mesh."""
    num_streams = build.num_streams(config)
    process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    rows = Rows(batch_size=config.batch_size, num_streams=num_streams, **process)
    streams = data.streams(config.data.train_split, count=num_streams, served=rows.streams)
    bad_images = pipeline.BadImages(workdir / "bad_images.tsv", limit=config.input.max_bad_images)

    def inputs(phase: Phase, *, start_step: int) -> pipeline.DeviceBatches:
        batches = pipeline.training_batches(
            streams,
            build.training_view(config, image_size=phase.image_size),
            batch_size=phase.batch_size,
            num_streams=num_streams,
            max_labels=data.max_labels,
            seed=config.seed,
            start_step=start_step,
            first_image=phase.first_image,
            bad_images=bad_images,
            **process,
            num_threads=config.input.num_threads,
            prefetch=config.input.prefetch,
        )
        return pipeline.DeviceBatches(batches, mesh)

    return inputs


def keep_in_workdir(workdir: epath.Path, settings: dict[str, Any], data: DataSet) -> None:
    """Writes the configuration, and the classes, which whoever uses the checkpoints needs.

    All processes compare the classes, while process 0 writes.

    Raises:
        ConfigError: when the workdir holds the classes of another data set.
    """
    classes, kept = text_files.read_text(data.dictionary), workdir / "dictionary.txt"
    if (
        kept.exists()
        and text_files.read_text(kept) != classes
        and not _is_list_of_words(kept, data)
    ):
        raise build.ConfigError(
            f"{kept} and {data.dictionary} hold different classes: train on the data set that this "
            "workdir began with, or give another --workdir"
        )
    if jax.process_index() == 0:
        write_text(workdir / "config.json", json.dumps(settings, indent=1))
        write_text(kept, classes)


def _is_list_of_words(kept: epath.Path, data: DataSet) -> bool:
    """Whether a workdir keeps the classes of the set as an import brought them, without ids."""
    if not word_list.lacks_ids(kept.read_text()):
        return False
    return same_classes(Hierarchy.from_file(kept), Hierarchy.from_file(data.dictionary))


@contextlib.contextmanager
def _naming_the_last_good(checkpoints: Checkpoints) -> Iterator[None]:
    """Adds to a NonFiniteError from where to go on."""
    try:
        yield
    except NonFiniteError as error:
        good = checkpoints.directory / str(checkpoints.steps[-1]) if checkpoints.steps else None
        raise NonFiniteError(
            f"{error}. The last good checkpoint is {good}. Lower the learning rate (in another "
            "--workdir, with --config.init_from) or look at the data of these steps."
        ) from error


def _log_layout(config: Train, data: DataSet, images: int, mesh: Mesh) -> None:
    logging.info(
        "%s: %d images, %d classes, up to %d labels, unlisted classes are %s",
        data.folder, images, data.num_classes, data.max_labels,
        "unknown" if data.unlisted < 0 else "absent",
    )  # fmt: skip
    processes.log_layout(
        mesh,
        batch_size=config.batch_size,
        groups=config.batch_size // (config.group_size or config.batch_size),
    )


def _log_phase(phase: Phase, images: int) -> None:
    epochs = (phase.stop - phase.start) * phase.batch_size / max(images, 1)
    logging.info(
        "steps %d to %d: %d px, batch %d, %.1f epochs",
        phase.start + 1, phase.stop, phase.image_size, phase.batch_size, epochs,
    )  # fmt: skip
