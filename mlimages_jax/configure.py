# SPDX-License-Identifier: BSD-3-Clause
"""From configuration values to the objects that training needs.

Nothing below this module and the tasks sees a ConfigDict.
"""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from mlimages_jax import losses, optimizers, sharding
from mlimages_jax.calibration import calibrated_probability
from mlimages_jax.data import augment, mixing, rand_augment
from mlimages_jax.data.views import PROTOCOLS, EvaluationView, TrainingView
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.phases import Phase, make_phases
from mlimages_jax.steps import Mixing

# What a restart may change; everything else decides the result and must stay as it was saved.
FREE_TO_CHANGE = (
    "total_steps", "log_every", "evaluate_every", "evaluation", "checkpoint", "input",
    "sharding", "model.remat", "data.folder", "data.copy_to", "data.allow_change", "data_set",
    "task", "imported",
)  # fmt: skip

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


class ConfigError(ValueError):
    """A configuration that cannot run, or that contradicts the checkpoint."""


def model(config: ConfigDict, *, num_classes: int) -> ResNet:
    """The network of `config.model`, with the group size of the run.

    Raises:
        ConfigError: for a dtype that jax does not know.
    """
    arguments = dict(config.model)
    dtype = compute_dtype(arguments.pop("dtype"))
    for name in ("stage_sizes", "stage_widths"):
        arguments[name] = tuple(arguments[name])
    return ResNet(num_classes, group_size=config.group_size, dtype=dtype, **arguments)


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype of activations.

    Raises:
        ConfigError: for another one than float32 and bfloat16.
    """
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype={name!r} is neither 'float32' nor 'bfloat16'")
    return jnp.dtype(name)


def phases(config: ConfigDict) -> list[Phase]:
    """The parts of the training in which sizes stay the same.

    Raises:
        ConfigError: for sizes that groups do not divide, and for a change of batch under a loss
            that keeps counts.
    """
    try:
        parts = make_phases(
            image_size=config.image_size,
            batch_size=config.batch_size,
            total_steps=config.total_steps,
            resize=tuple(tuple(entry) for entry in config.resize),
        )
    except ValueError as error:
        raise ConfigError(f"config.resize: {error}") from error
    if config.loss.name == "weighted" and len({part.batch_size for part in parts}) > 1:
        raise ConfigError(
            "loss.name='weighted' counts the classes of every group from step to step, so the "
            "batch size in config.resize must stay the same"
        )
    if config.data.order == "streams" and len({part.batch_size for part in parts}) > 1:
        raise ConfigError(
            "data.order='streams' cuts the data set into batch_size / group_size streams, so the "
            "batch size in config.resize must stay the same"
        )
    return parts


def num_streams(config: ConfigDict) -> int:
    """How many streams the training set is cut into: one a group, or one in all.

    Raises:
        ConfigError: for an unknown order.
    """
    if config.data.order not in ("global", "streams"):
        raise ConfigError(f"data.order={config.data.order!r} is neither 'global' nor 'streams'")
    if config.data.order == "global":
        return 1
    return config.batch_size // (config.group_size or config.batch_size)


def loss(config: ConfigDict) -> tuple[losses.Loss, int | None]:
    """The loss of `config.loss`, and the number of groups it keeps counts for (None: no counts).

    Raises:
        ConfigError: for an unknown name, or groups that do not divide the batch.
    """
    function, arguments = _named(_LOSSES, config.loss, "loss")
    smoothing = arguments.get("label_smoothing", 0.0)
    if not 0 <= smoothing < 1:
        raise ConfigError(f"loss.softmax.label_smoothing={smoothing} must be in [0, 1)")
    if function is not losses.weighted_loss:
        return functools.partial(function, **arguments), None
    group_size = arguments.pop("group_size") or config.group_size or config.batch_size
    if config.batch_size % group_size:
        raise ConfigError(
            f"batch_size={config.batch_size} is not divisible by "
            f"loss.weighted.group_size={group_size}"
        )
    weighted = functools.partial(function, group_size=group_size, **arguments)
    return weighted, config.batch_size // group_size


def state_sharding(config: ConfigDict) -> dict[str, Any]:
    """How `config.sharding` cuts the state: `mode` and `min_size` of `state.abstract_state`.

    Raises:
        ConfigError: for an unknown name.
    """
    name = config.sharding.name
    if name not in sharding.MODES:
        raise ConfigError(f"sharding.name={name!r} is none of {', '.join(sharding.MODES)}")
    return {"mode": name, "min_size": config.sharding.min_size}


def evaluation_loss(saved: ConfigDict) -> losses.Loss:
    """The loss of a checkpoint's configuration, for evaluation, which knows no groups.

    Args:
        saved: with `loss.name` and, where the loss has arguments, a section of its name.

    Raises:
        ConfigError: for an unknown name.
    """
    function, arguments = _named(_LOSSES, saved.loss, "loss")
    arguments.pop("group_size", None)
    return functools.partial(function, **arguments)


def is_single_label(config: ConfigDict) -> bool:
    """Whether every picture has one class: the softmax loss says so."""
    return config.loss.name == "softmax"


def positive_weight(config: ConfigDict) -> float:
    """The weight of positive labels in the loss, for turning logits into probabilities."""
    return config.loss.weighted.positive_weight if config.loss.name == "weighted" else 1.0


def probabilities(config: ConfigDict) -> Callable[[np.ndarray], np.ndarray]:
    """From logits float32 [n, C] to probabilities of the classes, by the loss they come from."""
    if is_single_label(config):
        import scipy.special  # here: other losses and most starts do without

        return functools.partial(scipy.special.softmax, axis=-1)
    return functools.partial(calibrated_probability, positive_weight=positive_weight(config))


def schedule(config: ConfigDict) -> optimizers.Schedule:
    """The learning rate by step, from `config.schedule`.

    Raises:
        ConfigError: for an unknown name.
    """
    function, arguments = _named(_SCHEDULES, config.schedule, "schedule")
    return function(**arguments)


def learning_rate_factors(config: ConfigDict, params: Any) -> Any:
    """What multiplies the learning rate of every leaf; frozen ones have 0.

    Raises:
        ConfigError: for a pattern that matches nothing.
    """
    values = config.optimizer
    pairs = tuple(tuple(pair) for pair in values.learning_rate_factors)
    if any(len(pair) != 2 for pair in pairs):
        raise ConfigError(f"optimizer.learning_rate_factors={pairs}: give (pattern, factor) pairs")
    try:
        return optimizers.learning_rate_factors(params, freeze=tuple(values.freeze), factors=pairs)
    except ValueError as error:
        raise ConfigError(f"optimizer.freeze or learning_rate_factors: {error}") from error


def optimizer(config: ConfigDict, params: Any) -> optax.GradientTransformation:
    """SGD as `config.optimizer` says, for parameters (or their shapes) of this tree.

    Raises:
        ConfigError: for a pattern that matches nothing.
    """
    values = config.optimizer
    decay = optimizers.decay_factors(
        params, weight_decay=values.weight_decay, norm_weight_decay=values.norm_weight_decay
    )
    return optimizers.sgd_momentum(
        momentum=values.momentum,
        decay=decay,
        nesterov=values.nesterov,
        factors=learning_rate_factors(config, params),
    )


def training_view(config: ConfigDict, *, image_size: int) -> TrainingView:
    """How training pictures are cut, from `config.crop`, and distorted on the host.

    Raises:
        ConfigError: for a magnitude out of range.
    """
    crop, values = config.crop, config.augmentation
    distort = None
    if values.rand_augment:
        distort = functools.partial(
            rand_augment.rand_augment, num_ops=values.rand_augment, magnitude=values.magnitude
        )
        try:
            distort(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0))
        except ValueError as error:
            raise ConfigError(f"config.augmentation: {error}") from error
    return TrainingView(
        image_size,
        area=tuple(crop.area),
        aspect=tuple(crop.aspect),
        interpolation=crop.interpolation,
        flip=crop.flip,
        distort=distort,
    )


def augmentation(config: ConfigDict) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Colour and rotation, on the device."""
    values = config.augmentation
    return functools.partial(
        augment.pretrain_augment, colour=values.colour, rotation=values.rotation
    )


