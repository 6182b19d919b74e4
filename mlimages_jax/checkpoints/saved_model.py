# SPDX-License-Identifier: BSD-3-Clause
"""What a training or an export left on disk of a network: a checkpoint, or a single file.

Whoever uses a network asks `usage` how: sizes, crops, loss and calibration of its training.
"""

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from mlimages_jax.checkpoints import manager, safetensors
from mlimages_jax.data.images.views import Protocol
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.settings import build
from mlimages_jax.step.losses import POSITIVE_WEIGHT


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

    def usage(self, *, loss: str | None = None) -> "Usage":
        """As the function `usage`."""
        return usage(self.config, step=self.step, loss=loss)


@dataclasses.dataclass(frozen=True, eq=False)
class Usage:
    """How a network is used, as its training says it.

    Attributes:
        settings: of its training, with `loss.name` ("" where nothing says it) and the weight of
            the weighted loss, so that the functions of `configure` take them.
        image_size: side of the images at the end of the steps done, in pixels; 0: not known.
        sizes: sides at which the training evaluated; empty where that is not known.
        protocols: with which it evaluated, best first; empty where that is not known.
    """

    settings: ConfigDict
    image_size: int
    sizes: tuple[int, ...]
    protocols: tuple[Protocol, ...]

    @property
    def loss(self) -> str:
        """The name of the loss; "" where nothing says it."""
        return self.settings.loss.name

    @property
    def protocol(self) -> Protocol:
        """How an image is cut: as in the training's evaluation, else as the original does."""
        return self.protocols[0] if self.protocols else "short_side"

    @property
    def positive_weight(self) -> float:
        """By which probabilities are calibrated; 1 where the loss has no weight."""
        return build.positive_weight(self.settings)


def usage(config: dict[str, Any], *, step: int, loss: str | None = None) -> Usage:
    """How a network is used.

    Args:
        config: JSON values of its training; {} where nobody kept them.
        step: updates done.
        loss: what a person says; wins over the configuration.
    """
    settings = ConfigDict({"loss": {"name": "", "weighted": {"positive_weight": POSITIVE_WEIGHT}}})
    settings.update(config)
    settings.loss.name = loss or settings.loss.name
    size = config.get("image_size", 0)
    for start, larger, _ in config.get("resize", ()):
        if 0 < start < 1:  # of the run, in a configuration that nobody has resolved
            start = math.ceil(start * config.get("total_steps", 0))
        size = larger if step > start else size
    evaluation = config.get("evaluation", {})
    sizes = tuple(evaluation.get("sizes", ()))
    # A size of a recipe is none of a network that was trained at another one.
    known = sizes if size in sizes else (size,) if size else ()
    return Usage(settings, size, known, tuple(evaluation.get("protocols", ())))


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
    if os.fspath(path).endswith(safetensors.SUFFIX):
        return _from_file(Path(path), place)
    folder = manager.resolve(path)
    kept = manager.classes_of(folder)
    return SavedModel(
        where=folder,
        weights=manager.load_weights(folder, place),
        config=manager.config_of(folder),
        step=int(folder.name),
        hierarchy=Hierarchy.from_file(kept) if kept else None,
    )


def _from_file(path: Path, place: jax.sharding.Sharding) -> SavedModel:
    content = safetensors.read(path)
    text = content.dictionary
    return SavedModel(
        where=epath.Path(path),
        weights=jax.device_put(traverse_util.unflatten_dict(content.arrays, sep="/"), place),
        config=content.config,
        step=content.step,
        hierarchy=Hierarchy.from_text(text, where=f"{path} (dictionary)") if text else None,
    )
