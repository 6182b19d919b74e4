# SPDX-License-Identifier: BSD-3-Clause
"""What a training or an export left on disk of a network: a checkpoint, or a single file."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
from etils import epath
from flax import traverse_util

from mlimages_jax import checkpoints, weights_file
from mlimages_jax.labels.hierarchy import Hierarchy


class SavedModel(NamedTuple):
    """Weights, and what is known of them.

    Attributes:
        where: the folder of the step, or the file.
        weights: {"params", "batch_stats"}, nested dicts of arrays.
        config: JSON values of the training; {} where nobody kept them.
        step: updates done.
        hierarchy: of the classes, where there is one.
    """

    where: epath.Path
    weights: dict[str, Any]
    config: dict[str, Any]
    step: int
    hierarchy: Hierarchy | None

    @property
    def image_size(self) -> int:
        """The side of the pictures at the end of the steps done; 0 where nothing says it."""
        size = self.config.get("image_size", 0)
        for start, larger, _ in self.config.get("resize", ()):
            size = larger if self.step > start else size
        return size


def turns_upright(
    config: dict[str, Any], chosen: bool | None = None, *, built: bool = False
) -> bool:
    """Whether images are turned by their EXIF data before a network sees them.

    Args:
        config: of its training; `orientation` there is that of the data set, "exif" or "stored".
        chosen: what a person says; None: as the training did.
        built: the images are records of a built set. Where nothing says how the training did, these
            stay as they are, and files of people are turned.
    """
    if chosen is not None:
        return chosen
    return config.get("orientation", "stored" if built else "exif") == "exif"


def read(path: epath.PathLike, *, place: jax.sharding.Sharding) -> SavedModel:
    """Reads a network, with the averaged weights where there are some.

    Args:
        path: a workdir, its checkpoints folder, one step, or a file of `convert to-safetensors`.
        place: where the weights go.

    Raises:
        FileNotFoundError: there is neither.
        HierarchyError: its category file is malformed.
        DamagedCheckpointError: the checkpoint is damaged; names the step, and the array.
        WeightsFileError: the file is damaged.
    """
    if os.fspath(path).endswith(weights_file.SUFFIX):
        return _from_file(Path(path), place)
    folder = checkpoints.resolve(path)
    kept = checkpoints.classes_of(folder)
    return SavedModel(
        where=folder,
        weights=checkpoints.load_weights(folder, place),
        config=checkpoints.config_of(folder),
        step=int(folder.name),
        hierarchy=Hierarchy.from_file(kept) if kept else None,
    )


def _from_file(path: Path, place: jax.sharding.Sharding) -> SavedModel:
    content = weights_file.read(path)
    text = content.dictionary
    return SavedModel(
        where=epath.Path(path),
        weights=jax.device_put(traverse_util.unflatten_dict(content.arrays, sep="/"), place),
        config=content.config,
        step=content.step,
        hierarchy=Hierarchy.from_text(text, where=f"{path} (dictionary)") if text else None,
    )
