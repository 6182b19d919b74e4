# SPDX-License-Identifier: BSD-3-Clause
"""From settings, which were judged, to the objects that training needs."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh

from mlimages_jax.data.images import rand_augment
from mlimages_jax.data.images.views import EvaluationView, TrainingView
from mlimages_jax.metrics.calibration import calibrated_probability
from mlimages_jax.models.depths import STAGE_SIZES, STAGE_WIDTHS, STEM_KERNEL, STEM_WIDTH
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.settings import ConfigError, Train, fields, resolved
from mlimages_jax.settings.training import Evaluation, Loss, Schedule
from mlimages_jax.step import augment, losses, mixing, optimizers
from mlimages_jax.step.stages import Stage, make_stages
from mlimages_jax.step.state import abstract_state
from mlimages_jax.step.steps import Mixing
from mlimages_jax.step.training_step import TrainingStep

_LOSSES: dict[str, Any] = {
    "weighted": losses.weighted_loss,
    "sigmoid": losses.plain_sigmoid_cross_entropy,
    "asymmetric": losses.asymmetric_loss,
    "softmax": losses.softmax_cross_entropy,
}
_SCHEDULES: dict[str, Any] = {
    "pretraining": optimizers.pretraining_schedule,
    "staircase": optimizers.staircase_schedule,
    "cosine": optimizers.cosine_schedule,
}


# Where the configuration leaves a size open and no checkpoint says it: the release's ResNet-101.
OPEN_NETWORK: dict[str, Any] = {
    "stage_sizes": STAGE_SIZES[101],
    "stage_widths": STAGE_WIDTHS,
    "stem_width": STEM_WIDTH,
    "stem_kernel": STEM_KERNEL,
}


def model(config: Train, *, num_classes: int) -> ResNet:
    """The network of `config.model`, with the group size of the run."""
    arguments = dataclasses.asdict(config.model)
    arguments |= {name: arguments[name] or value for name, value in OPEN_NETWORK.items()}
    dtype = compute_dtype(arguments.pop("dtype"))
    return ResNet(num_classes, group_size=config.group_size, dtype=dtype, **arguments)


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of activations.

    Raises:
        ConfigError: For another one than float32 and bfloat16.
    """
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype={name!r} is neither 'float32' nor 'bfloat16'")
    return jnp.dtype(name)


def stages(config: Train) -> list[Stage]:
    """The parts of the training in which sizes stay the same."""
    config = resolved(config)
    return make_stages(
        image_size=config.image_size,
        batch_size=config.batch_size,
        total_steps=config.total_steps,
        resize=config.resize,
    )


def num_streams(config: Train) -> int:
    """How many streams the training set is cut into: one a group, or one in all."""
    if config.data.order == "global":
        return 1
    return config.batch_size // (config.group_size or config.batch_size)


def loss(config: Train) -> tuple[losses.Loss, int | None]:
    """The loss of `config.loss`, and the number of groups it keeps counts for (None: no counts)."""
    function, arguments = _named(_LOSSES, config.loss, "loss")
    if function is not losses.weighted_loss:
        return functools.partial(function, **arguments), None
    group_size = arguments.pop("group_size") or config.group_size or config.batch_size
    weighted = functools.partial(function, group_size=group_size, **arguments)
    return weighted, config.batch_size // group_size


def state_sharding(config: Train) -> dict[str, Any]:
    """How `config.sharding` cuts the state: `mode` and `min_size` of `state.abstract_state`."""
    return {"mode": config.sharding.name, "min_size": config.sharding.min_size}


def saved_loss(saved: Mapping[str, Any]) -> Loss:
    """The loss of a checkpoint's settings; `name` is "" where they do not say it."""
    said = {"name": ""} | fields.flatten(saved.get("loss", {}))
    return fields.build(Loss, said)


def evaluation_loss(section: Loss) -> losses.Loss:
    """A loss for evaluation, which knows no groups.

    Raises:
        ConfigError: For an unknown name.
    """
    function, arguments = _named(_LOSSES, section, "loss")
    arguments.pop("group_size", None)
    return functools.partial(function, **arguments)


def is_single_label(section: Loss) -> bool:
    """Whether every image has one class: the softmax loss says so."""
    return section.name == "softmax"


def positive_weight(section: Loss) -> float:
    """The weight of positive labels in the loss, for turning logits into probabilities."""
    return section.weighted.positive_weight if section.name == "weighted" else 1.0


def probabilities(section: Loss) -> Callable[[np.ndarray], np.ndarray]:
    """From logits float32 [n, C] to probabilities of the classes, by the loss they come from."""
    if is_single_label(section):
        import scipy.special  # here: other losses and most starts do without

        return functools.partial(scipy.special.softmax, axis=-1)
    return functools.partial(calibrated_probability, positive_weight=positive_weight(section))


def schedule(config: Train) -> optimizers.Schedule:
    """The learning rate by step, from `config.schedule`."""
    return _schedule(resolved(config).schedule)


