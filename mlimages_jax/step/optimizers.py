# SPDX-License-Identifier: BSD-3-Clause
"""Schedules and SGD as in the original's train.py and finetune.py, and later ones from optax.

An optimizer here returns a direction, and the training step moves the parameters by
-learning_rate(step) * multiplier * direction. The learning rate is therefore not part of the
optimizer, whose state needs no step counter of its own, and multipliers work alike for all.
"""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from mlimages_jax.step.gradient_norm import gradient_norm

Schedule = Callable[[Array | int], Array]


def pretraining_schedule(
    *,
    learning_rate: float,
    decay_steps: int,
    decay_factor: float,
    warmup_steps: int,
    warmup_learning_rate: float,
    warmup_decay_steps: int,
    warmup_decay_factor: float,
) -> Schedule:
    """Returns the schedule of train.py: a staircase up during warm-up, then a staircase down.

    Warm-up: warmup_learning_rate * warmup_decay_factor ** floor(step / warmup_decay_steps).
    Afterwards: learning_rate * decay_factor ** floor((step - 1) / decay_steps), with at most four
    drops. The original compares with `<=`, so a drop comes one step after each multiple of
    decay_steps, counted from step 0 and not from the end of the warm-up.

    Args:
        learning_rate: Learning rate after the warm-up.
        decay_steps: Number of steps between drops.
        decay_factor: Factor of each drop. The original ignores its flag lr_decay_factor and always
            uses 0.1.
        warmup_steps: Number of warm-up steps.
        warmup_learning_rate: Learning rate of the first step.
        warmup_decay_steps: Number of steps between rises.
        warmup_decay_factor: Factor of each rise.

    Returns:
        A function from step (int32 scalar) to learning rate (float32 scalar).
    """

    def schedule(step: Array | int) -> Array:
        step = jnp.asarray(step)
        warm = warmup_learning_rate * jnp.power(
            jnp.float32(warmup_decay_factor), step // warmup_decay_steps
        )
        # The maximum keeps step 0 from counting as -1 // decay_steps = -1, which would raise the
        # rate.
        drops = jnp.minimum(jnp.maximum(step - 1, 0) // decay_steps, 4)
        main = learning_rate * jnp.power(jnp.float32(decay_factor), drops)
        return jnp.where(step < warmup_steps, warm, main)

    return schedule


def staircase_schedule(*, learning_rate: float, decay_steps: int, decay_factor: float) -> Schedule:
    """Returns finetune.py's schedule: learning_rate * decay_factor ** floor(step / decay_steps)."""
    return lambda step: (
        learning_rate * jnp.power(jnp.float32(decay_factor), jnp.asarray(step) // decay_steps)
    )


def cosine_schedule(*, learning_rate: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Returns a linear warm-up from 0, then cosine decay to 0 at total_steps."""
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, total_steps)


def linear_schedule(*, learning_rate: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Returns a linear warm-up from 0, then linear decay to 0 at total_steps."""
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, learning_rate, warmup_steps),
            optax.linear_schedule(learning_rate, 0.0, total_steps - warmup_steps),
        ],
        [warmup_steps],
    )


def constant_schedule(*, learning_rate: float, warmup_steps: int) -> Schedule:
    """Returns a linear warm-up from 0, then a constant rate."""
    if not warmup_steps:  # for 0 steps optax returns a schedule that stays at its initial rate, 0
        return optax.constant_schedule(learning_rate)
    return optax.warmup_constant_schedule(0.0, learning_rate, warmup_steps)


