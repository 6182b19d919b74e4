# SPDX-License-Identifier: BSD-3-Clause
"""Orbax checkpoints: asynchronous, independent of the topology, and verified on restore.

Only this file and `saved_step` import orbax. A checkpoint is a plain tree of global arrays
(`step`, `params`, `batch_stats`, `opt_state`, `class_counts`, `averages`) with their checksums. It
does not depend on the number of processes or devices; `step` is also the position in the data.
"""

import contextlib
import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from logging import Handler, LogRecord
from types import TracebackType
from typing import Any

from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from mlimages_jax.checkpoints import array_digests, best_record
from mlimages_jax.checkpoints.best_record import BestRecord
from mlimages_jax.checkpoints.compatibility import check_fit
from mlimages_jax.checkpoints.loading import EMA
from mlimages_jax.checkpoints.loading import HEAD as HEAD
from mlimages_jax.checkpoints.loading import config_of as config_of
from mlimages_jax.checkpoints.loading import load as load
from mlimages_jax.checkpoints.loading import load_weights as load_weights
from mlimages_jax.checkpoints.loading import restore_weights as restore_weights
from mlimages_jax.checkpoints.saved_step import (
    STATE,
    DamagedCheckpointError,
    SavedStep,
    agreed,
    put_on_devices,
)
from mlimages_jax.checkpoints.step_folders import (
    absolute,
    names_aside,
    set_aside,
    set_aside_broken,
)
from mlimages_jax.checkpoints.step_folders import best as best
from mlimages_jax.checkpoints.step_folders import classes_of as classes_of
from mlimages_jax.checkpoints.step_folders import find as find
from mlimages_jax.checkpoints.step_folders import latest_step as latest_step
from mlimages_jax.checkpoints.step_folders import resolve as resolve
from mlimages_jax.distributed import collectives
from mlimages_jax.step.state import TrainState

# Orbax lets every device write a slice of an array that all of them hold. Of a small array that
# takes longer (each shape needs a compiled program, each slice a chunk) than to write it whole.
_LEAST_SLICE_BYTES = 1 << 20


class CheckpointWriteError(RuntimeError):
    """A checkpoint could not be written; earlier checkpoints are unaffected."""


class _KeepBest:
    """Orbax's policy to keep the best checkpoint: the one that `checkpoints` finds best."""

    def __init__(self, checkpoints: "Checkpoints"):
        self._of = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = self._of.best_step({checkpoint.step for checkpoint in checkpoints})
        return [checkpoint.step == best for checkpoint in checkpoints]


class _Failure(Handler):
    """Captures the error of a background save from the log, where Orbax reports it first."""

    error: BaseException | None = None

    def emit(self, record: LogRecord) -> None:
        if record.threadName == "async_save" and record.exc_info:
            self.error = record.exc_info[1]


