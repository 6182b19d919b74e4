# SPDX-License-Identifier: BSD-3-Clause
"""The arrays of a checkpoint by flat names, out of its folder and into a new one."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from mlimages_jax.checkpoints import manager, saved_model
from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.step.losses import ClassCounts
from mlimages_jax.step.state import TrainState


class Weights(NamedTuple):
    """A network, and what is known of it.

    Attributes:
        where: the folder it comes from.
        arrays: float32, by the names of `layout`, in its order.
        architecture: of the arrays.
        step: updates done.
        config: JSON values that were saved with it.
        dictionary: text of the category file in its workdir; "" where there is none.
    """

    where: epath.Path
    arrays: dict[str, np.ndarray]
    architecture: layout.Architecture
    step: int
    config: dict[str, Any]
    dictionary: str

    @property
    def usage(self) -> saved_model.Usage:
        """How it is used, as its training says."""
        return saved_model.usage(self.config, step=self.step)

    @property
    def image_size(self) -> int | None:
        """The side of the images at the end of its training, where that is known."""
        return self.usage.image_size or None


def read_weights(path: epath.PathLike, *, averaged: bool = True) -> Weights:
    """Reads a checkpoint of this package.

    Args:
        path: a workdir, a checkpoint folder or a step.
        averaged: take the averages of the weights where the checkpoint has them.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ConvertError: it is not of a network of this package.
    """
    folder = manager.resolve(path)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    arrays = flat(jax.device_get(manager.load_weights(folder, place, averaged=averaged)))
    architecture = layout.check(arrays, where=str(folder))
    classes = manager.classes_of(folder)
    return Weights(
        where=folder,
        arrays={name: arrays[name] for name in layout.variables(architecture)},
        architecture=architecture,
        step=int(folder.name),
        config=manager.config_of(folder),
        dictionary=classes.read_text() if classes else "",
    )


def write_workdir(
    output: epath.PathLike,
    arrays: dict[str, np.ndarray],
    *,
    step: int,
    config: dict[str, Any],
    dictionary: str = "",
    opt_state: Any = None,
    class_counts: ClassCounts | None = None,
) -> epath.Path:
    """Makes a workdir of one checkpoint; returns the folder of its step.

    Args:
        output: the workdir.
        arrays: of a network, by the names of `layout`.
        step: updates done.
        config: JSON values that are known, as a run keeps them, and under `imported` where they
            come from.
        dictionary: text of the category file, which the workdir keeps; "" where nobody gave it.
        opt_state: None where it is not known.
        class_counts: None where they are not known.

    Raises:
        ConvertError: when there is a checkpoint already.
    """
    if found := manager.find(output):
        raise ConvertError(f"{found[-1]} is there already: give another --output")
    state = TrainState(
        step=jnp.asarray(step, jnp.int32),
        opt_state=opt_state,
        class_counts=class_counts,
        **nested(arrays),
    )
    with manager.Checkpoints(epath.Path(output) / "checkpoints") as saved:
        saved.save(state, step=step, config=config)
    if dictionary:
        (epath.Path(output) / "dictionary.txt").write_text(dictionary)
    return saved.directory / str(step)


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts to one of names with slashes."""
    return traverse_util.flatten_dict(tree, sep="/")


def nested(arrays: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    return traverse_util.unflatten_dict(arrays, sep="/")


def probability_rule(config: dict[str, Any]) -> str:
    """How logits become probabilities, in words; follows from the loss."""
    usage = saved_model.usage(config, step=0)
    if usage.loss == "softmax":
        return "softmax(logits): every image has one class"
    if usage.loss in ("sigmoid", "asymmetric"):
        return "1 / (1 + exp(-logit)), class by class"
    if usage.loss == "weighted":
        weight = usage.positive_weight
        return (
            f"1 / (1 + {weight:g} exp(-logit)), class by class: the loss counted a positive label "
            f"{weight:g} times"
        )
    return "not known: the checkpoint does not say which loss it was trained with"


def new_folder(path: Path) -> Path:
    """Makes a folder.

    Raises:
        ConvertError: when something is there already.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConvertError(f"{path} exists already: remove it or give another --output")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """Yields another folder beside `path`; what is written there becomes `path` at the end.

    Where the block raises, or the process is killed, `path` is an empty folder.

    Raises:
        ConvertError: when something is there already.
    """
    new_folder(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a job that was killed
    unfinished.mkdir()
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
