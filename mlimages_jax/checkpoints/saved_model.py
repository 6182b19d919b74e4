# SPDX-License-Identifier: BSD-3-Clause
"""Loads a trained network from a checkpoint or a single file, with the settings to use it.

`usage` collects those settings from the training: image size, crops, loss and calibration.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
from etils import epath
from flax import traverse_util

from mlimages_jax.checkpoints import hub, manager, places, safetensors, step_folders
from mlimages_jax.checkpoints.saved_step import agreed
from mlimages_jax.data.images.views import VIEW_NAMES, EvaluationView, ViewName
from mlimages_jax.files import text_files
from mlimages_jax.labels.class_thresholds import FILE_NAME, ThresholdError
from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.settings import build
from mlimages_jax.settings.losses import Loss
from mlimages_jax.settings.rules import Number
from mlimages_jax.settings.tasks import View
from mlimages_jax.settings.training import PIXELS


@dataclasses.dataclass(frozen=True, eq=False)
class SavedModel:
    """The weights of a network with everything that was saved with them.

    Attributes:
        where: The step folder or the file.
        weights: {"params", "batch_stats"}, nested dicts of arrays.
        config: JSON values of the training; {} if they were not saved.
        step: Number of updates done.
        class_list: Text of the class list; "" if it was not saved.
        classes_file: Where that text was saved, for messages.
        thresholds: Text of thresholds.tsv; None if there is none. It may be of other weights, see
            `own_thresholds`.
        thresholds_file: Where that text was saved, for messages.
        address: hf://user/name@commit of a model from the Hub; "" for any other.
    """

    where: epath.Path
    weights: dict[str, Any]
    config: dict[str, Any]
    step: int
    class_list: str
    classes_file: str
    thresholds: str | None = None
    thresholds_file: str = ""
    address: str = ""

    @functools.cached_property
    def hierarchy(self) -> Hierarchy | None:
        """The class hierarchy; None if it was not saved.

        Raises:
            HierarchyError: The class list is malformed.
        """
        if not self.class_list:
            return None
        return Hierarchy.from_text(self.class_list, where=self.classes_file)

    def usage(self, *, loss: str | None = None) -> "Usage":
        """Settings to use the network with; see the function `usage`."""
        return usage(self.config, step=self.step, loss=loss)

    def view(
        self, wanted: View, *, exif_orientation: bool | None, built: bool = False
    ) -> EvaluationView:
        """Returns how to resize and crop images: as configured, or else as in the training.

        Args:
            wanted: Settings; what is left open is that of the training's evaluations.
            exif_orientation: The user's choice, see `turns_upright`.
            built: Whether the images are records of a built data set.

        Raises:
            ConfigError: No image size is known.
        """
        usage = self.usage()
        size = wanted.size or usage.image_size
        if not size:
            raise build.ConfigError(
                f"{self.where} does not say at which size it was trained: give "
                "--config.view.size=224"
            )
        upright = turns_upright(self.config, exif_orientation, built=built)
        return EvaluationView(size, wanted.name or usage.view, upright)


@dataclasses.dataclass(frozen=True, eq=False)
class Usage:
    """The settings with which to use a network, derived from its training.

    Attributes:
        loss_settings: Loss of the training; its `name` is "" if unknown.
        image_size: Side of the images in pixels at the last step done; 0 if unknown.
        sizes: Image sizes at which the training evaluated; empty if unknown.
        views: Views with which the training evaluated, best first; empty if unknown.
    """

    loss_settings: Loss
    image_size: int
    sizes: tuple[int, ...]
    views: tuple[ViewName, ...]

    @property
    def loss(self) -> str:
        """The name of the loss; "" if unknown."""
        return self.loss_settings.name

    @property
    def view(self) -> ViewName:
        """View of the training's evaluation, else that of the original release."""
        return self.views[0] if self.views else "short_side"

    @property
    def positive_weight(self) -> float:
        """The weight that calibrates probabilities; 1 if the loss has none."""
        return build.positive_weight(self.loss_settings)


def usage(config: dict[str, Any], *, step: int, loss: str | None = None) -> Usage:
    """Derives how to use a network from the configuration of its training.

    Args:
        config: JSON values of the training; {} if they were not saved.
        step: Number of updates done.
        loss: Name of the loss given by the user, which overrides the configuration.
    """
    loss_settings = build.saved_loss(config)
    if loss:
        loss_settings = dataclasses.replace(loss_settings, name=loss)
    # The size at the step of the checkpoint, which may be from before a resize.
    size = config.get("image_size", 0)
    for start, larger, _ in config.get("resize", ()):
        if 0 < start < 1:  # a fraction of the run, in a configuration saved unresolved
            start = math.ceil(start * config.get("total_steps", 0))
        size = larger if step > start else size
    evaluation = config.get("evaluation", {})
    sizes = tuple(evaluation.get("sizes", ()))
    # Evaluation sizes left over from a recipe do not apply to a network trained at another size.
    known = sizes if size in sizes else (size,) if size else ()
    return Usage(loss_settings, size, known, tuple(evaluation.get("views", ())))


