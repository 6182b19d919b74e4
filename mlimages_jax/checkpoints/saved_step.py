# SPDX-License-Identifier: BSD-3-Clause
"""One checkpointed step on disk: read to the host, verified, and only then put on devices.

Arrays are read to the host first, where their checksums are verified independently of the number
of devices. Every process reads by itself, so none waits inside Orbax for another that has found
damage. If one process finds damage, all of them raise its error.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from mlimages_jax.checkpoints import array_digests
from mlimages_jax.checkpoints.compatibility import CheckpointMismatchError, by_name, is_array
from mlimages_jax.distributed import collectives
from mlimages_jax.settings.renamed import saved_with_new_names

T = TypeVar("T")
STATE = "state"  # the Orbax item that contains the arrays
STEP = "step"  # the array with the step number
_METADATA = "_CHECKPOINT_METADATA"
_PARTS = "item_handlers"  # key in that file: the items of the step
# TensorStore's status codes for transient errors and missing permissions, which are not damage.
_PASSING = (
    "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED", "UNAVAILABLE",
)  # fmt: skip
_DAMAGING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # OSErrors that are damage


class DamagedCheckpointError(ValueError):
    """A checkpoint is damaged or incomplete; the message names the step and the reason."""


class VanishedCheckpointError(FileNotFoundError):
    """A checkpoint does not exist any more, for example because a training run deleted it."""


class SavedStep:
    """The contents of a step folder.

    Attributes:
        folder: The folder `checkpoints/<step>`.
    """

    def __init__(self, folder: epath.Path):
        self.folder = folder

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The JSON values saved with the step, under the current names of settings.

        Raises:
            DamagedCheckpointError: They cannot be read or do not match their checksum.
        """
        with _naming(self.folder):
            config = dict(self._content.get("custom_metadata") or {})
            if self._digests is not None:
                array_digests.verify_config(config, self._digests)
            return saved_with_new_names(config, where=str(self.folder))

    @functools.cached_property
    def tree(self) -> dict[str, Any]:
        """Shapes and dtypes of all arrays.

        Raises:
            DamagedCheckpointError: The metadata cannot be read or does not match the checksums.
        """
        with _naming(self.folder):
            tree = _described(self.folder / STATE)
            if self._digests is not None:
                array_digests.verify_names(by_name(tree), self._digests)
            return tree

    def arrays(self, abstract: Any, *, prefix: str = "") -> Any:
        """Reads arrays to the host and verifies them.

        Args:
            abstract: Tree of some or all arrays of the step.
            prefix: Key they are stored under; "" at the top level.

        Returns:
            A tree of numpy arrays with the structure of `abstract`.

        Raises:
            DamagedCheckpointError: An array cannot be read or does not match its checksum.
        """
        wanted = {prefix: abstract} if prefix else abstract
        with _naming(self.folder):  # reading the tree and the checksums may fail, too
            # The step is read even if only weights are wanted, to compare it with the folder name.
            also = {name: self.tree[name] for name in (STEP,) if name in self.tree}
            with _alone():
                # A type in place of shapes and shardings makes Orbax return arrays on the host.
                host = jax.tree.map(lambda _: np.ndarray, also | wanted, is_leaf=is_array)
                found = ocp.load(self.folder, host)
            found = jax.tree.map(np.asarray, found)
            if self._digests is not None:
                array_digests.verify(by_name(found), self._digests)
            self._check_number(found.get(STEP))
            found = {name: found[name] for name in wanted}
        return found[prefix] if prefix else found

    def _check_number(self, step: np.ndarray | None) -> None:
        """Checks that the folder's name is the step stored in it.

        A renamed folder would be mistaken for a newer or an older step.

        Raises:
            DamagedCheckpointError: The two differ.
        """
        if step is not None and str(step) != self.folder.name:
            raise DamagedCheckpointError(
                f"step {self.folder.name} of {self.folder.parent} is damaged: the folder contains "
                f"step {step}; if it was renamed, rename it back to {step}"
            )

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        return _content(self.folder)

    @functools.cached_property
    def _digests(self) -> array_digests.Digests | None:
        """Checksums of the step; None if it was saved by a version without checksums."""
        folder = self.folder / array_digests.FOLDER
        # Either one proves that the step was saved with checksums; the other may be lost. Taking it
        # for an old checkpoint would skip the verification.
        if array_digests.FOLDER in self._content[_PARTS] or folder.exists():
            return array_digests.read(folder)
        return None


def agreed(read: Callable[[], T]) -> T:
    """Calls `read` on every process and returns its result; if one fails, all processes raise.

    Args:
        read: Function to call; processes may find different damage.

    Returns:
        The result of `read` on this process.

    Raises:
        DamagedCheckpointError: A process found damage. Every process raises its own error if it
            has one, else that of the first process that failed.
        VanishedCheckpointError: A process found the checkpoint deleted; raised likewise.
    """
    try:
        result = read()
    except (DamagedCheckpointError, VanishedCheckpointError) as error:
        collectives.exchanged(f"{type(error).__name__} {error}")
        raise
    # Errors cross processes as text: the type is needed again, as callers act on it.
    kinds = {kind.__name__: kind for kind in (DamagedCheckpointError, VanishedCheckpointError)}
    for text in filter(None, collectives.exchanged("")):
        kind, _, message = text.partition(" ")
        raise kinds[kind](message)
    return result


