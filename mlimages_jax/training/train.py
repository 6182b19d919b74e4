# SPDX-License-Identifier: BSD-3-Clause
"""The training loop: restore, compile, iterate, evaluate, save."""

import contextlib
import time
from collections.abc import Generator, Iterator

import jax
from absl import logging
from etils import epath

from mlimages_jax.checkpoints.manager import Checkpoints
from mlimages_jax.data.device_batches import DeviceBatches
from mlimages_jax.distributed import collectives, preemption, processes, workdir_lock
from mlimages_jax.distributed.preemption import Preempted
from mlimages_jax.files import paths
from mlimages_jax.monitoring import curves
from mlimages_jax.monitoring.training_log import NonFiniteError
from mlimages_jax.settings import Train, build, checked
from mlimages_jax.step.stages import Stage
from mlimages_jax.step.state import TrainState
from mlimages_jax.step.training_step import TrainingStep
from mlimages_jax.training import open_network, out_of_memory, tracking
from mlimages_jax.training.best_checkpoint import BestCheckpoint
from mlimages_jax.training.evaluations import Results, evaluate_and_log
from mlimages_jax.training.final_report import evaluated_for_report, write_report
from mlimages_jax.training.inputs import training_inputs
from mlimages_jax.training.measured_steps import CompiledStep, MeasuredSteps
from mlimages_jax.training.run import Run, set_up
from mlimages_jax.training.start import first_state, keep_in_workdir


def train(config: Train, workdir: epath.PathLike, *, started: float | None = None) -> TrainState:
    """Trains as configured and returns the final state.

    Called again with the same workdir, it resumes from the latest checkpoint, on any number of
    devices, and gets the same result as an uninterrupted run. On a stop request (see `preemption`)
    all processes save and stop at the same step. An interrupted intermediate evaluation is skipped,
    unless it decides which checkpoint is the best; the final one is repeated after the restart.

    Args:
        config: Settings of the training, as `settings.load` reads them.
        workdir: Folder for checkpoints, metrics and the configuration.
        started: Value of time.monotonic() when the program started, for goodput.jsonl.

    Returns:
        The state after the last step; with `config.compile_only`, that before the first.

    Raises:
        FileNotFoundError: The data set or `init_from` is missing.
        ConfigError: The configuration is invalid, or differs from that of the checkpoint.
        CheckpointMismatchError: Arrays differ from the checkpoint in name, shape or dtype.
        DamagedCheckpointError: All checkpoints of the workdir are damaged, or `init_from` is.
        DataSetError: The data set lacks a split.
        NonFiniteError: The loss or gradient is not finite; names the last good checkpoint.
        TooManyBadImagesError: More bad images than `config.input.max_bad_images`.
        CheckpointWriteError: The disk is full or read-only.
        WorkdirInUseError: Another program is using the workdir.
        OutOfMemoryError: A device or the host ran out of memory; says which settings help.
        Preempted: A stop was requested; all finished steps are saved.
    """
    # Before the workdir is locked or anything is read: mistakes are reported at once.
    checked(config)
    workdir = epath.Path(paths.absolute(workdir))
    with workdir_lock.held(workdir, task="train"):
        unresolved = open_network.filled(config, workdir)
        # A resumed run may have another length, for which the fractions are needed again.
        return _train(checked(unresolved), workdir, unresolved=unresolved, started=started)


def _train(
    config: Train, workdir: epath.Path, *, unresolved: Train, started: float | None
) -> TrainState:
    """Runs `train` while the workdir is locked.

    `unresolved` still has the fractions of the run that are steps in `config`.
    """
    run = set_up(config, workdir, started=started)
    goodput = run.goodput
    with (
        contextlib.closing(run.trackers),
        out_of_memory.named(config, num_classes=run.data.num_classes),
        goodput,
        run.bar,
        goodput.phase("save"),  # the time on exit, until the last save is complete
        Checkpoints(
            workdir / "checkpoints",
            keep_latest=config.checkpoint.keep_latest,
            keep_every=config.checkpoint.keep_every,
        ) as checkpoints,
        goodput.phase("startup"),
    ):
        with goodput.phase("restore"):
            state = first_state(
                config, run.training, run.data, checkpoints, run.settings, unresolved=unresolved
            )
        # After restoring, which decides from which evaluations on the record is forgotten.
        best = BestCheckpoint(config, checkpoints, start=int(state.step))
        compiled = _compile_all(run, start=int(state.step), ended=best.ends_early(int(state.step)))
        if config.compile_only:
            logging.info("compiled; without compile_only the same command finds the programs")
            return state
        keep_in_workdir(workdir, run.settings, run.data)
        state, results = _loop(run, checkpoints, best, state, compiled)
        best.finish()
        if results.reports:
            with goodput.phase("evaluation"):
                _report(run, checkpoints, state, results)
        goodput.finished = True
    return state


def _report(run: Run, checkpoints: Checkpoints, state: TrainState, results: Results) -> None:
    """Writes tables and figures, on process 0; for those of the best step all have to evaluate."""
    first = next(iter(run.evaluations.values()))
    reported = evaluated_for_report(
        checkpoints,
        first,
        state=state,
        abstract_state=run.training.abstract_state,
        reports=results.reports,
        check_stop=processes.StopRequest(run.mesh).check,
    )
    if jax.process_index() == 0:
        write_report(run.workdir, reported, config=run.config, data=run.data, evaluation=first)
        run.trackers.add_files([run.workdir / name for name in tracking.SHOWN])


