# SPDX-License-Identifier: BSD-3-Clause
"""Reads and writes the arrays of checkpoints by their flat names."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from mlimages_jax.checkpoints import manager, saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.files.remote import write_text
from mlimages_jax.labels.class_thresholds import FILE_NAME
from mlimages_jax.step.losses import ClassCounts
from mlimages_jax.step.state import TrainState


def read_weights(
    path: epath.PathLike, *, ema: bool = True
) -> tuple[SavedModel, dict[str, np.ndarray]]:
    """Reads a checkpoint of this package.

    Args:
        path: A workdir, a checkpoints folder or a step.
        ema: Whether to use the EMA weights if the checkpoint has them.

    Returns:
        The checkpoint, and its float32 arrays by the names of `layout`, in its order.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ConvertError: If it is not a network of this package.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved = saved_model.read(manager.resolve(path), sharding=device, ema=ema)
    arrays = flat(jax.device_get(saved.weights))
    architecture = layout.check(arrays, where=str(saved.where))
    # jax sorts the keys of a tree, while files for TensorFlow follow the order of its graph.
    return saved, {name: arrays[name] for name in layout.variables(architecture)}


def write_workdir(
    output: epath.PathLike,
    arrays: dict[str, np.ndarray],
    *,
    step: int,
    config: dict[str, Any],
    class_list: str = "",
    thresholds: str = "",
    opt_state: Any = None,
    class_counts: ClassCounts | None = None,
) -> epath.Path:
    """Creates a workdir with one checkpoint; returns the folder of its step.

    Args:
        output: The workdir.
        arrays: The arrays of a network by the names of `layout`.
        step: Number of updates.
        config: Known JSON values in the form of a run's configuration, and their origin under
            `imported`.
        class_list: Text of the class list to store in the workdir; "" if unknown.
        thresholds: Text of thresholds.tsv to store there; "" if there is none.
        opt_state: State of the optimizer; None if unknown.
        class_counts: Class counts; None if unknown.

    Raises:
        ConvertError: If there is already a checkpoint.
    """
    if found := manager.find(output):
        raise ConvertError(f"{found[-1]} already exists: give another --output")
    state = TrainState(
        step=jnp.asarray(step, jnp.int32),
        opt_state=opt_state,
        class_counts=class_counts,
        **nested(arrays),
    )
    with manager.Checkpoints(epath.Path(output) / "checkpoints") as saved:
        saved.save(state, step=step, config=config)
    if class_list:
        (epath.Path(output) / "dictionary.txt").write_text(class_list)
    if thresholds:
        write_text(epath.Path(output) / FILE_NAME, thresholds)
    return saved.directory / str(step)


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Flattens nested dicts to one dict whose names contain slashes."""
    return traverse_util.flatten_dict(tree, sep="/")


def nested(arrays: dict[str, Any]) -> dict[str, Any]:
    """Nests a dict whose names contain slashes, the inverse of `flat`."""
    return traverse_util.unflatten_dict(arrays, sep="/")


def probability_rule(config: dict[str, Any]) -> str:
    """Describes in a sentence how logits become probabilities, which depends on the loss."""
    usage = saved_model.usage(config, step=0)
    if usage.loss == "softmax":
        return "softmax(logits): every image has one class"
    if usage.loss == "two_way":
        return "none: the loss compares scores, so thresholds have to be found on labelled images"
    if usage.loss in ("sigmoid", "asymmetric", "focal"):
        return "1 / (1 + exp(-logit)), for each class"
    if usage.loss == "weighted":
        weight = usage.positive_weight
        return (
            f"1 / (1 + {weight:g} exp(-logit)), for each class: the loss weighted positive labels "
            f"by {weight:g}"
        )
    return "unknown: the checkpoint does not say with which loss it was trained"


def image_size_of(saved: SavedModel, chosen: int | None) -> int:
    """Returns the side of the images in pixels: the chosen one, or else that of the training.

    Raises:
        ConvertError: If neither is known.
    """
    size = chosen or saved.usage().image_size
    if not size:
        raise ConvertError(f"{saved.where} does not say its image size: give --image-size")
    return size


def check_new_file(path: Path, *, suffix: str) -> None:
    """Checks the name of a file to write.

    Raises:
        ConvertError: If it ends otherwise, or something already exists at this path.
    """
    if path.suffix != suffix:
        raise ConvertError(f"--output={path}: the name must end in {suffix}")
    if path.exists():
        raise ConvertError(f"{path} already exists: remove it or give another --output")


def new_folder(path: Path) -> Path:
    """Creates a folder.

    Raises:
        ConvertError: If something already exists at this path.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConvertError(f"{path} already exists: remove it or give another --output")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder whose contents become `path` at the end.

    If the block raises, or the process is killed, `path` is an empty folder.

    Raises:
        ConvertError: If something already exists at this path.
    """
    new_folder(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed
    unfinished.mkdir()
    try:
        yield unfinished
        unfinished.replace(path)  # rename(2) replaces an empty folder, but no other
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
