# SPDX-License-Identifier: BSD-3-Clause
"""Creates losses from validated settings, and everything else that follows from their choice."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlimages_jax.metrics.calibration import calibrated_probability
from mlimages_jax.settings import ConfigError, Train, fields
from mlimages_jax.settings.losses import Loss
from mlimages_jax.settings.optimization import Schedule
from mlimages_jax.step import losses
from mlimages_jax.step.two_way_loss import two_way_loss

_LOSSES: dict[str, Any] = {
    "weighted": losses.weighted_loss,
    "sigmoid": losses.plain_sigmoid_cross_entropy,
    "asymmetric": losses.asymmetric_loss,
    "focal": losses.focal_loss,
    "two_way": two_way_loss,
    "softmax": losses.softmax_cross_entropy,
}


def loss(config: Train, priors: np.ndarray | None = None) -> tuple[losses.Loss, int | None]:
    """Returns the loss of `config.loss` and its number of groups with counts (None: no counts).

    Args:
        config: Settings of the training.
        priors: Mean target of every class, float64 [C] in (0, 1), for `loss.positive_weight`; None
            leaves its weights out, in plans, which know no data set.
    """
    function, arguments = named(_LOSSES, config.loss, "loss")
    if config.loss.positive_weight and priors is not None:
        arguments["positive_weights"] = frequency_weights(
            priors, limit=config.loss.positive_weight_limit
        )
    groups = None
    if "group_size" in arguments:
        size = arguments["group_size"] or config.group_size or config.batch_size
        # None means the full batch, of any size: later stages may have another one. The weighted
        # loss needs the number, since its counters have one row per group.
        is_batch = size == config.batch_size and function is not losses.weighted_loss
        arguments["group_size"] = None if is_batch else size
        groups = config.batch_size // size if function is losses.weighted_loss else None
    return functools.partial(function, **arguments), groups


def frequency_weights(priors: np.ndarray, *, limit: float) -> np.ndarray:
    """Weights of present labels that balance every class: (1 - p) / p, bounded.

    Unbounded, present and absent labels of each class have the same total weight: the weighting of
    King and Zeng, "Logistic Regression in Rare Events Data", Political Analysis, 2001, for equal
    shares. For rare classes a few images would then outweigh all others, hence the limit.

    Args:
        priors: Mean target of every class, float64 [C] in (0, 1).
        limit: Weights are between 1 / limit and limit.

    Returns:
        float32 [C].
    """
    return np.clip((1 - priors) / priors, 1 / limit, limit).astype(np.float32)


def saved_loss(saved: Mapping[str, Any]) -> Loss:
    """Returns the loss settings of a checkpoint; `name` is "" if they are unknown."""
    said = {"name": ""} | fields.flatten(saved.get("loss", {}))  # imported checkpoints have none
    return fields.build(Loss, said)


def evaluation_loss(section: Loss) -> losses.Loss:
    """Returns a loss for evaluation, which has no groups.

    Raises:
        ConfigError: The name of the loss is unknown.
    """
    function, arguments = named(_LOSSES, section, "loss")
    arguments.pop("group_size", None)
    return functools.partial(function, **arguments)


def is_single_label(section: Loss) -> bool:
    """Returns whether every image has exactly one class, which the softmax loss implies."""
    return section.name == "softmax"


def positive_weight(section: Loss) -> float:
    """Returns the loss's weight of positive labels, needed to calibrate probabilities."""
    return section.weighted.positive_weight if section.name == "weighted" else 1.0


def prior_logits(section: Loss, priors: np.ndarray) -> np.ndarray:
    """Returns the logits at which a constant prediction has the least loss.

    The focal and the asymmetric loss have no closed form for theirs; that of the cross-entropy
    serves them.

    Args:
        section: The loss.
        priors: Mean target of every class, float64 [C] in (0, 1).

    Returns:
        float32 [C]: log p for softmax; log p / (1 - p) for several labels, plus log w where the
        loss gives positive labels the weight w.
    """
    if is_single_label(section):
        return np.log(priors / priors.sum()).astype(np.float32)
    odds = priors / (1 - priors)
    return np.log(positive_weight(section) * odds).astype(np.float32)


def probabilities(section: Loss) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from logits, float32 [n, C], to probabilities for this loss."""
    if is_single_label(section):
        import scipy.special  # imported here because other losses do not need SciPy

        return functools.partial(scipy.special.softmax, axis=-1)
    return functools.partial(calibrated_probability, positive_weight=positive_weight(section))


def named(
    choices: dict[str, Any], section: Loss | Schedule, title: str
) -> tuple[Any, dict[str, Any]]:
    """Returns the choice of `section.name` and its arguments, the section of that name.

    Raises:
        ConfigError: There is no choice of that name.
    """
    if section.name not in choices:
        raise ConfigError(f"{title}.name={section.name!r} is none of {sorted(choices)}")
    arguments = getattr(section, section.name, None)  # a loss may have none
    return choices[section.name], dataclasses.asdict(arguments) if arguments else {}
