# SPDX-License-Identifier: BSD-3-Clause
"""Chooses for the task `tagger`: image size, network, batch and epochs, by the set and the device.

    device        images to train on     network      image size
    accelerator   under 20,000           ResNet-26    224
                  under 200,000          ResNet-50    224
                  more                   ResNet-101   224
    CPU           any number             ResNet-11    48 (half of the channels)

Few images do not fill a deep network, and a shallow one sees them more often in the same time. On
CPUs the time decides: at 224 px two cores train a ResNet-26 on some 5 images a second.

Epochs: 100 up to 1,000 images, 10 from 100,000 on, in between 100 * sqrt(1,000 / images), so that
the number of images seen grows with the square root of their number.

Hues: turned by up to a fifth of the colour circle, as in the pretraining of ML-Images, unless two
or more classes are colours; a single "orange" may be the fruit.

Crops: 0.7 to 1 of the area, as what is tagged are whole images. In runs of more than 200 epochs,
which overfit, also two operations of RandAugment (docs/benchmarks/learning.md).
"""

import math
from typing import Any, NamedTuple

from mlimages_jax.settings import config_file
from mlimages_jax.settings.fields import Values
from mlimages_jax.settings.tagger import Tagger
from mlimages_jax.step import augment

MOST_EPOCHS, FEWEST_EPOCHS = 100, 10
_IMAGES_OF_MOST_EPOCHS = 1_000
_DEPTHS = ((20_000, 26), (200_000, 50), (math.inf, 101))
_SMALL_NETWORK: dict[str, Any] = {
    "stage_sizes": (1, 1, 1), "stage_widths": (128, 256, 512), "stem_width": 32, "stem_kernel": 3,
}  # fmt: skip
_BATCH = {"cpu": 64}  # images per step of all devices together
_BATCH_OF_OTHERS = 256
_GROUP = 64  # fewer images give noisy BatchNorm statistics
_FEWEST_STEPS_AN_EPOCH = 8  # with few images, smaller batches give more updates
_AVERAGED = 0.05  # part of the run that the EMA weights average over
_MOST_DECAY = 0.9999
_EPOCHS_WITHOUT_RAND_AUGMENT = 200
_CROPS = (0.7, 1.0)
_OPERATIONS = 2


class Setting(NamedTuple):
    """The data set and the devices, on which the choices depend.

    Attributes:
        images: Number of training images.
        platform: cpu, gpu or tpu.
        devices: Number of devices.
        single_label: Whether every image has one class.
        colours: Number of classes that are colours.
    """

    images: int
    platform: str
    devices: int
    single_label: bool
    colours: int


def choose(config: Tagger, setting: Setting) -> dict[str, Any]:
    """Chooses the settings that are left open, except for the length of the run.

    Args:
        config: Settings of the task.
        setting: The data set and the devices.

    Returns:
        Values by dotted name, which are those of `config` where they are given.
    """
    batch = config.batch_size or _batch_size(setting)
    hue = 0.0 if setting.colours > 1 else augment.HUE
    values: dict[str, Any] = {
        "image_size": config.image_size or (48 if setting.platform == "cpu" else 224),
        "batch_size": batch,
        "group_size": config.group_size or (_GROUP if batch % _GROUP == 0 else batch),
        "model.dtype": config.model.dtype
        or ("float32" if setting.platform == "cpu" else "bfloat16"),
        "augmentation.hue": config.augmentation.hue if config.augmentation.hue >= 0 else hue,
        "loss.name": config.loss.name or ("softmax" if setting.single_label else "asymmetric"),
    }
    if not config.init_from:  # otherwise the network is that of the checkpoint
        values |= {
            f"model.{name}": getattr(config.model, name) or value
            for name, value in _network(config, setting).items()
        }
    return values


def epochs_for(images: int) -> float:
    """Returns the number of epochs for a number of images, see the module."""
    epochs = MOST_EPOCHS * math.sqrt(_IMAGES_OF_MOST_EPOCHS / max(images, 1))
    return min(max(epochs, FEWEST_EPOCHS), MOST_EPOCHS)


def length(config: Tagger, *, images: int, batch_size: int, steps_in_time: int | None) -> int:
    """Returns the number of steps.

    Args:
        config: Settings of the task.
        images: Number of training images.
        batch_size: Images per step.
        steps_in_time: Steps that `config.minutes` leave time for; None: any number.

    Returns:
        `config.total_steps` if it is set; else the steps in time, if there is a limit; else those
        of the epochs.
    """
    if config.total_steps:
        return config.total_steps
    epochs = config.epochs or epochs_for(images)
    steps = max(1, math.ceil(epochs * images / batch_size))
    if steps_in_time is None:
        return steps
    # If no number of epochs was asked for, the time is used up: more of them rarely harm.
    return max(1, min(steps, steps_in_time) if config.epochs else steps_in_time)


def ema_decay(total_steps: int) -> float:
    """Returns the decay whose average reaches over the last twentieth of a run."""
    return min(_MOST_DECAY, max(0.0, 1 - 1 / max(_AVERAGED * total_steps, 1)))


def augmentation(epochs: float) -> dict[str, Any]:
    """Returns the settings of crops and augmentation for a length, by name; see the module."""
    long = epochs > _EPOCHS_WITHOUT_RAND_AUGMENT
    return {"crop.area": _CROPS, "augmentation.rand_augment": _OPERATIONS if long else 0}


def best_metric(values: Values) -> str:
    """Returns the metric that decides which checkpoint is best; "" if nothing is evaluated.

    Args:
        values: Settings of a training, by name.
    """
    splits = values["evaluation.splits"]
    if not splits or not values["evaluate_every"]:
        return ""
    if len(values["evaluation.views"]) * max(len(values["evaluation.sizes"]), 1) > 1:
        return ""  # several evaluations of equal standing
    kind = "_averaged" if values["optimizer.ema_decay"] else ""
    metric = "top1" if values["loss.name"] == "softmax" else "mAP"
    return f"{splits[0]}{kind}/{metric}"


def _network(config: Tagger, setting: Setting) -> dict[str, Any]:
    """Returns the network's settings; one with another number of stages has widths to match."""
    if setting.platform == "cpu":
        network = _SMALL_NETWORK
    else:
        depth = next(depth for most, depth in _DEPTHS if setting.images < most)
        network = config_file.network(f"resnet{depth}")
    stages = len(config.model.stage_sizes or network["stage_sizes"])
    first = network["stage_widths"][0]
    return network | {"stage_widths": tuple(first * 2**stage for stage in range(stages))}


def _batch_size(setting: Setting) -> int:
    """Returns a power of two per device, so that whole groups fit."""
    most = _BATCH.get(setting.platform, _BATCH_OF_OTHERS)
    wanted = min(most, max(setting.images // _FEWEST_STEPS_AN_EPOCH, 8))

    per_device = 2 ** max(0, int(math.log2(max(wanted / setting.devices, 1))))
    return per_device * setting.devices
