# SPDX-License-Identifier: BSD-3-Clause
"""One step of a run on disk: read whole, verified, and only then placed on devices.

Arrays come to the host first, where their digests are compared: on any number of devices, and by
every process of a job for itself, so that none waits inside Orbax for one that met damage. What one
of them found, all of them raise.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from mlimages_jax.checkpoints import array_digests
from mlimages_jax.checkpoints.compatibility import CheckpointMismatchError, by_name, is_array
from mlimages_jax.distributed import processes

T = TypeVar("T")
STATE = "state"  # the part of a step that Orbax keeps the arrays in
STEP = "step"  # the array with the number of the step
_METADATA = "_CHECKPOINT_METADATA"
_PARTS = "item_handlers"  # in it: the parts of the step
# Words of TensorStore for what passes, or what a person has to allow: no damage.
_PASSING = (
    "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED", "UNAVAILABLE",
)  # fmt: skip
_DAMAGING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # of the system's errors


class DamagedCheckpointError(ValueError):
    """A checkpoint whose files are damaged or incomplete; the message names the step and why."""


class VanishedCheckpointError(FileNotFoundError):
    """A checkpoint that was deleted while it was being read."""


class SavedStep:
    """What a step folder holds.

    Attributes:
        folder: `checkpoints/<step>`.
    """

    def __init__(self, folder: epath.Path):
        self.folder = folder

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The JSON values saved with it.

        Raises:
            DamagedCheckpointError: they are not what was saved.
        """
        with _naming(self.folder):
            config = dict(self._content.get("custom_metadata") or {})
            if self._digests is not None:
                array_digests.verify_config(config, self._digests)
            return config

    @functools.cached_property
    def tree(self) -> dict[str, Any]:
        """Shapes and dtypes of all arrays.

        Raises:
            DamagedCheckpointError: they are not what was saved.
        """
        with _naming(self.folder):
            tree = _described(self.folder / STATE)
            if self._digests is not None:
                array_digests.verify_names(by_name(tree), self._digests)
            return tree

    def arrays(self, like: Any, *, prefix: str = "") -> Any:
        """Reads arrays to the host, and verifies them.

        Args:
            like: a tree of some or all of them.
            prefix: the name that they are under ("" for none).

        Returns:
            A tree of numpy arrays, as `like`.

        Raises:
            DamagedCheckpointError: an array is not what was saved, or cannot be read.
        """
        wanted = {prefix: like} if prefix else like
        with _naming(self.folder):
            also = {name: self.tree[name] for name in (STEP,) if name in self.tree}
            with _alone():
                host = jax.tree.map(lambda _: np.ndarray, also | wanted, is_leaf=is_array)
                found = ocp.load(self.folder, host)
            found = jax.tree.map(np.asarray, found)
            if self._digests is not None:
                array_digests.verify(by_name(found), self._digests)
            self._check_number(found.get(STEP))
            found = {name: found[name] for name in wanted}
        return found[prefix] if prefix else found

    def _check_number(self, step: np.ndarray | None) -> None:
        """A folder under another number would be taken for a newer or an older step.

        Raises:
            DamagedCheckpointError: it is called otherwise than the step in it.
        """
        if step is not None and str(step) != self.folder.name:
            raise DamagedCheckpointError(
                f"step {self.folder.name} of {self.folder.parent} is damaged: what its folder "
                f"holds is step {step}; call it {step} again, if it was renamed"
            )

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        return _content(self.folder)

    @functools.cached_property
    def _digests(self) -> array_digests.Digests | None:
        """None for a step that was saved before there were any."""
        folder = self.folder / array_digests.FOLDER
        # Either says that there have to be some: the other may be what is damaged.
        if array_digests.FOLDER in self._content[_PARTS] or folder.exists():
            return array_digests.read(folder)
        return None