def saved_schedule(saved: Mapping[str, Any]) -> optimizers.Schedule:
    """The learning rate by step, from the `schedule` of a checkpoint, whose steps are numbers."""
    return _schedule(fields.build(Schedule, fields.flatten(saved)))


def _schedule(section: Schedule) -> optimizers.Schedule:
    function, arguments = _named(_SCHEDULES, section, "schedule")
    return function(**arguments)


def lr_multipliers(config: Train, params: Any) -> Any:
    """What multiplies the learning rate of every leaf; frozen ones have 0.

    Raises:
        ConfigError: For a pattern that matches nothing.
    """
    values = config.optimizer
    try:
        return optimizers.lr_multipliers(
            params, freeze=values.freeze, multipliers=values.lr_multipliers
        )
    except ValueError as error:
        raise ConfigError(f"optimizer.freeze or lr_multipliers: {error}") from error


def optimizer(config: Train, params: Any) -> optax.GradientTransformation:
    """SGD as `config.optimizer` says, for parameters (or their shapes) of this tree.

    Raises:
        ConfigError: For a pattern that matches nothing.
    """
    values = config.optimizer
    decay = optimizers.decay_factors(
        params, weight_decay=values.weight_decay, norm_weight_decay=values.norm_weight_decay
    )
    return optimizers.sgd_momentum(
        momentum=values.momentum,
        decay=decay,
        nesterov=values.nesterov,
        factors=lr_multipliers(config, params),
    )


def training_view(config: Train, *, image_size: int) -> TrainingView:
    """How training images are cut, from `config.crop`, and distorted on the host."""
    crop, values = config.crop, config.augmentation
    distort = None
    if values.rand_augment:
        distort = functools.partial(
            rand_augment.rand_augment, num_ops=values.rand_augment, magnitude=values.magnitude
        )
    return TrainingView(
        image_size,
        area=crop.area,
        aspect=crop.aspect,
        interpolation=crop.interpolation,
        flip=crop.flip,
        distort=distort,
    )


def augmentation(config: Train) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Colour and rotation, on the device."""
    values = config.augmentation
    return functools.partial(
        augment.pretrain_augment, colour=values.colour, rotation=values.rotation
    )


def mixup_and_cutmix(config: Train) -> Mixing | None:
    """Mixup and CutMix, on the device; None when both are off."""
    values = config.augmentation
    if not (values.mixup or values.cutmix):
        return None
    return functools.partial(
        mixing.mix,
        mixup_alpha=values.mixup,
        cutmix_alpha=values.cutmix,
        group_size=config.group_size or None,
    )


def evaluation_views(evaluation: Evaluation, *, image_size: int) -> list[EvaluationView]:
    """How evaluation images are cut: every view at every size.

    Args:
        evaluation: Says which.
        image_size: Where it names no sizes.
    """
    sizes = evaluation.sizes or (image_size,)
    return [EvaluationView(size, name) for name in evaluation.views for size in sizes]


def training_step(
    config: Train, mesh: Mesh | AbstractMesh, *, num_classes: int, missing_labels: float = 0.0
) -> TrainingStep:
    """What a run trains, and how, from its configuration.

    Args:
        config: Settings of the training.
        mesh: Of devices, or of devices that need not exist, which nothing can be compiled for.
        num_classes: C.
        missing_labels: The target of a class that an image does not list, 0 or -1.

    Raises:
        ConfigError: For values that cannot be.
    """
    network = model(config, num_classes=num_classes)
    batch_loss, count_groups = loss(config)
    side = config.image_size
    images = jnp.zeros((1, side, side, 3))
    parameters = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    transformation = optimizer(config, parameters)
    initial: dict[str, Any] = {
        "image_size": side,
        "count_groups": count_groups,
        "averaged": config.optimizer.ema_decay > 0,
    }
    return TrainingStep(
        model=network,
        loss=batch_loss,
        optimizer=transformation,
        settings={
            "schedule": schedule(config),
            "augmentation": augmentation(config),
            "mixing": mixup_and_cutmix(config),
            "factors": lr_multipliers(config, parameters),
            "ema_decay": config.optimizer.ema_decay,
            "seed": config.seed,
            "missing_labels": missing_labels,
        },
        initial=initial,
        abstract_state=abstract_state(
            network, transformation, mesh=mesh, **state_sharding(config), **initial
        ),
        mesh=mesh,
    )


def _named(
    choices: dict[str, Any], section: Loss | Schedule, title: str
) -> tuple[Any, dict[str, Any]]:
    """What `section.name` chooses, and its arguments: the values under that name, if any."""
    if section.name not in choices:
        raise ConfigError(f"{title}.name={section.name!r} is none of {sorted(choices)}")
    arguments = getattr(section, section.name, None)  # a loss may have none
    return choices[section.name], dataclasses.asdict(arguments) if arguments else {}