def one_cycle_schedule(
    *,
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    initial_divisor: float,
    final_divisor: float,
) -> Schedule:
    """Returns half a cosine up, then half a cosine down (Smith and Topin, 2018; as in PyTorch).

    Args:
        learning_rate: The highest rate, reached after warmup_steps.
        warmup_steps: Number of steps in which it rises.
        total_steps: Step at which it is lowest.
        initial_divisor: The first rate is learning_rate / initial_divisor.
        final_divisor: The last rate is the first one / final_divisor.
    """
    first = learning_rate / initial_divisor
    # Half a cosine from `first - learning_rate` to 0, which is added to the highest rate below.
    up = optax.cosine_decay_schedule(first - learning_rate, max(warmup_steps, 1))
    down = optax.cosine_decay_schedule(
        learning_rate, total_steps - warmup_steps, alpha=1 / (initial_divisor * final_divisor)
    )
    return lambda step: jnp.where(
        jnp.asarray(step) < warmup_steps, learning_rate + up(step), down(step - warmup_steps)
    )


def decay_factors(params: Any, *, weight_decay: float, norm_weight_decay: float = 0.0) -> Any:
    """Returns the L2 coefficient of every leaf, a tree of floats with the structure of `params`.

    BatchNorm's scales and shifts (leaves of modules named *norm*) get `norm_weight_decay`; kernels
    and the classifier's bias get `weight_decay`.
    """

    def factor(path: tuple[Any, ...], _: Any) -> float:
        # By the names of modules, which are explicit in `models.resnet`.
        in_norm = any("norm" in str(key.key) for key in path)
        return norm_weight_decay if in_norm else weight_decay

    return jax.tree_util.tree_map_with_path(factor, params)


def lr_multipliers(
    params: Any, *, freeze: Sequence[str] = (), multipliers: Sequence[tuple[str, float]] = ()
) -> Any:
    """Returns the learning-rate multiplier of every leaf, a tree of floats like `params`.

    Patterns are shell patterns for names such as "stage0_block1/conv2/kernel"; `*` also matches
    "/". Where several pairs of `multipliers` match, the last one counts.

    Args:
        params: Nested dict of parameters.
        freeze: Patterns of the leaves to freeze, with factor 0.
        multipliers: (pattern, factor) pairs for other leaves; 1 if none matches.

    Raises:
        ValueError: A pattern matches no leaf, or a factor is not positive.
    """
    for pattern, factor in multipliers:
        if factor <= 0:
            raise ValueError(f"the factor {factor} of {pattern!r} must be positive; freeze it")
    pairs = [*multipliers, *((pattern, 0.0) for pattern in freeze)]
    return _by_pattern(params, pairs, default=1.0)


def first_steps(params: Any, unfreeze: Sequence[tuple[str, int]]) -> Any:
    """Returns the step from which every leaf is trained, a tree of ints like `params`.

    Gradual unfreezing (Howard and Ruder, 2018, section 3.3) trains a new classifier first, and lets
    pretrained layers follow.

    Args:
        params: Nested dict of parameters.
        unfreeze: (pattern, step) pairs, as for `lr_multipliers`; 0 if none matches.

    Raises:
        ValueError: A pattern matches no leaf.
    """
    return _by_pattern(params, unfreeze, default=0)