class Checkpoints:
    """The checkpoints of a run in `directory/<step>`; use it as a context manager.

    Opening it removes leftovers of interrupted saves and sets broken steps aside. Besides the steps
    that the arguments keep, it keeps the best of those whose evaluation was recorded.

    Args:
        directory: Folder of the checkpoints, created if missing.
        keep_latest: Number of most recent checkpoints to keep.
        keep_every: Also keep every checkpoint whose step is a multiple of this.

    Attributes:
        directory: Absolute path of the folder.
        evaluations: Values of the metric that decides which step is the best; None: no metric does.
    """

    def __init__(
        self, directory: epath.PathLike, *, keep_latest: int = 3, keep_every: int | None = None
    ):
        policies = ocp.training.preservation_policies
        keep: list[Any] = [policies.LatestN(keep_latest), _KeepBest(self)]
        if keep_every:
            keep.append(policies.EveryNSteps(keep_every))
        self.directory = absolute(directory)
        set_aside_broken(self.directory)
        self.evaluations: BestRecord | None = best_record.read_for_run(self.directory)
        context = ocp.Context()
        # With asynchronous creation, a folder that cannot be created keeps Orbax's threads, and
        # with them the process, waiting for another 300 s.
        context.asynchronous.create_directories_asynchronously = False
        context.array.saving.min_slice_bytes_for_replica_parallel = _LEAST_SLICE_BYTES
        self._saving: Any = None
        # Set to False while a save is being started, and left so by an error: then nothing may
        # wait for Orbax any more.
        self._begun = True
        self._keep = policies.AnyPreservationPolicy(keep)
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            context=context,
            preservation_policy=self._keep,
            cleanup_tmp_directories=True,
        )
        self._failure = _Failure()
        logging.get_absl_logger().addHandler(self._failure)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for a save in progress, even if the run failed.

        Raises:
            CheckpointWriteError: The save failed and the block itself raised no error.
        """
        try:
            if self._begun and not isinstance(error, CheckpointWriteError):
                self._wait()
                with self._writing():
                    self._checkpointer.close()
        except CheckpointWriteError as failed:
            if error is None:
                raise
            logging.error("%s", failed)
        finally:
            logging.get_absl_logger().removeHandler(self._failure)

    @property
    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, in ascending order."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def best_step(self, steps: Collection[int]) -> int | None:
        """Returns the best of some steps; None if no evaluation of them was recorded."""
        best = self.evaluations and self.evaluations.best(steps)
        return best.step if best else None

    def record(self, metric: str, step: int, value: float) -> None:
        """Records the evaluation of a step; all processes must pass the same values.

        Another metric than before starts a new record. A former best step is deleted when the next
        one is saved, or by `delete_unkept`.

        Args:
            metric: Name of the metric.
            step: A step that is saved.
            value: Value of the metric.

        Raises:
            CheckpointWriteError: The record could not be written.
        """
        before = self.evaluations
        if before is None or before.metric != metric:
            before = BestRecord(metric)
        self._write(before.with_value(step, value))

    def forget_evaluations_after(self, step: int) -> None:
        """Drops the evaluations of steps after the one that a run resumes from, on all processes.

        Raises:
            CheckpointWriteError: The record could not be written.
        """
        if self.evaluations and self.evaluations.up_to(step) != self.evaluations:
            self._write(self.evaluations.up_to(step))

    def _write(self, evaluations: BestRecord) -> None:
        self.evaluations = evaluations
        if collectives.process_number() == 0:
            with self._writing():
                best_record.write(self.directory, evaluations)

    def delete_unkept(self) -> None:
        """Deletes steps that are kept no longer, such as a former best one.

        Raises:
            CheckpointWriteError: The background save has failed.
        """
        self._wait()
        found = list(self._checkpointer.checkpoints)
        # Orbax applies its policies only when it saves, and after the last save a former best
        # step would stay.
        context = ocp.training.preservation_policies.PreservationContext()
        kept = self._keep.should_preserve(found, context=context)
        for checkpoint, is_kept in zip(found, kept, strict=True):
            if not is_kept:
                self._checkpointer.delete(checkpoint.step)

    def save(self, state: TrainState, *, step: int, config: dict[str, Any]) -> None:
        """Starts a background save; returns once the state may be donated.

        A step that is already saved is left alone.

        Args:
            state: State to save.
            step: Value of `state.step`, passed separately so that the host need not wait for the
                device.
            config: JSON values saved with the arrays and returned by `config_of`.

        Raises:
            CheckpointWriteError: This save or the previous one failed.
        """
        if step not in self.steps:
            self._wait()
            # After an error in the call below, Orbax reports a save in progress forever.
            self._begun = False
            with self._writing():
                tree = _tree(state)
                parts = {
                    STATE: tree,
                    array_digests.FOLDER: array_digests.ArrayDigests(tree, config),
                }
                # force, because the training loop decides when to save, not Orbax's policies.
                self._saving = self._checkpointer.save_checkpointables_async(
                    step, parts, force=True, custom_metadata=config
                )
            self._begun = True

    def check(self) -> None:
        """Checks without waiting whether the background save has failed.

        Raises:
            CheckpointWriteError: The background save has failed.
        """
        with self._writing():
            if self._failure.error is not None:
                raise self._failure.error

    def _wait(self) -> None:
        """Waits for the background save and stops waiting as soon as it fails.

        Orbax's own wait reports an error only after waiting twenty minutes for the other processes.
        """
        while self._checkpointer.is_saving_in_progress():
            self.check()
            time.sleep(0.01)
        self.check()
        # Asking for the result frees the thread and three file descriptors of the save.
        if self._saving is not None:
            saving, self._saving = self._saving, None
            with self._writing():
                saving.result()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Converts the many errors caused by a full or read-only disk to one with instructions."""
        try:
            yield
        except (OSError, ValueError) as error:
            # A TimeoutError is an OSError too, but says nothing about the disk.
            if isinstance(error, TimeoutError):
                raise
            raise CheckpointWriteError(
                f"a checkpoint could not be written to {self.directory}: {_last_line(error)}. "
                "Earlier checkpoints are intact. Free some disk space or make the folder writable, "
                "then run the same command again"
            ) from error

    def restore(self, abstract_state: TrainState, *, step: int | None = None) -> TrainState:
        """Restores a state with the shardings of `abstract_state`.

        Args:
            abstract_state: Tree of ShapeDtypeStruct with shardings.
            step: Step to restore; None for the latest.

        Raises:
            FileNotFoundError: The step does not exist.
            DamagedCheckpointError: An array cannot be read or does not match its checksum.
            CheckpointMismatchError: Arrays are missing, unexpected, or of another shape or dtype.
        """
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            raise FileNotFoundError(f"{self.directory} has no step {step}; it has {steps}")
        saved = SavedStep(self.directory / str(steps[-1] if step is None else step))
        tree = _tree(abstract_state)

        def read() -> Any:
            check_fit(saved.tree, tree, where=saved.folder)
            return saved.arrays(tree)

        arrays = put_on_devices(agreed(read), tree)
        # The one field whose key in checkpoints has another name, that of version 0.1.
        return TrainState(ema=arrays.pop(EMA), **arrays)

    def config_of(self, step: int) -> dict[str, Any]:
        """Returns the JSON values that were saved with a step.

        Raises:
            DamagedCheckpointError: They cannot be read or do not match their checksum.
        """
        return agreed(lambda: SavedStep(self.directory / str(step)).config)

    def newest(self) -> int | None:
        """Returns the last of `steps` on process 0; a shared disk may show it to others later."""
        return collectives.of_process_0(self.steps[-1] if self.steps else None)

    def set_aside(self, step: int, why: Exception) -> None:
        """Renames a step that cannot be restored, so that the previous one becomes the newest.

        Args:
            step: One of `steps`.
            why: The error raised while restoring it.
        """
        set_aside(self.directory, {step: str(why)})
        # Orbax remembers the list of steps and would still count the renamed one.
        self._checkpointer.reload()

    def check_any_left(self) -> None:
        """Guards against silently restarting from scratch; call it before training from step 0.

        Raises:
            DamagedCheckpointError: There were checkpoints, and all of them are damaged.
        """
        aside = names_aside(self.directory)
        if aside and not self.steps:
            raise DamagedCheckpointError(
                f"all checkpoints in {self.directory} are damaged: {', '.join(aside)}. Restore one "
                "from a backup, or use another --workdir (with --config.init_from to start from "
                f"other weights); to start over here, delete {self.directory}"
            )


def _tree(state: TrainState) -> dict[str, Any]:
    """Returns the arrays of a state by their names in checkpoints."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {EMA: tree.pop("ema"), **tree}


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
