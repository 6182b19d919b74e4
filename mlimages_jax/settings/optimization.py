# SPDX-License-Identifier: BSD-3-Clause
"""Settings of the learning rate and of the optimizer of a training."""

from dataclasses import dataclass
from typing import TypeAlias

from mlimages_jax.settings.compound_rules import Records, Several
from mlimages_jax.settings.fields import setting
from mlimages_jax.settings.rules import BELOW_ONE, Choice, Flag, Number, Steps, Text

StepCount: TypeAlias = int  # may be given as a fraction, which `resolved` converts to whole steps

_FACTOR = Number(0.0, 1.0, above=True)
_RATE = Number(0.0)
_WARMUP = Steps(zero="no warm-up", round_down=True)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """The schedule of the release: an exponential warm-up, then a staircase."""

    learning_rate: float = setting(_RATE, "Rate after the warm-up (train.sh: lr, 0.08).")
    decay_steps: StepCount = setting(
        Steps(), "Steps between drops (train.sh: lr_decay_step, 110,000)."
    )
    decay_factor: float = setting(_FACTOR, "Factor of each drop (train.py).", default=0.1)
    warmup_steps: StepCount = setting(_WARMUP, "Length of the warm-up (train.sh: 8 epochs).")
    warmup_learning_rate: float = setting(_RATE, "Initial rate (train.sh: lr_warmup, 0.01).")
    warmup_decay_steps: StepCount = setting(
        Steps(), "Steps between rises during the warm-up (train.sh: one epoch)."
    )
    warmup_decay_factor: float = setting(
        Number(0.0, above=True), "Factor of each rise (train.sh: 1.297; 0.01 * 1.297^8 = 0.08)."
    )


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """A rate that drops by a factor at regular intervals."""

    learning_rate: float = setting(_RATE, "Initial rate (finetune.sh: lr, 0.1).")
    decay_steps: StepCount = setting(
        Steps(), "Steps between drops (finetune.sh: lr_decay_step, 150,000)."
    )
    decay_factor: float = setting(
        _FACTOR, "Factor of each drop (finetune.sh: lr_decay_factor).", default=0.1
    )


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A linear warm-up, then the same rate to the end."""

    learning_rate: float = setting(_RATE, "Rate after the warm-up.")
    warmup_steps: StepCount = setting(_WARMUP, "Length of the warm-up.", default=0)


@dataclass(frozen=True, kw_only=True)
class Cosine(Constant):
    """A linear warm-up, then half a cosine down to 0."""

    total_steps: StepCount = setting(
        Steps(zero="config.total_steps", zero_is_all=True),
        "Step at which the rate is 0.",
        default=0,
    )


@dataclass(frozen=True, kw_only=True)
class Linear(Cosine):
    """A linear warm-up, then a straight line down to 0."""


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Half a cosine up, then half a cosine down (Smith and Topin, 2018)."""

    learning_rate: float = setting(_RATE, "Highest rate.")
    warmup_steps: StepCount = setting(_WARMUP, "Length of the rise.", default=0.3)
    total_steps: StepCount = setting(
        Steps(zero="config.total_steps", zero_is_all=True),
        "Step at which the rate is lowest.",
        default=0,
    )
    initial_divisor: float = setting(
        Number(1.0), "The first rate is the highest one divided by this.", default=25.0
    )
    final_divisor: float = setting(
        Number(1.0), "The last rate is the first one divided by this.", default=1e4
    )


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate."""

    name: str = setting(
        Choice(("pretraining", "staircase", "cosine", "linear", "constant", "one_cycle")),
        "Name of the schedule; its section has the arguments.",
    )
    pretraining: Pretraining | None = None
    staircase: Staircase | None = None
    cosine: Cosine | None = None
    linear: Linear | None = None
    constant: Constant | None = None
    one_cycle: OneCycle | None = None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The optimizer, which turns gradients into updates.

    sgd is the original's. adamw needs rates around 1e-3 and a decay around 0.01; lamb was made for
    batches of many thousands (You et al., 2020); lion has half of adamw's slots, and rates 3 to 10
    times smaller in its paper (Chen et al., 2023).
    """

    name: str = setting(
        Choice(("sgd", "adamw", "lamb", "lion")), "Name of the optimizer.", default="sgd"
    )
    beta1: float = setting(
        BELOW_ONE, "Decay of the mean of gradients: adamw, lamb, lion.", default=0.9
    )
    beta2: float = setting(
        BELOW_ONE,
        "Decay of the mean of their squares: adamw, lamb; of lion's second mean, usually 0.99.",
        default=0.999,
    )
    epsilon: float = setting(
        Number(0.0, above=True), "Added to the root of that mean: adamw, lamb.", default=1e-8
    )
    clip_norm: float = setting(
        Number(0.0),
        "Maximum norm of the gradient of all parameters, without decay; 0: not clipped.",
        default=0.0,
    )
    momentum: float = setting(BELOW_ONE, "Momentum of sgd (flags.py: opt_momentum).", default=0.9)
    nesterov: bool = setting(Flag(), "Uses Nesterov momentum.", default=False)
    weight_decay: float = setting(
        _RATE,
        "Decay of kernels and the classifier's bias: L2 with sgd (train.sh), otherwise decoupled "
        "from the gradient.",
        default=1e-4,
    )
    norm_weight_decay: float = setting(
        _RATE, "Decay of BatchNorm's parameters, which train.py excludes.", default=0.0
    )
    freeze: tuple[str, ...] = setting(
        Several(Text(may_be_empty=False), '\'("stem/*", "stage0_*")\'', repeats=True),
        "Patterns of parameters that are not trained.",
        default=(),
    )
    lr_multipliers: tuple[tuple[str, float], ...] = setting(
        Records(
            {"pattern": Text(may_be_empty=False), "factor": Number(0.0, above=True)},
            "'((\"head/*\", 10.0),)'",
        ),
        "Factors of the learning rate by pattern of parameters; the last matching pattern counts.",
        default=(),
    )
    unfreeze: tuple[tuple[str, StepCount], ...] = setting(
        Records(
            {"pattern": Text(may_be_empty=False), "step": Steps()},
            '\'(("stage*", 0.1), ("stem/*", 0.2))\'',
        ),
        "Steps from which parameters are trained, by pattern; the last matching pattern counts.",
        default=(),
    )
    ema_decay: float = setting(
        BELOW_ONE, "Decay of an EMA of the weights per step; 0: no EMA.", default=0.0
    )
