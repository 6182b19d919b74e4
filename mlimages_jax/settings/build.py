# SPDX-License-Identifier: BSD-3-Clause
"""Creates the objects that training needs from validated settings."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh

from mlimages_jax.data.images import rand_augment
from mlimages_jax.data.images.views import EvaluationView, TrainingView
from mlimages_jax.models.depths import STAGE_SIZES, STAGE_WIDTHS, STEM_KERNEL, STEM_WIDTH
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.settings import ConfigError, Train, fields, resolved
from mlimages_jax.settings.build_loss import evaluation_loss as evaluation_loss
from mlimages_jax.settings.build_loss import frequency_weights as frequency_weights
from mlimages_jax.settings.build_loss import is_single_label as is_single_label
from mlimages_jax.settings.build_loss import loss as loss
from mlimages_jax.settings.build_loss import named
from mlimages_jax.settings.build_loss import positive_weight as positive_weight
from mlimages_jax.settings.build_loss import prior_logits as prior_logits
from mlimages_jax.settings.build_loss import probabilities as probabilities
from mlimages_jax.settings.build_loss import saved_loss as saved_loss
from mlimages_jax.settings.optimization import Schedule
from mlimages_jax.settings.training import Evaluation
from mlimages_jax.step import augment, mixing, optimizers
from mlimages_jax.step.accumulation import Accumulation
from mlimages_jax.step.stages import Stage, make_stages
from mlimages_jax.step.state import abstract_state, abstract_variables
from mlimages_jax.step.steps import Mixing
from mlimages_jax.step.training_step import TrainingStep

_SCHEDULES: dict[str, Any] = {
    "pretraining": optimizers.pretraining_schedule,
    "staircase": optimizers.staircase_schedule,
    "cosine": optimizers.cosine_schedule,
    "linear": optimizers.linear_schedule,
    "constant": optimizers.constant_schedule,
    "one_cycle": optimizers.one_cycle_schedule,
}


# Sizes left open by the configuration and by every checkpoint: those of the released ResNet-101.
OPEN_NETWORK: dict[str, Any] = {
    "stage_sizes": STAGE_SIZES[101],
    "stage_widths": STAGE_WIDTHS,
    "stem_width": STEM_WIDTH,
    "stem_kernel": STEM_KERNEL,
}


def model(config: Train, *, num_classes: int) -> ResNet:
    """Creates the network of `config.model` with the group size of the run."""
    arguments = dataclasses.asdict(config.model)
    # Plans see configurations before `open_network` has filled these from a checkpoint.
    arguments |= {name: arguments[name] or value for name, value in OPEN_NETWORK.items()}
    dtype = compute_dtype(arguments.pop("dtype"))
    return ResNet(num_classes, group_size=config.group_size, dtype=dtype, **arguments)


def compute_dtype(name: str) -> jnp.dtype:
    """Returns the dtype of activations.

    Raises:
        ConfigError: The name is neither float32 nor bfloat16.
    """
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype={name!r} is neither 'float32' nor 'bfloat16'")
    return jnp.dtype(name)


def stages(config: Train) -> list[Stage]:
    """Returns the stages of the training, in which sizes are constant."""
    config = resolved(config)
    return make_stages(
        image_size=config.image_size,
        batch_size=config.batch_size,
        total_steps=config.total_steps,
        resize=config.resize,
    )


def num_streams(config: Train) -> int:
    """Returns the number of streams of the training set: one per group, or a single one."""
    if config.data.order == "global":
        return 1
    return config.batch_size // (config.group_size or config.batch_size)


def state_sharding(config: Train) -> dict[str, Any]:
    """Returns `mode` and `min_size` of `state.abstract_state` from `config.sharding`."""
    return {"mode": config.sharding.name, "min_size": config.sharding.min_size}


def schedule(config: Train) -> optimizers.Schedule:
    """Returns the function from step to learning rate of `config.schedule`."""
    return _schedule(resolved(config).schedule)


def saved_schedule(saved: Mapping[str, Any]) -> optimizers.Schedule:
    """Returns the same function for the `schedule` of a checkpoint, which has no fractions."""
    return _schedule(fields.build(Schedule, fields.flatten(saved)))


def _schedule(section: Schedule) -> optimizers.Schedule:
    function, arguments = named(_SCHEDULES, section, "schedule")
    return function(**arguments)


def lr_multipliers(config: Train, params: Any) -> Any:
    """Returns the learning-rate multiplier of every leaf; 0 if it is frozen.

    Raises:
        ConfigError: A pattern matches no parameter.
    """
    values = config.optimizer
    try:
        return optimizers.lr_multipliers(
            params, freeze=values.freeze, multipliers=values.lr_multipliers
        )
    except ValueError as error:
        raise ConfigError(f"optimizer.freeze or lr_multipliers: {error}") from error


def first_steps(config: Train, params: Any) -> Any:
    """Returns the step from which every leaf is trained; None if all are from the first.

    Raises:
        ConfigError: A pattern matches no parameter.
    """
    if not config.optimizer.unfreeze:
        return None
    try:
        return optimizers.first_steps(params, config.optimizer.unfreeze)
    except ValueError as error:
        raise ConfigError(f"optimizer.unfreeze: {error}") from error


def optimizer(config: Train, params: Any) -> optax.GradientTransformation:
    """Creates the optimizer of `config.optimizer` for a tree of parameters or their shapes.

    Raises:
        ConfigError: A pattern matches no parameter.
    """
    values = config.optimizer
    arguments = {
        "decay": optimizers.decay_factors(
            params, weight_decay=values.weight_decay, norm_weight_decay=values.norm_weight_decay
        ),
        "factors": lr_multipliers(config, params),
        "clip_norm": values.clip_norm,
    }
    if values.name == "sgd":
        return optimizers.sgd_momentum(
            momentum=values.momentum, nesterov=values.nesterov, **arguments
        )
    return optimizers.adaptive(
        values.name,
        beta1=values.beta1,
        beta2=values.beta2,
        epsilon=values.epsilon,
        **arguments,
    )


def accumulation(config: Train, *, devices: int) -> Accumulation | None:
    """Returns the division of a batch into parts; None computes it all at once.

    Raises:
        ConfigError: Parts, devices or groups do not divide a batch size.
    """
    if config.accumulate == 1:
        return None
    groups = [config.group_size or config.batch_size]
    if own := getattr(getattr(config.loss, config.loss.name, None), "group_size", 0):
        groups.append(own)
    # The least common multiple: a part must have whole groups of BatchNorm and of the loss.
    parts = Accumulation(config.accumulate, unit=math.lcm(*groups), devices=devices)
    try:
        for stage in stages(config):
            parts.check(stage.batch_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return parts


def training_view(config: Train, *, image_size: int) -> TrainingView:
    """Returns the crop of `config.crop` with the augmentation that runs on the host."""
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
    """Returns the colour and rotation augmentation, which runs on the device."""
    values = config.augmentation
    return functools.partial(
        augment.pretrain_augment, colour=values.colour, hue=values.hue, rotation=values.rotation
    )


def mixup_and_cutmix(config: Train) -> Mixing | None:
    """Returns mixup and CutMix, which run on the device; None if both are off."""
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
    """Returns every view at every size of an evaluation.

    Args:
        evaluation: Settings of the evaluation.
        image_size: Size to use if they name none.
    """
    sizes = evaluation.sizes or (image_size,)
    return [EvaluationView(size, name) for name in evaluation.views for size in sizes]


def training_step(
    config: Train,
    mesh: Mesh | AbstractMesh,
    *,
    num_classes: int,
    missing_labels: float = 0.0,
    priors: np.ndarray | None = None,
) -> TrainingStep:
    """Creates the training step of a run: model, loss, optimizer and layout of the state.

    Args:
        config: Settings of the training.
        mesh: Mesh of devices. An abstract mesh gives shapes, but nothing can be compiled for it.
        num_classes: Number of classes, C.
        missing_labels: Target of classes missing from an image's labels, 0 or -1.
        priors: As for `loss`.

    Raises:
        ConfigError: Values contradict each other, or a pattern matches no parameter.
    """
    network = model(config, num_classes=num_classes)
    batch_loss, count_groups = loss(config, priors)
    # Only names and shapes, which patterns of parameters refer to.
    parameters = abstract_variables(network, config.image_size)["params"]
    transformation = optimizer(config, parameters)
    initial: dict[str, Any] = {
        "image_size": config.image_size,
        "count_groups": count_groups,
        "keep_ema": config.optimizer.ema_decay > 0,
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
            "first_steps": first_steps(config, parameters),
            "ema_decay": config.optimizer.ema_decay,
            "seed": config.seed,
            "missing_labels": missing_labels,
            "accumulation": accumulation(config, devices=mesh.size),
        },
        initial=initial,
        abstract_state=abstract_state(
            network, transformation, mesh=mesh, **state_sharding(config), **initial
        ),
        mesh=mesh,
    )