def mixup_and_cutmix(config: ConfigDict) -> Mixing | None:
    """Mixup and CutMix, on the device; None when both are off.

    Raises:
        ConfigError: for a negative alpha, and for groups without a second picture to mix with.
    """
    values = config.augmentation
    if min(values.mixup, values.cutmix) < 0:
        raise ConfigError(f"augmentation.mixup={values.mixup}, cutmix={values.cutmix}: 0 or more")
    if not (values.mixup or values.cutmix):
        return None
    if config.group_size == 1:
        raise ConfigError("mixup and cutmix mix pictures of a group: group_size=1 has no second")
    return functools.partial(
        mixing.mix,
        mixup_alpha=values.mixup,
        cutmix_alpha=values.cutmix,
        group_size=config.group_size or None,
    )


def evaluation_views(evaluation: ConfigDict, *, image_size: int) -> list[EvaluationView]:
    """How evaluation pictures are cut: every protocol at every size.

    Args:
        evaluation: with `sizes` and `protocols`.
        image_size: where `sizes` is empty.

    Raises:
        ConfigError: for an unknown protocol, or none.
    """
    for protocol in evaluation.protocols:
        if protocol not in PROTOCOLS:
            raise ConfigError(
                f"evaluation.protocols has {protocol!r}, which is none of {', '.join(PROTOCOLS)}"
            )
    if not evaluation.protocols:
        raise ConfigError(f"evaluation.protocols is empty: name some of {', '.join(PROTOCOLS)}")
    sizes = tuple(evaluation.sizes) or (image_size,)
    return [EvaluationView(size, name) for name in evaluation.protocols for size in sizes]


def values(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON values, as it is stored in a workdir and in checkpoints."""
    return json.loads(config.to_json())


def check_unchanged(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Compares the configuration with the one a checkpoint was trained with.

    A checkpoint that another program trained says so by `imported`; of it only the values that
    are known are compared.

    Raises:
        ConfigError: lists every value that differs and decides the result.
    """
    old, new = _flatten(saved), _flatten(current)
    names = old.keys() if "imported" in saved else old.keys() | new.keys()
    lines = [
        f"  {name}: {old.get(name)!r} in the checkpoint, {new.get(name)!r} now"
        for name in sorted(names)
        if old.get(name) != new.get(name) and not _is_free(name)
    ]
    if lines:
        raise ConfigError(
            "the configuration differs from the checkpoint's; give the old values, or another "
            "--workdir to start anew (with --config.init_from to begin from these parameters):\n"
            + "\n".join(lines)
        )


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE_TO_CHANGE)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _named(choices: dict[str, Any], section: ConfigDict, title: str) -> tuple[Any, dict[str, Any]]:
    """What `section.name` chooses, and its arguments: the values under that name, if any."""
    if section.name not in choices:
        raise ConfigError(f"{title}.name={section.name!r} is none of {sorted(choices)}")
    return choices[section.name], dict(section.get(section.name, {}))