def put_on_devices(arrays: Any, abstract: Any) -> Any:
    """Puts full host arrays on the devices, with the shardings of the leaves of `abstract`."""

    def put(array: np.ndarray, leaf: Any) -> jax.Array:
        # jax.device_put would first compare the values across processes, which have already been
        # verified.
        return jax.make_array_from_callback(
            array.shape, leaf.sharding, lambda index: array[index], dtype=array.dtype
        )

    return jax.tree.map(put, arrays, abstract)


def is_checkpoint(folder: epath.Path) -> bool:
    """Returns whether Orbax considers a folder a finished checkpoint."""
    return ocp.is_orbax_checkpoint(folder)


def structural_problem(folder: epath.Path) -> str:
    """Returns what a step lacks, judging by its file names only; "" if nothing is missing."""
    if not folder.is_dir():
        return "it is a file, not a folder" if folder.exists() else "it does not exist"
    names = {child.name for child in folder.iterdir()}
    if not names:
        return "its folder is empty"
    if _METADATA not in names:
        return f"{_METADATA} is missing"
    try:
        parts = set(_content(folder)[_PARTS])
    except (ValueError, LookupError, TypeError, OSError):
        return f"its {_METADATA} cannot be read"
    if missing := parts - names:
        return f"{' and '.join(sorted(missing))} is missing"
    # The file of the PyTree handler, without which Orbax knows neither names nor shapes.
    if STATE in parts and not (folder / STATE / "_METADATA").exists():
        return f"{STATE}/_METADATA is missing"
    return ""


def _content(folder: epath.Path) -> dict[str, Any]:
    """Orbax's metadata of a step: its items, and the JSON values saved with it."""
    return json.loads((folder / _METADATA).read_text())


def _described(folder: epath.Path) -> dict[str, Any]:
    """Shapes and dtypes of the saved tree.

    Calls Orbax's handler because `ocp.metadata` hides every error and returns None. Runs in a
    thread of its own because a notebook already runs an event loop in this one.
    """
    handler = ocp.handlers.PyTreeHandler()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(handler.metadata(folder))).result()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Makes Orbax load as if this process were the only one, and accept a subset of the tree."""
    number = collectives.process_number()
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    context.multiprocessing.primary_host = number
    context.multiprocessing.active_processes = {number}
    _drop_reports_of_further_arrays()
    with context:
        yield


@functools.cache
def _drop_reports_of_further_arrays() -> None:
    """Leaves one error where several arrays of a checkpoint cannot be read.

    Orbax reads arrays at the same time, raises the error of the first that fails and closes its
    event loop. The others would still print a traceback each, at any later moment (so this stays
    in force): asyncio for a task that failed when the garbage collector finds it, TensorStore for
    a read that ends after the loop was closed.
    """
    logging.getLogger("asyncio").addFilter(_is_not_of_an_array)
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        late = unraisable.object is None and isinstance(unraisable.exc_value, RuntimeError)
        if not (late and str(unraisable.exc_value) == "Event loop is closed"):
            report(unraisable)

    sys.unraisablehook = report_others


def _is_not_of_an_array(record: logging.LogRecord) -> bool:
    """Keeps all of asyncio's records but those of further arrays that could not be read."""
    error = record.exc_info[1] if record.exc_info else None
    unretrieved = record.getMessage().startswith("Task exception was never retrieved")
    return not (unretrieved and isinstance(error, ValueError) and "Error reading" in str(error))


@contextlib.contextmanager
def _naming(folder: epath.Path) -> Iterator[None]:
    """Names the step in errors, and converts those caused by damage or deletion."""
    try:
        yield
    except (DamagedCheckpointError, CheckpointMismatchError):
        raise
    except Exception as error:  # damage makes Orbax and TensorStore raise any type
        if _passes(_root(error)):
            raise
        # A training deletes old steps while others read them, which is not damage.
        if not folder.exists():
            raise VanishedCheckpointError(vanished(folder)) from error
        why = structural_problem(folder) or _why(_root(error))
        raise DamagedCheckpointError(
            f"step {folder.name} of {folder.parent} is damaged: {why}"
        ) from error


def vanished(folder: epath.Path) -> str:
    """Returns the error message for a step that was deleted."""
    return (
        f"step {folder.name} of {folder.parent} does not exist (any more): training deletes older "
        "steps; use the newest one, or keep more of them (checkpoint.keep_latest)"
    )


def _root(error: BaseException) -> BaseException:
    """Returns an error's original cause: Orbax reports every failure as an incompatible handler."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _passes(error: BaseException) -> bool:
    """Returns whether an error (network, permissions, memory) says nothing about the files."""
    if isinstance(error, OSError):
        # EIO comes from a failing disk: the data are gone, and waiting does not bring them back.
        return not isinstance(error, _DAMAGING) and error.errno != errno.EIO
    if isinstance(error, jax.errors.JaxRuntimeError | ImportError | MemoryError):
        return True
    return any(word in str(error) for word in _PASSING)


def _why(error: BaseException) -> str:
    if isinstance(error, array_digests.DigestError):
        return str(error)
    line = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {line}"


def abstract_tree(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes and dtypes of a saved tree, every leaf with the same sharding."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        is_leaf=is_array,
    )
