# SPDX-License-Identifier: BSD-3-Clause
"""Settings of the tasks `tagger` and `suspects`: a training that chooses most of its settings.

What they choose, and by which table, is in `training.recipe`.
"""

from dataclasses import dataclass

from mlimages_jax.settings.compound_rules import Open
from mlimages_jax.settings.fields import setting
from mlimages_jax.settings.losses import LOSSES, Loss
from mlimages_jax.settings.optimization import Optimizer
from mlimages_jax.settings.rules import BELOW_ONE, Choice, Number, Text, Whole
from mlimages_jax.settings.training import (
    AREA,
    BATCH,
    DTYPES,
    HUE,
    OPERATIONS,
    PIXELS,
    Augmentation,
    Checkpoint,
    Crop,
    Model,
    Train,
)

_BY_SET = "by the number of images and the device"
_BY_LENGTH = "by the number of epochs"
_BY_LABELS = "by the data set: softmax for one class per image, else asymmetric"


@dataclass(frozen=True, kw_only=True)
class TaggerAugmentation(Augmentation):
    """Augmentation of training images after cropping."""

    hue: float = setting(
        Open(HUE, "by the names of the classes: 0 if two or more are colours, else 0.2", -1),
        "Largest rotation of the hue, in turns of the colour circle.",
        default=-1,
    )
    rand_augment: int = setting(
        Open(OPERATIONS, _BY_LENGTH, -1),
        "Number of RandAugment operations per image (Cubuk et al., 2020).",
        default=-1,
    )


@dataclass(frozen=True, kw_only=True)
class TaggerCrop(Crop):
    """Random crops of training images."""

    area: tuple[float, float] = setting(
        Open(AREA, _BY_LENGTH, ()),
        "Minimum and maximum fraction of the image.",
        default=(),
    )


@dataclass(frozen=True, kw_only=True)
class TaggerLoss(Loss):
    """The loss; the sections of all losses are those of a training."""

    name: str = setting(
        Open(Choice(LOSSES), _BY_LABELS, ""), "Name of the loss; its section has the arguments.",
        default="",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TaggerModel(Model):
    """The network; --config.model=resnet50 sets its sizes (resnet14, 26, 50, 101, 152, 200).

    Sizes left open are those of init_from, or chosen by the number of images and the device.
    """

    dtype: str = setting(
        Open(Choice(DTYPES), "by the device: float32 on CPUs", ""),
        "Type of activations; parameters, statistics and loss are float32.",
        default="",
    )


@dataclass(frozen=True, kw_only=True)
class TaggerOptimizer(Optimizer):
    """The optimizer, which turns gradients into updates."""

    ema_decay: float = setting(
        Open(BELOW_ONE, "by the number of updates", -1),
        "Decay of an EMA of the weights per step; 0: no EMA.",
        default=-1,
    )


@dataclass(frozen=True, kw_only=True)
class TaggerCheckpoint(Checkpoint):
    """When the state is saved, and which checkpoints are kept."""

    best: str = setting(
        Open(Text(), "by the loss: mAP or top-1 of the weights that are used", "auto"),
        "Metric, such as val/mAP, or val_averaged/mAP for the EMA weights. Its best checkpoint is "
        "kept too, and load() and the other tasks use it. Empty: they use the latest.",
        default="auto",
    )


@dataclass(frozen=True, kw_only=True)
class Tagger(Train):
    """A training on images of your own, by a recipe that suits their number and the device."""

    epochs: float = setting(
        Open(Number(0.0, 100_000.0, above=True), "by the number of images"),
        "Passes over the training images.",
        default=0,
    )
    minutes: float = setting(
        Number(0.0),
        "Time for the training; the speed is measured first, and sets the epochs. 0: no limit.",
        default=0.0,
    )
    image_size: int = setting(
        Open(PIXELS, _BY_SET), "Side of training images, in pixels.", default=0
    )
    batch_size: int = setting(Open(BATCH, _BY_SET), "Images per step, over all devices.", default=0)
    group_size: int = setting(
        Open(Whole(), "by the batch size"), "Images that share BatchNorm statistics.", default=0
    )
    accumulate: int = setting(
        Open(Whole(1, 2**12), "by the memory of the devices"),
        "Parts that a batch is computed in, with the same result in less memory.",
        default=0,
    )
    total_steps: int = setting(
        Open(Whole(), "by the epochs"), "Total number of updates.", default=0
    )
    crop: TaggerCrop = TaggerCrop()
    augmentation: TaggerAugmentation = TaggerAugmentation()
    model: TaggerModel = TaggerModel()
    optimizer: TaggerOptimizer = TaggerOptimizer()
    checkpoint: TaggerCheckpoint = TaggerCheckpoint()
    loss: TaggerLoss


@dataclass(frozen=True, kw_only=True)
class Suspects(Tagger):
    """Finds labels that are probably wrong or missing, by trainings that did not see them."""

    folds: int = setting(
        Whole(2, 100), "Parts of the images, each judged by a training on the others.", default=3
    )
    shown: int = setting(Whole(1), "Labels in each table.", default=1_000)
    engine: str = setting(
        Choice(("local", "ray")),
        "Where the folds are trained: on this machine, or each on a machine of a Ray cluster.",
        default="local",
    )
    workers: int = setting(
        Whole(),
        "Folds trained at a time, each in its process; 0: one after the other in this process, or "
        "as many as the cluster has machines.",
        default=0,
    )
