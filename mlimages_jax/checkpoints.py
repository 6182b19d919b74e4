# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints by Orbax: asynchronous, free of topology, checked before they are believed.

The only file of training that imports orbax. A checkpoint is a plain tree of global arrays
(`step`, `params`, `batch_stats`, `opt_state`, `class_counts`, `averages`) without any trace of the
number of processes or devices; the position in the data is `step`.
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

from mlimages_jax.checkpoint_fit import check_fit, is_array
from mlimages_jax.remote_files import is_remote
from mlimages_jax.state import TrainState

HEAD = "head"  # the module whose shape follows the number of classes


class CheckpointWriteError(RuntimeError):
    """A checkpoint could not be written; those before it are as they were."""


class _Failure(Handler):
    """Takes the error of a save in the background from the log, where Orbax tells it first."""

    error: BaseException | None = None

    def emit(self, record: LogRecord) -> None:
        if record.threadName == "async_save" and record.exc_info:
            self.error = record.exc_info[1]


class Checkpoints:
    """The checkpoints of a run, `directory/<step>`; use it as a context manager.

    Attributes:
        directory: made when absent. Remains of a save that was killed are removed at the start.
    """

    def __init__(
        self, directory: epath.PathLike, *, keep_latest: int = 3, keep_every: int | None = None
    ):
        policies = ocp.training.preservation_policies
        keep: list[Any] = [policies.LatestN(keep_latest)]
        if keep_every:
            keep.append(policies.EveryNSteps(keep_every))
        self.directory = _absolute(directory)
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
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
        """Waits for a save in progress, also when the run failed.

        Raises:
            CheckpointWriteError: when that fails, unless the run did before.
        """
        try:
            if not isinstance(error, CheckpointWriteError):
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
        """The steps that can be restored, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def save(self, state: TrainState, *, step: int, config: dict[str, Any]) -> None:
        """Starts to save, unless the step is saved; returns when the state may be donated.

        Args:
            state: to save.
            step: equals state.step, which the host should not wait for.
            config: JSON values kept beside the arrays, compared by `config_of`.

        Raises:
            CheckpointWriteError: this save or the one before failed.
        """
        if step not in self.steps:
            self._wait()
            with self._writing():
                self._checkpointer.save_async(
                    step, _tree(state), force=True, custom_metadata=config
                )

    def check(self) -> None:
        """Finds out, without waiting, whether the save in the background has failed.

        Raises:
            CheckpointWriteError: it has.
        """
        with self._writing():
            if self._failure.error is not None:
                raise self._failure.error

    def _wait(self) -> None:
        """Waits for the save in the background, and no longer when it has failed.

        Orbax would wait for the other processes then, twenty minutes, before it tells the error.
        """
        while self._checkpointer.is_saving_in_progress():
            self.check()
            time.sleep(0.01)
        self.check()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Says what to do about a disk that is full or read-only, which comes in many forms."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise CheckpointWriteError(
                f"a checkpoint could not be written to {self.directory}: {_last_line(error)}. The "
                "ones before it are whole. Make room there, or make it writable, and start the "
                "same command again"
            ) from error

    def restore(self, like: TrainState, *, step: int | None = None) -> TrainState:
        """Restores a state into the shardings of `like`.

        Args:
            like: tree of ShapeDtypeStruct with shardings.
            step: None takes the latest.

        Raises:
            FileNotFoundError: when there is no such step.
            CheckpointMismatchError: lists every leaf that is missing, extra or of another shape.
        """
        if not self.steps or (step is not None and step not in self.steps):
            raise FileNotFoundError(f"{self.directory} has no step {step}; it has {self.steps}")
        step = self.steps[-1] if step is None else step
        tree = _tree(like)
        check_fit(
            self._checkpointer.metadata(step).metadata, tree, where=self.directory / str(step)
        )
        return TrainState(**self._checkpointer.load(step, tree))

    def config_of(self, step: int) -> dict[str, Any]:
        """The JSON values that were saved with a step."""
        return dict(self._checkpointer.metadata(step).custom_metadata or {})


def latest_step(directory: epath.PathLike) -> int | None:
    """The newest finished step under a checkpoint folder, or None."""
    return max(_steps_in(epath.Path(directory)), default=None)


def find(path: epath.PathLike) -> list[epath.Path]:
    """The step folders that a path names, oldest first.

    Args:
        path: a step, a checkpoint folder or a workdir; may not exist yet.
    """
    path = _absolute(path)
    for folder in (path / "checkpoints", path):
        if steps := _steps_in(folder):
            return [folder / str(step) for step in sorted(steps)]
    with contextlib.suppress(ValueError):  # last, since a workdir may have a number as its name
        if path.name.isdigit() and ocp.is_orbax_checkpoint(path):
            return [path]
    return []


def resolve(path: epath.PathLike) -> epath.Path:
    """The newest of the step folders that a path names.

    Raises:
        FileNotFoundError: when it names no finished checkpoint.
    """
    folders = find(path)
    if not folders:
        raise FileNotFoundError(
            f"{_absolute(path)} holds no checkpoint: give a workdir, its checkpoints folder, or "
            "one step of it"
        )
    return folders[-1]


def classes_of(path: epath.PathLike) -> epath.Path | None:
    """The category file kept in the workdir of a checkpoint, if there is one."""
    folder = resolve(path)
    candidates = [parent / "dictionary.txt" for parent in (folder, *list(folder.parents)[:2])]
    return next((file for file in candidates if file.exists()), None)


def load(path: epath.PathLike) -> dict[str, Any]:
    """A whole checkpoint as plain nested containers of arrays on this process's first devices.

    Args:
        path: a workdir, a checkpoint folder or a step.

    Returns:
        {"step", "params", "batch_stats", "opt_state", "class_counts", "averages"}.

    Raises:
        FileNotFoundError: when there is no checkpoint.
    """
    folder = resolve(path)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        ocp.metadata(folder).metadata,
        is_leaf=is_array,
    )
    return ocp.load(folder, like)


def config_of(path: epath.PathLike) -> dict[str, Any]:
    """The JSON values saved with a checkpoint; empty when there are none.

    Raises:
        FileNotFoundError: when there is no checkpoint.
    """
    return dict(ocp.metadata(resolve(path)).custom_metadata or {})


def load_weights(
    path: epath.PathLike, place: jax.sharding.Sharding, *, averaged: bool = True
) -> dict[str, Any]:
    """Parameters and running statistics alone.

    Args:
        path: a workdir, a checkpoint folder or a step.
        place: where every array goes.
        averaged: take the averages where the checkpoint has them.

    Returns:
        {"params", "batch_stats"}, nested dicts of arrays.

    Raises:
        FileNotFoundError: when there is no checkpoint.
    """
    folder = resolve(path)
    saved, prefix = _saved_weights(folder, averaged=averaged)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        saved,
        is_leaf=is_array,
    )
    return _load_part(folder, like, prefix=prefix)


def restore_weights(path: epath.PathLike, like: TrainState) -> dict[str, Any]:
    """Parameters and running statistics of another run, to start from.

    The averaged ones are taken where the checkpoint has them. A classifier for another number of
    classes is left out; everything else has to fit.

    Args:
        path: a workdir, a checkpoint folder or a step.
        like: gives names, shapes, dtypes and shardings.

    Returns:
        {"params", "batch_stats"}; "params" lacks "head" where the classes differ in number.

    Raises:
        FileNotFoundError: when there is no checkpoint.
        CheckpointMismatchError: lists the leaves that differ.
    """
    folder = resolve(path)
    wanted = like.weights
    saved, prefix = _saved_weights(folder, averaged=True)
    if not _same_head(saved["params"], wanted["params"]):
        wanted, saved = _without_head(wanted), _without_head(saved)
    check_fit(saved, wanted, where=folder)
    return _load_part(folder, wanted, prefix=prefix)


def _saved_weights(folder: epath.Path, *, averaged: bool) -> tuple[dict[str, Any], str]:
    """Metadata of the arrays, and the name that they are under ("" for none)."""
    saved = ocp.metadata(folder).metadata
    prefix = "averages" if averaged and saved.get("averages") else ""
    saved = saved[prefix] if prefix else saved
    return {name: saved.get(name) or {} for name in ("params", "batch_stats")}, prefix


def _load_part(folder: epath.Path, like: dict[str, Any], *, prefix: str) -> dict[str, Any]:
    """The arrays of `like`, of which the checkpoint holds more."""
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        restored = ocp.load(folder, {prefix: like} if prefix else like)
    return restored[prefix] if prefix else restored


def _same_head(saved: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """False when only the number of classes differs."""
    theirs, ours = (tree.get(HEAD, {}).get("kernel") for tree in (saved, wanted))
    if theirs is None or ours is None or theirs.shape[0] != ours.shape[0]:
        return True  # not a matter of classes: `check_fit` tells
    return theirs.shape == ours.shape


def _without_head(weights: dict[str, Any]) -> dict[str, Any]:
    params = {name: module for name, module in weights["params"].items() if name != HEAD}
    return {**weights, "params": params}


def _steps_in(folder: epath.Path) -> list[int]:
    if not folder.is_dir():
        return []
    numbered = (child for child in folder.iterdir() if child.name.isdigit())
    return [int(child.name) for child in numbered if _is_finished(child)]


def _is_finished(folder: epath.Path) -> bool:
    """A local save gets its name when it is done; in a bucket, where nothing is renamed, a mark."""
    return not is_remote(folder) or ocp.is_orbax_checkpoint(folder)


def _tree(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _absolute(path: epath.PathLike) -> epath.Path:
    """Orbax takes no relative path, and says so only when a save in the background has failed."""
    path = epath.Path(path)
    return path if is_remote(path) else path.expanduser().resolve()