def _by_pattern(params: Any, pairs: Sequence[tuple[str, Any]], *, default: Any) -> Any:
    """Returns the value of the last pattern that matches the name of each leaf."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    values = dict.fromkeys(names, default)
    for pattern, value in pairs:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            modules = sorted({name.split("/")[0] for name in names})
            raise ValueError(
                f"{pattern!r} matches no parameter; names look like {names[0]!r}, with the modules "
                f"{', '.join(modules)}"
            )
        values |= dict.fromkeys(matched, value)
    return jax.tree.unflatten(jax.tree.structure(params), [values[name] for name in names])


def l2_penalty(params: Any, factors: Any) -> Array:
    """Sums factor / 2 * |w|^2 over leaves, float32 []: the decay times tf.nn.l2_loss."""
    terms = jax.tree.map(lambda w, f: 0.5 * f * jnp.sum(jnp.square(w)), params, factors)
    return jax.tree.reduce(jnp.add, terms)


def add_l2_gradient(factors: Any) -> optax.GradientTransformation:
    """Adds factor * w, the gradient of `l2_penalty`, to every gradient."""
    # Not optax.add_decayed_weights, which has a single coefficient instead of a tree of them.

    def update(grads: Any, state: optax.OptState, params: Any = None) -> tuple[Any, optax.OptState]:
        return jax.tree.map(lambda g, w, f: g + f * w if f else g, grads, params, factors), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def sgd_momentum(
    *,
    momentum: float,
    decay: Any,
    nesterov: bool = False,
    factors: Any = None,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Computes the velocity of SGD: v = momentum * v + (g + decay * w).

    The learning rate multiplies the velocity and not the gradient, as in TensorFlow's
    MomentumOptimizer, so a drop takes effect immediately.

    Args:
        momentum: Momentum in [0, 1).
        decay: Tree of L2 coefficients, from `decay_factors`.
        nesterov: Whether to use Nesterov momentum.
        factors: From `lr_multipliers`; frozen leaves have no slot. None trains all leaves.
        clip_norm: Maximum norm of the gradient of all leaves, without decay; 0 does not clip.
    """
    trace = _of_trained_leaves(optax.trace(decay=momentum, nesterov=nesterov), factors)
    # Decay comes before the momentum, as the gradient of an L2 term in the loss does. After it, as
    # in `adaptive`, it is decoupled decay: another optimizer.
    return optax.chain(*_clipping(clip_norm), add_l2_gradient(decay), trace)


def adaptive(
    name: str,
    *,
    decay: Any,
    beta1: float,
    beta2: float,
    epsilon: float,
    factors: Any = None,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Returns AdamW, LAMB or Lion with decoupled decay: optax's direction plus decay * w.

    Args:
        name: "adamw" (Loshchilov and Hutter, ICLR 2019), "lamb" (You et al., ICLR 2020) or "lion"
            (Chen et al., NeurIPS 2023).
        decay: Tree of decay coefficients, from `decay_factors`. As in optax and PyTorch, a step
            decays a weight by learning_rate * coefficient.
        beta1: Decay of the mean of gradients.
        beta2: Decay of the mean of their squares; Lion: of its second mean of gradients.
        epsilon: Added to the root of the mean of squares; Lion has none.
        factors: From `lr_multipliers`; frozen leaves have no slots. None trains all leaves.
        clip_norm: As for `sgd_momentum`.

    Raises:
        ValueError: The name is none of the three.
    """
    adam = optax.scale_by_adam(beta1, beta2, epsilon)
    choices = {
        "adamw": (adam, []),
        "lamb": (adam, [optax.scale_by_trust_ratio()]),
        "lion": (optax.scale_by_lion(beta1, beta2), []),
    }
    if name not in choices:
        raise ValueError(f"{name!r} is none of {', '.join(choices)}")
    scaling, last = choices[name]
    # After the scaling, factor * w is no gradient of a penalty but the decay itself.
    decoupled = add_l2_gradient(decay)
    return optax.chain(
        *_clipping(clip_norm), _of_trained_leaves(scaling, factors), decoupled, *last
    )


def _clipping(norm: float) -> list[optax.GradientTransformation]:
    # optax.clip_by_global_norm, but for the form of the norm, see `gradient_norm`.
    def clipped(updates: Any, _: Any) -> Any:
        found = gradient_norm(updates)
        return jax.tree.map(
            lambda leaf: jnp.where(found < norm, leaf, leaf / found * norm), updates
        )

    return [optax.stateless(clipped)] if norm else []


def _of_trained_leaves(
    transformation: optax.GradientTransformation, factors: Any
) -> optax.GradientTransformation:
    """Returns the transformation without slots for leaves of factor 0."""
    if factors is None or all(jax.tree.leaves(factors)):
        return transformation
    return optax.masked(transformation, jax.tree.map(bool, factors))
