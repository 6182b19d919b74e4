# SPDX-License-Identifier: BSD-3-Clause
"""Loads a trained model for notebooks and programs.

    import mlimages_jax as mli

    model = mli.load("workdirs/finetune")
    for tag in model.tag("shark.jpg", top_k=3)[0]:
        print(f"{tag.score:.2f}  {tag.name}")

Needs no data set, only a checkpoint and, for class names, the class list in its workdir.
"""

import os
from typing import Literal

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from mlimages_jax import moved
from mlimages_jax.checkpoints import places, saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.data.images.views import VIEW_NAMES, EvaluationView, ViewName
from mlimages_jax.inference import chosen_thresholds
from mlimages_jax.inference.model import Model as Model
from mlimages_jax.inference.model import ModelError as ModelError
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.models import architecture
from mlimages_jax.settings import build
from mlimages_jax.settings.losses import LOSSES


@moved.renamed_keywords(dictionary="classes", protocol="view", place="sharding")
def load(
    path: epath.PathLike,
    *,
    classes: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    dtype: str = "float32",
    view: ViewName | None = None,
    loss: str | None = None,
    exif_orientation: bool | None = None,
    sharding: jax.sharding.Sharding | None = None,
    thresholds: Literal["none"] | None = None,
    step: int | None = None,
) -> Model:
    """Loads a model from a checkpoint or an exported file, with the EMA weights if there are any.

    Of several checkpoints it is the best one if the training recorded it (`checkpoint.best`), which
    the log says, else the latest.

    Args:
        path: A workdir, its checkpoints folder, one step, a file from `convert to-safetensors`, or
            an address `hf://user/name@revision` of a model that `mlimages push` put on the Hub.
        classes: The class list; None uses the one in the checkpoint's workdir, or in the file.
        image_size: Side of the cropped images in pixels; None uses the checkpoint's.
        dtype: Type of the activations: "float32" (full precision on any device) or "bfloat16",
            which is faster on accelerators and slightly less exact.
        view: How images are resized and cropped, see `EvaluationView`; None uses the one of
            the training run's evaluations, or else "short_side", as the original does.
        loss: The loss it was trained with; None uses the checkpoint's.
        exif_orientation: Whether to apply the EXIF orientation; None applies it if the checkpoint
            was trained that way or does not say.
        sharding: Sharding of the weights; None puts them on this process's first device.
        thresholds: None uses the thresholds that `mlimages thresholds` found for these weights, if
            there are any; "none" uses none.
        step: Step of the checkpoint to load; None chooses as above.

    Raises:
        FileNotFoundError: If there is no checkpoint, not this step, or no such class list.
        WeightsFileError: If the file is damaged.
        HubError: If the Hub has no such model for this user.
        ModelError: If the class list has other classes, the image size is unknown, the loss or view
            does not exist, or a file has other arrays than a network.
        HierarchyError: If the class list is malformed.
        UnknownArchitectureError: If the parameters belong to another network.
        ConfigError: If the dtype is unknown.
        ThresholdError: If thresholds.tsv is malformed.
    """
    if thresholds not in (None, chosen_thresholds.NONE):
        raise ModelError(f"thresholds={thresholds!r} is not None or 'none': give others to `tag`")
    compute_dtype = build.compute_dtype(dtype)
    if view not in (*VIEW_NAMES, None):
        raise ModelError(f"view={view!r} is none of {', '.join(VIEW_NAMES)}")
    # local_devices: in a distributed run jax.devices()[0] may be another process's.
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved = saved_model.read(path, sharding=sharding or alone, step=step)
    if places.is_file(saved.where):
        _check_arrays(saved)
    network = architecture.network_of(saved.weights["params"], dtype=compute_dtype)
    usage = saved.usage(loss=loss)
    if usage.loss not in (*LOSSES, ""):
        raise ModelError(f"loss={usage.loss!r} is none of {', '.join(LOSSES)}")
    size = image_size or usage.image_size
    if not size:
        raise ModelError(
            f"{saved.where} does not say at which size it was trained: give image_size=224"
        )
    hierarchy = Hierarchy.from_file(classes) if classes else saved.hierarchy
    if hierarchy and len(hierarchy) != network.num_classes:
        raise ModelError(
            f"{classes or 'its class list'} has {len(hierarchy)} classes but {saved.where} "
            f"has {network.num_classes}: give the class list that it was trained with"
        )
    return Model(
        **saved.weights,
        network=network,
        hierarchy=hierarchy,
        loss=usage.loss,
        positive_weight=usage.positive_weight,
        view=EvaluationView(
            size,
            view or usage.view,
            saved_model.turns_upright(saved.config, exif_orientation),
        ),
        thresholds=None
        if thresholds
        else chosen_thresholds.of_model(
            saved, hierarchy, loss=usage.loss, positive_weight=usage.positive_weight
        ),
        source=f"{saved.address or saved.where} (step {saved.step:,})",
    )


def _check_arrays(saved: SavedModel) -> None:
    """Checks that a file, which may come from anybody, has the arrays of a network and no others.

    Raises:
        ModelError: It has not.
    """
    flat = traverse_util.flatten_dict(saved.weights, sep="/")
    shapes = {name: np.broadcast_to(np.float32(), leaf.shape) for name, leaf in flat.items()}
    try:
        layout.check(shapes, where=str(saved.where))
    except ConvertError as error:
        raise ModelError("; ".join(str(error).splitlines()[:3])) from error