def _compile_all(run: Run, *, start: int, ended: bool) -> dict[Stage, CompiledStep]:
    """Compiles all remaining sizes before the first step, so that none fails in mid-training.

    On a stop request in here a process may stop alone, since there is nothing to save.

    Args:
        run: The training.
        start: Updates done.
        ended: Whether the run has ended before its last step.
    """
    run.goodput.restored = run.goodput.step = start
    run.bar.resume(start)
    preemption.check()
    left = [stage for stage in build.stages(run.config) if stage.stop > start and not ended]
    if not left and not ended:
        logging.info("all %d steps are already done", run.config.total_steps)
    with run.goodput.phase("compile"):
        compiled = {stage: compile_step(run.training, stage, run.data.max_labels) for stage in left}
    preemption.check()
    # One process may load from the cache what another compiles for minutes, while connections
    # between devices time out after half a minute.
    collectives.barrier(f"compiled at step {start}")
    return compiled


def _loop(
    run: Run,
    checkpoints: Checkpoints,
    best: BestCheckpoint,
    state: TrainState,
    compiled: dict[Stage, CompiledStep],
) -> tuple[TrainState, Results]:
    """Trains through the compiled stages, or until it ends early: steps, saves and evaluations.

    Returns:
        The last state and its evaluation.

    Raises:
        Preempted: A stop was requested; the last step is saved.
    """
    config, goodput = run.config, run.goodput
    step = start = int(state.step)
    stop = processes.StopRequest(run.mesh)
    with (
        _naming_the_last_good(checkpoints),
        goodput.phase("step"),
        MeasuredSteps(
            config, run.workdir, goodput, start=start, trackers=run.trackers, bar=run.bar
        ) as measured,
    ):
        progress, writer = measured.progress, measured.writer

        def save() -> None:
            with progress.pause(), goodput.phase("save"):
                progress.flush()  # raises if the state is not finite, so that it is never saved
                checkpoints.save(state, step=step, config=run.settings)

        def evaluate() -> Results:
            with progress.pause(), goodput.phase("evaluation"):
                new = evaluate_and_log(run.evaluations, state, writer, step, check_stop=stop.check)
                best.record(step, new.values)
                if jax.process_index() == 0:
                    curves.write_curves(run.workdir)
                return new

        try:
            results = evaluate() if compiled and best.is_missing(start) else None
            stages = [] if results and best.ends_early(start) else list(compiled)
            with contextlib.closing(_steps(run, stages, start=start)) as steps:
                for stage, step, batches in steps:
                    state = measured.run(
                        compiled[stage], state, batches, step=step, batch_size=stage.batch_size
                    )
                    # Saved before the next batch is taken and before anything below can stop it.
                    last = step == config.total_steps
                    if last or step % config.checkpoint.every == 0 or best.needs_save(step):
                        save()
                    goodput.step = step
                    if step % config.log_every == 0:
                        goodput.write()
                        # Reports a failed background save now, not at the next save an hour later.
                        checkpoints.check()
                    stop.check()
                    results = None  # those of an earlier step must not pass for those of the last
                    if config.evaluate_every and step % config.evaluate_every == 0 and not last:
                        results = evaluate()
                        if best.ends_early(step):
                            break
            return state, results or evaluate()
        # All processes are at the same step here, see StopRequest, so they can save together.
        except Preempted:
            save()
            logging.info("stop requested: saved step %d of %d", step, config.total_steps)
            raise


def _steps(
    run: Run, stages: list[Stage], *, start: int
) -> Generator[tuple[Stage, int, DeviceBatches], None, None]:
    """Yields the stage and the number of every step after `start`, with the stage's batches."""
    inputs = training_inputs(run.config, run.data, run.mesh, run.workdir)
    for stage in stages:
        # The position in the data follows from the step, see `data.order`: nothing is restored.
        first = max(start, stage.start)
        with contextlib.closing(inputs(stage, start_step=first - stage.start)) as batches:
            _log_stage(stage, run.data.num_records(run.config.data.train_split))
            for step in range(first + 1, stage.stop + 1):
                yield stage, step, batches


def compile_step(training: TrainingStep, stage: Stage, max_labels: int) -> CompiledStep:
    """Compiles the step for the sizes of a stage and logs the time it took."""
    begin = time.perf_counter()
    compiled = training.compile(stage, max_labels=max_labels)
    logging.info(
        "compiled the step for %d px, batch %d, in %.1f s",
        stage.image_size, stage.batch_size, time.perf_counter() - begin,
    )  # fmt: skip
    return compiled


@contextlib.contextmanager
def _naming_the_last_good(checkpoints: Checkpoints) -> Iterator[None]:
    """Adds the last good checkpoint and possible remedies to a NonFiniteError."""
    try:
        yield
    except NonFiniteError as error:
        good = checkpoints.directory / str(checkpoints.steps[-1]) if checkpoints.steps else None
        raise NonFiniteError(
            f"{error}. The last good checkpoint is {good}. Lower the learning rate (in another "
            "--workdir, with --config.init_from) or check the data of these steps."
        ) from error


def _log_stage(stage: Stage, images: int) -> None:
    epochs = (stage.stop - stage.start) * stage.batch_size / max(images, 1)
    logging.info(
        "steps %d to %d: %d px, batch %d, %.1f epochs",
        stage.start + 1, stage.stop, stage.image_size, stage.batch_size, epochs,
    )  # fmt: skip
