# SPDX-License-Identifier: BSD-3-Clause
"""From configuration values to the objects that training needs.

Nothing below this module and the tasks sees a ConfigDict.
"""

import functools
import json
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mlimages_jax import losses, optimizers
from mlimages_jax.data.pipeline import EvaluationView, TrainingView
from mlimages_jax.models.resnet import ResNet

# What a restart may change; everything else decides the result and must stay as it was saved.
FREE_TO_CHANGE = (
    "total_steps", "log_every", "evaluate_every", "evaluation", "checkpoint", "input",
    "fsdp_min_size", "model.remat", "data.folder", "task",
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
    dtype = arguments.pop("dtype")
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"model.dtype={dtype!r} is neither 'float32' nor 'bfloat16'")
    for name in ("stage_sizes", "stage_widths"):
        arguments[name] = tuple(arguments[name])
    return ResNet(num_classes, group_size=config.group_size, dtype=jnp.dtype(dtype), **arguments)


def loss(config: ConfigDict) -> tuple[losses.Loss, int | None]:
    """The loss of `config.loss`, and the number of groups it keeps counts for (None: no counts).

    Raises:
        ConfigError: for an unknown name, or groups that do not divide the batch.
    """
    function, arguments = _named(_LOSSES, config.loss, "loss")
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


def positive_weight(config: ConfigDict) -> float:
    """The weight of positive labels in the loss, for turning logits into probabilities."""
    return config.loss.weighted.positive_weight if config.loss.name == "weighted" else 1.0


def schedule(config: ConfigDict) -> optimizers.Schedule:
    """The learning rate by step, from `config.schedule`.

    Raises:
        ConfigError: for an unknown name.
    """
    function, arguments = _named(_SCHEDULES, config.schedule, "schedule")
    return function(**arguments)


def optimizer(config: ConfigDict, params: Any) -> optax.GradientTransformation:
    """SGD as `config.optimizer` says, for parameters (or their shapes) of this tree."""
    values = config.optimizer
    decay = optimizers.decay_factors(
        params, weight_decay=values.weight_decay, norm_weight_decay=values.norm_weight_decay
    )
    return optimizers.sgd_momentum(momentum=values.momentum, decay=decay, nesterov=values.nesterov)


def training_view(config: ConfigDict) -> TrainingView:
    """How training pictures are cut, from `config.crop`."""
    crop = config.crop
    return TrainingView(
        config.image_size,
        area=tuple(crop.area),
        aspect=tuple(crop.aspect),
        interpolation=crop.interpolation,
        flip=crop.flip,
    )


def evaluation_view(config: ConfigDict) -> EvaluationView:
    """How evaluation pictures are cut.

    Raises:
        ConfigError: for an unknown protocol.
    """
    protocol = config.evaluation.protocol
    if protocol not in ("central", "short_side", "whole"):
        raise ConfigError(
            f"evaluation.protocol={protocol!r} is none of 'central', 'short_side', 'whole'"
        )
    return EvaluationView(config.image_size, protocol)


def values(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON values, as it is stored in a workdir and in checkpoints."""
    return json.loads(config.to_json())


def check_unchanged(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Compares the configuration with the one a checkpoint was trained with.

    Raises:
        ConfigError: lists every value that differs and decides the result.
    """
    old, new = _flatten(saved), _flatten(current)
    lines = [
        f"  {name}: {old.get(name)!r} in the checkpoint, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
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
