# SPDX-License-Identifier: BSD-3-Clause
"""Orbax checkpoints: asynchronous, independent of the topology, and verified on restore.

Only this file and `saved_step` import orbax. A checkpoint is a plain tree of global arrays
(`step`, `params`, `batch_stats`, `opt_state`, `class_counts`, `averages`) with their checksums. It
does not depend on the number of processes or devices; `step` is also the position in the data.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from logging import Handler, LogRecord
from types import TracebackType
from typing import Any

import jax
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from mlimages_jax.checkpoints import array_digests
from mlimages_jax.checkpoints.compatibility import check_fit
from mlimages_jax.checkpoints.saved_step import (
    STATE,
    DamagedCheckpointError,
    SavedStep,
    abstract_tree,
    agreed,
    put_on_devices,
)
from mlimages_jax.checkpoints.step_folders import (
    absolute,
    names_aside,
    set_aside,
    set_aside_broken,
)
from mlimages_jax.checkpoints.step_folders import classes_of as classes_of
from mlimages_jax.checkpoints.step_folders import find as find
from mlimages_jax.checkpoints.step_folders import latest_step as latest_step
from mlimages_jax.checkpoints.step_folders import resolve as resolve
from mlimages_jax.distributed import collectives
from mlimages_jax.step.state import TrainState

HEAD = "head"  # the classifier, whose shape depends on the number of classes
_EMA = "averages"  # key of the EMA weights in checkpoints, as in version 0.1


class CheckpointWriteError(RuntimeError):
    """A checkpoint could not be written; earlier checkpoints are unaffected."""


class _Failure(Handler):
    """Captures the error of a background save from the log, where Orbax reports it first."""

    error: BaseException | None = None

    def emit(self, record: LogRecord) -> None:
        if record.threadName == "async_save" and record.exc_info:
            self.error = record.exc_info[1]


class Checkpoints:
    """The checkpoints of a run in `directory/<step>`; use it as a context manager.

    Opening it removes leftovers of interrupted saves and sets broken steps aside.

    Args:
        directory: Folder of the checkpoints, created if missing.
        keep_latest: Number of most recent checkpoints to keep.
        keep_every: Also keep every checkpoint whose step is a multiple of this.

    Attributes:
        directory: Absolute path of the folder.
    """

    def __init__(
        self, directory: epath.PathLike, *, keep_latest: int = 3, keep_every: int | None = None
    ):
        policies = ocp.training.preservation_policies
        keep: list[Any] = [policies.LatestN(keep_latest)]
        if keep_every:
            keep.append(policies.EveryNSteps(keep_every))
        self.directory = absolute(directory)
        set_aside_broken(self.directory)
        context = ocp.Context()
        # With asynchronous creation, a folder that cannot be created keeps Orbax's threads, and
        # with them the process, waiting for another 300 s.
        context.asynchronous.create_directories_asynchronously = False
        self._saving: Any = None
        self._begun = True  # whether every save so far was started without an error
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            context=context,
            preservation_policy=policies.AnyPreservationPolicy(keep),
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

    def save(self, state: TrainState, *, step: int, config: dict[str, Any]) -> None:
        """Starts a background save; returns once the state may be donated.

        Does nothing if the step has already been saved.

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
        """Checks, without waiting, whether the background save has failed.

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
            # It is an OSError too, but says nothing about the disk.
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
        return TrainState(ema=arrays.pop(_EMA), **arrays)

    def config_of(self, step: int) -> dict[str, Any]:
        """The JSON values that were saved with a step.

        Raises:
            DamagedCheckpointError: They cannot be read or do not match their checksum.
        """
        return agreed(lambda: SavedStep(self.directory / str(step)).config)

    def newest(self) -> int | None:
        """The last of `steps` on process 0; a shared disk may show it to the others later."""
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


def load(path: epath.PathLike) -> dict[str, Any]:
    """Loads a complete checkpoint as nested containers of arrays on this process's first device.

    Args:
        path: A workdir, a checkpoint folder or a step folder.

    Returns:
        {"step", "params", "batch_stats", "opt_state", "class_counts", "averages"}.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: An array cannot be read or does not match its checksum.
    """
    # Not jax.devices()[0], which belongs to process 0.
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        abstract = abstract_tree(saved.tree, alone)
        return saved.arrays(abstract), abstract

    return put_on_devices(*agreed(read))


def config_of(path: epath.PathLike) -> dict[str, Any]:
    """The JSON values saved with a checkpoint; empty if there are none.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: A process cannot read them, or they do not match their checksum.
    """
    return agreed(lambda: SavedStep(resolve(path)).config)


def load_weights(
    path: epath.PathLike, sharding: jax.sharding.Sharding, *, averaged: bool = True
) -> dict[str, Any]:
    """Loads only the parameters and running statistics.

    Args:
        path: A workdir, a checkpoint folder or a step folder.
        sharding: Sharding of every array.
        averaged: Whether to prefer the EMA weights if the checkpoint has them.

    Returns:
        {"params", "batch_stats"}, nested dicts of arrays.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: An array cannot be read or does not match its checksum.
    """

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        tree, prefix = _weights_in(saved.tree, averaged=averaged)
        abstract = abstract_tree(tree, sharding)
        return saved.arrays(abstract, prefix=prefix), abstract

    return put_on_devices(*agreed(read))


def restore_weights(path: epath.PathLike, abstract_state: TrainState) -> dict[str, Any]:
    """Loads the parameters and running statistics of another run to initialise from.

    Prefers the EMA weights if the checkpoint has them. A classifier for a different number of
    classes is skipped; all other arrays must match.

    Args:
        path: A workdir, a checkpoint folder or a step folder.
        abstract_state: State that gives names, shapes, dtypes and shardings.

    Returns:
        {"params", "batch_stats"}; "params" has no "head" if the number of classes differs.

    Raises:
        FileNotFoundError: There is no checkpoint.
        DamagedCheckpointError: An array cannot be read or does not match its checksum.
        CheckpointMismatchError: Any other array differs in name, shape or dtype.
    """

    def read() -> tuple[Any, Any]:
        saved = SavedStep(resolve(path))
        wanted = abstract_state.weights
        tree, prefix = _weights_in(saved.tree, averaged=True)
        if not _same_head(tree["params"], wanted["params"]):
            wanted, tree = _without_head(wanted), _without_head(tree)
        check_fit(tree, wanted, where=saved.folder)
        return saved.arrays(wanted, prefix=prefix), wanted

    return put_on_devices(*agreed(read))


def _weights_in(tree: dict[str, Any], *, averaged: bool) -> tuple[dict[str, Any], str]:
    """The weights in a saved tree and the key they are stored under ("" at the top level)."""
    prefix = _EMA if averaged and tree.get(_EMA) else ""
    tree = tree[prefix] if prefix else tree
    return {name: tree.get(name) or {} for name in ("params", "batch_stats")}, prefix


def _same_head(saved: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """False if only the number of classes differs."""
    theirs, ours = (tree.get(HEAD, {}).get("kernel") for tree in (saved, wanted))
    if theirs is None or ours is None or theirs.shape[0] != ours.shape[0]:
        return True  # not about classes: let `check_fit` report it
    return theirs.shape == ours.shape


def _without_head(weights: dict[str, Any]) -> dict[str, Any]:
    params = {name: module for name, module in weights["params"].items() if name != HEAD}
    return {**weights, "params": params}


def _tree(state: TrainState) -> dict[str, Any]:
    """The arrays of a state by their names in checkpoints."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {_EMA: tree.pop("ema"), **tree}


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