def turns_upright(
    config: dict[str, Any], chosen: bool | None = None, *, built: bool = False
) -> bool:
    """Returns whether to apply the EXIF orientation to images before a network sees them.

    Args:
        config: JSON values of the training; `orientation`, "exif" or "stored", is that of its
            data set.
        chosen: The user's choice; None to do as the training did.
        built: Whether the images are records of a built data set. If the training's choice is
            unknown, records are left as stored and image files of users are rotated.
    """
    if chosen is not None:
        return chosen
    return config.get("orientation", "stored" if built else "exif") == "exif"


def thresholds_place(folder: epath.Path) -> epath.Path:
    """Returns the path of a step's thresholds.tsv: next to the class list, or in the workdir."""
    classes = step_folders.classes_of(folder)
    # A step that was copied out of its workdir has no `checkpoints` folder above it.
    is_inside = folder.parent.name == step_folders.FOLDER
    workdir = classes.parent if classes else folder.parents[1] if is_inside else folder.parent
    return workdir / FILE_NAME


def read(
    path: epath.PathLike,
    *,
    sharding: jax.sharding.Sharding,
    ema: bool = True,
    step: int | None = None,
) -> SavedModel:
    """Reads a network; with several processes, all of them must call it.

    Args:
        path: A workdir, its checkpoints folder, a step folder, a file written by
            `convert to-safetensors`, or an address hf://user/name@revision, see `hub`.
        sharding: Sharding of the weights.
        ema: Whether to prefer the EMA weights if the checkpoint has them.
        step: Step to read; None reads the best one if the training recorded it, else the newest.

    Raises:
        FileNotFoundError: There is neither a checkpoint nor a file, or not this step.
        HierarchyError: The class list is not text.
        DamagedCheckpointError: The checkpoint is damaged; the message names the step and array.
        WeightsFileError: The file is damaged.
        HubError: The Hub has no such model for this user.
        ThresholdError: thresholds.tsv is not text.
    """
    if hub.is_address(path):
        file, pinned = hub.download_for_all(path)
        return dataclasses.replace(_from_file(file, sharding, step=step), address=str(pinned))
    if places.is_file(path):
        return _from_file(Path(path), sharding, step=step)
    folder = agreed(lambda: manager.resolve(path, step=step))
    kept = manager.classes_of(folder)
    try:
        class_list = text_files.read_text(kept) if kept else ""
    except text_files.TextFileError as error:
        raise HierarchyError(str(error)) from error
    place = thresholds_place(folder)
    try:
        thresholds = text_files.read_text(place) if place.exists() else None
    except text_files.TextFileError as error:
        raise ThresholdError(str(error)) from error
    return SavedModel(
        where=folder,
        weights=manager.load_weights(folder, sharding, ema=ema),
        config=manager.config_of(folder),
        step=int(folder.name),
        class_list=class_list,
        classes_file=str(kept or ""),
        thresholds=thresholds,
        thresholds_file=str(place),
    )


def _from_file(path: Path, sharding: jax.sharding.Sharding, *, step: int | None) -> SavedModel:
    content = safetensors.read(path)
    if step not in (None, content.step):
        raise FileNotFoundError(f"{path} has no step {step}; it is of step {content.step}")
    saved = SavedModel(
        where=epath.Path(path),
        weights=jax.device_put(traverse_util.unflatten_dict(content.arrays, sep="/"), sharding),
        config=content.config,
        step=content.step,
        class_list=content.class_list,
        classes_file=f"{path} (dictionary)",
        thresholds=content.thresholds or None,
        thresholds_file=f"{path} (thresholds)",
    )
    _check_usage(saved)
    return saved


def _check_usage(saved: SavedModel) -> None:
    """Refuses settings that no training has: a file may come from anybody.

    Raises:
        WeightsFileError: An image size, a view or a weight is not one.
    """
    try:
        usage = saved.usage()
        fits = (
            isinstance(usage.loss, str)
            and all(size == 0 or PIXELS.allows(size) for size in (usage.image_size, *usage.sizes))
            and set(usage.views) <= set(VIEW_NAMES)
            and Number(above=True).allows(usage.positive_weight)
        )
        why = "an image size, a view or a weight in it is none"
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        fits, why = False, str(error)
    if not fits:
        raise safetensors.WeightsFileError(
            f"{saved.where}: its settings are not those of a training: {why}"
        )