def agreed(read: Callable[[], T]) -> T:
    """What `read` returns; where one process cannot read, all of them raise.

    Args:
        read: called by all processes of the job, which may meet different damage.

    Raises:
        DamagedCheckpointError: of the first process that met one.
        VanishedCheckpointError: the same.
    """
    result: T | None = None
    own: Exception | None = None
    try:
        result = read()
    except (DamagedCheckpointError, VanishedCheckpointError) as error:
        own = error
    kinds = {kind.__name__: kind for kind in (DamagedCheckpointError, VanishedCheckpointError)}
    said = processes.exchanged(f"{type(own).__name__} {own}" if own else "")
    if own:
        raise own
    for text in filter(None, said):
        kind, _, message = text.partition(" ")
        raise kinds[kind](message)
    return result  # type: ignore[return-value]  # there was no error


def placed(arrays: Any, like: Any) -> Any:
    """Puts whole arrays of the host where the leaves of `like` say."""

    def put(array: np.ndarray, leaf: Any) -> jax.Array:
        return jax.make_array_from_callback(
            array.shape, leaf.sharding, lambda index: array[index], dtype=array.dtype
        )

    return jax.tree.map(put, arrays, like)


def is_checkpoint(folder: epath.Path) -> bool:
    """Whether Orbax takes a folder for one whose save was finished."""
    return ocp.is_orbax_checkpoint(folder)


def structural_problem(folder: epath.Path) -> str:
    """Why a step cannot be whole, as its names alone tell; "" where nothing speaks against it."""
    if not folder.is_dir():
        return "it is a file" if folder.exists() else "it is not there"
    names = {child.name for child in folder.iterdir()}
    if not names:
        return "its folder is empty"
    if _METADATA not in names:
        return f"{_METADATA} is missing in it"
    try:
        parts = set(_content(folder)[_PARTS])
    except (ValueError, LookupError, TypeError, OSError):
        return f"its {_METADATA} cannot be read"
    if missing := parts - names:
        return f"{' and '.join(sorted(missing))} is missing in it"
    if STATE in parts and not (folder / STATE / "_METADATA").exists():
        return f"{STATE}/_METADATA is missing in it"
    return ""


def _content(folder: epath.Path) -> dict[str, Any]:
    """What Orbax wrote about a step: its parts, and the JSON values saved with it."""
    return json.loads((folder / _METADATA).read_text())


def _described(folder: epath.Path) -> dict[str, Any]:
    """Shapes and dtypes, by Orbax's handler: `ocp.metadata` is None after any error of it.

    In a thread, because a notebook has a loop of its own in this one.
    """
    handler = ocp.handlers.PyTreeHandler()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(handler.metadata(folder))).result()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Loading as if this process were the only one, and parts of what is there."""
    number = processes.process_number()
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    context.multiprocessing.primary_host = number
    context.multiprocessing.active_processes = {number}
    with context:
        yield


@contextlib.contextmanager
def _naming(folder: epath.Path) -> Iterator[None]:
    """Says of which step an error is, and whether it is one of damage."""
    try:
        yield
    except (DamagedCheckpointError, CheckpointMismatchError):
        raise
    except Exception as error:
        if _passes(_root(error)):
            raise
        if not folder.exists():
            raise VanishedCheckpointError(vanished(folder)) from error
        why = structural_problem(folder) or _why(_root(error))
        raise DamagedCheckpointError(
            f"step {folder.name} of {folder.parent} is damaged: {why}"
        ) from error


def vanished(folder: epath.Path) -> str:
    """What to do about a step that was deleted."""
    return (
        f"step {folder.name} of {folder.parent} is not there (any more): a training deletes its "
        "older steps; read the newest, or let it keep more (checkpoint.keep_latest)"
    )


def _root(error: BaseException) -> BaseException:
    """What an error came from: Orbax calls everything an incompatible handler."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _passes(error: BaseException) -> bool:
    """Whether it says nothing about what is on the disk: the network, rights, memory."""
    if isinstance(error, OSError):
        return not isinstance(error, _DAMAGING) and error.errno != errno.EIO
    if isinstance(error, jax.errors.JaxRuntimeError | ImportError | MemoryError):
        return True
    return any(word in str(error) for word in _PASSING)


def _why(error: BaseException) -> str:
    if isinstance(error, array_digests.DigestError):
        return str(error)
    line = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {line}"


def like_saved(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes and dtypes of a saved tree, all in one place."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        is_leaf=is_array,
    )
