# SPDX-License-Identifier: BSD-3-Clause
"""Schedules and SGD with momentum as in the original's train.py and finetune.py."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

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
    """The schedule of train.py: a staircase up during warm-up, then a staircase down.

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
    """The schedule of finetune.py: learning_rate * decay_factor ** floor(step / decay_steps)."""
    return lambda step: (
        learning_rate * jnp.power(jnp.float32(decay_factor), jnp.asarray(step) // decay_steps)
    )


def cosine_schedule(*, learning_rate: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Linear warm-up from 0, then cosine decay to 0 at total_steps."""
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, total_steps)


def decay_factors(params: Any, *, weight_decay: float, norm_weight_decay: float = 0.0) -> Any:
    """The L2 coefficient of every leaf, a tree of floats with the structure of `params`.

    BatchNorm's scales and shifts (leaves of modules named *norm*) get `norm_weight_decay`; kernels
    and the classifier's bias get `weight_decay`.
    """

    def factor(path: tuple[Any, ...], _: Any) -> float:
        in_norm = any("norm" in str(key.key) for key in path)
        return norm_weight_decay if in_norm else weight_decay

    return jax.tree_util.tree_map_with_path(factor, params)


def lr_multipliers(
    params: Any, *, freeze: Sequence[str] = (), multipliers: Sequence[tuple[str, float]] = ()
) -> Any:
    """The learning-rate multiplier of every leaf, a tree of floats with the structure of `params`.

    Patterns are shell patterns for names such as "stage0_block1/conv2/kernel"; `*` also matches
    "/". Where several pairs of `multipliers` match, the last one counts.

    Args:
        params: Nested dict of parameters.
        freeze: Patterns of the leaves to freeze, with factor 0.
        multipliers: (pattern, factor) pairs for other leaves; 1 if none matches.

    Raises:
        ValueError: A pattern matches no leaf, or a factor is not positive.
    """
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    values = dict.fromkeys(names, 1.0)
    for pattern, factor in (*multipliers, *((pattern, 0.0) for pattern in freeze)):
        matched = fnmatch.filter(names, pattern)
        if not matched:
            modules = sorted({name.split("/")[0] for name in names})
            raise ValueError(
                f"{pattern!r} matches no parameter; names look like {names[0]!r}, with the modules "
                f"{', '.join(modules)}"
            )
        if factor <= 0 and pattern not in freeze:
            raise ValueError(f"the factor {factor} of {pattern!r} must be positive; freeze it")
        values |= dict.fromkeys(matched, float(factor))
    return jax.tree.unflatten(jax.tree.structure(params), [values[name] for name in names])


def l2_penalty(params: Any, factors: Any) -> Array:
    """Sum over leaves of factor / 2 * |w|^2, float32 scalar: the decay times tf.nn.l2_loss."""
    terms = jax.tree.map(lambda w, f: 0.5 * f * jnp.sum(jnp.square(w)), params, factors)
    return jax.tree.reduce(jnp.add, terms)


def add_l2_gradient(factors: Any) -> optax.GradientTransformation:
    """Adds factor * w, the gradient of `l2_penalty`, to every gradient."""

    def update(grads: Any, state: optax.OptState, params: Any = None) -> tuple[Any, optax.OptState]:
        return jax.tree.map(lambda g, w, f: g + f * w if f else g, grads, params, factors), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def sgd_momentum(
    *, momentum: float, decay: Any, nesterov: bool = False, factors: Any = None
) -> optax.GradientTransformation:
    """Computes the velocity of SGD: v = momentum * v + (g + decay * w).

    The caller updates the parameters by -learning_rate(step) * v. The learning rate multiplies the
    velocity and not the gradient, as in TensorFlow's MomentumOptimizer, so a drop takes effect
    immediately. Keeping it out of the optimizer also avoids a second step counter in the state.

    Args:
        momentum: Momentum in [0, 1).
        decay: Tree of L2 coefficients, from `decay_factors`.
        nesterov: Whether to use Nesterov momentum.
        factors: from `lr_multipliers`; frozen leaves have no slot. None to train
            all leaves.
    """
    trace = optax.trace(decay=momentum, nesterov=nesterov)
    if factors is not None and not all(jax.tree.leaves(factors)):
        trace = optax.masked(trace, jax.tree.map(bool, factors))
    # Decay comes before the momentum, as the gradient of an L2 term in the loss does. After it, as
    # in optax.add_decayed_weights following a trace, it would be decoupled decay: another
    # optimizer.
    return optax.chain(add_l2_gradient(decay), trace)
