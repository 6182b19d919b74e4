# SPDX-License-Identifier: BSD-3-Clause
"""The computation on the devices: pure training, evaluation and prediction steps.

Batches are described in `mlimages_jax.data`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array

from mlimages_jax.step import augment
from mlimages_jax.step.accumulation import Accumulation, mean_over_parts
from mlimages_jax.step.draws import Key, RowsKey
from mlimages_jax.step.gradient_norm import gradient_norm
from mlimages_jax.step.losses import ClassCounts, Loss
from mlimages_jax.step.state import TrainState

Batch = dict[str, Array]
Mixing = Callable[[Key, Array, Array, Array], tuple[Array, Array]]


class Keys(NamedTuple):
    """The keys of a step, for the whole batch or for the rows of a part."""

    augment: Key
    loss: Key
    mix: Key


def dense_targets(batch: Batch, *, num_classes: int, missing_labels: float = 0.0) -> Array:
    """Converts sparse labels to float32 [B, C]; rows outside the mask are all unknown (-1).

    The scatter runs per example, under vmap, so it needs no communication between devices. It sets
    values instead of taking the maximum, because labels may be -1.

    Args:
        batch: Batch with labels, confidences and mask.
        num_classes: Number of classes C.
        missing_labels: Target of classes that an image does not list: 0 (absent) or -1 (unknown).
    """

    def one(labels: Array, confidences: Array) -> Array:
        row = jnp.full(num_classes, missing_labels, jnp.float32)
        # Padding has an index beyond all classes, which "drop" ignores. A negative one would wrap
        # around and label the last class.
        return row.at[labels].set(confidences, mode="drop")

    targets = jax.vmap(one)(batch["labels"], batch["confidences"])
    return jnp.where(batch["mask"][:, None], targets, -1.0)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Array], Array],
    augmentation: Callable[[Key, Array], Array],
    seed: int,
    missing_labels: float = 0.0,
    mixing: Mixing | None = None,
    factors: Any = None,
    first_steps: Any = None,
    ema_decay: float = 0.0,
    accumulation: Accumulation | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """Performs one update.

    Every random draw is a function of (seed, step) and of the position in the global batch, so it
    depends neither on restarts nor on the number of devices or parts.

    Args:
        state: State before the step; donate it.
        batch: Global batch.
        model: Network; `apply(variables, images, train)` returns logits and features.
        loss: Loss, see `losses.Loss`.
        optimizer: Optimizer that returns the direction, see `optimizers`.
        schedule: Maps the step to the learning rate.
        augmentation: Maps (key, images) to float32 images in [-1, 1].
        seed: Seed of the run.
        missing_labels: Target of classes missing from the labels, see `dense_targets`.
        mixing: Maps (key, images, targets, mask) to mixed images and targets; None for no mixing.
        factors: Multipliers of the learning rate, a tree of floats like the parameters; 0 freezes.
            None is 1 everywhere.
        first_steps: Steps from which leaves are trained, a tree of ints like the parameters; before
            that they keep their values. None trains all from the first step.
        ema_decay: Decay of the EMA weights, if the state has them, see `moved_ema`.
        accumulation: Division of the batch into parts; None computes it all at once.

    Returns:
        The state after the step, and float32 scalars: loss, learning_rate, gradient_norm, and
        images, the number of rows inside the mask.
    """
    # The step is in the state, so a checkpoint needs no key, and a restart draws the same numbers.
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    keys = jax.random.split(key, 3)
    if factors is None:
        factors = jax.tree.map(lambda _: 1.0, state.params)
    if first_steps is None:
        first_steps = jax.tree.map(lambda _: 0, state.params)

    gradients = functools.partial(
        _gradients,
        state,
        model=model,
        loss=loss,
        augmentation=augmentation,
        missing_labels=missing_labels,
        mixing=mixing,
        factors=factors,
    )
    if accumulation is None:
        value, batch_stats, counts, grads = gradients(batch, state.class_counts, Keys(*keys))
    else:
        value, batch_stats, counts, grads = _accumulated(
            gradients, batch, state.class_counts, keys, accumulation
        )
    # The optimizer knows no learning rate, see `optimizers`.
    direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
    learning_rate = schedule(state.step)
    rates = jax.tree.map(
        lambda factor, first: _rate(learning_rate, factor, state.step, first), factors, first_steps
    )
    params = _moved_params(state.params, direction, rates)
    metrics = {
        "loss": value,
        "learning_rate": jnp.asarray(learning_rate, jnp.float32),
        "gradient_norm": gradient_norm(grads),
        "images": batch["mask"].sum().astype(jnp.float32),
    }
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        class_counts=counts,
    )
    if state.ema is not None:
        # Last, because the average includes the weights and statistics of this step.
        state = dataclasses.replace(state, ema=moved_ema(state, decay=ema_decay))
    return state, metrics


def _gradients(
    state: TrainState,
    batch: Batch,
    counts: ClassCounts | None,
    keys: Keys,
    *,
    model: nn.Module,
    loss: Loss,
    augmentation: Callable[[Key, Array], Array],
    missing_labels: float,
    mixing: Mixing | None,
    factors: Any,
) -> tuple[Array, Any, ClassCounts | None, Any]:
    """Computes loss, running statistics, class counts and gradients of a batch or a part of one."""
    images = augmentation(keys.augment, batch["image"])
    targets = dense_targets(batch, num_classes=model.num_classes, missing_labels=missing_labels)
    if mixing:
        images, targets = mixing(keys.mix, images, targets, batch["mask"])

    def objective(params: Any) -> tuple[Array, tuple[Any, Any]]:
        # With stop_gradient XLA drops the part of the backward pass needed only by frozen leaves.
        params = jax.tree.map(lambda w, f: w if f else jax.lax.stop_gradient(w), params, factors)
        variables = {"params": params, "batch_stats": state.batch_stats}
        (logits, _), updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        # Weight decay is added to the gradients by the optimizer, so this is the loss without it.
        value, after = loss(logits, targets, counts, key=keys.loss, train=True)
        return value, (updates["batch_stats"], after)

    gradient = jax.value_and_grad(objective, has_aux=True)
    (value, (batch_stats, after)), grads = gradient(state.params)
    return value, batch_stats, after, grads


def _accumulated(
    function: Callable[..., tuple[Array, Any, ClassCounts | None, Any]],
    batch: Batch,
    counts: ClassCounts | None,
    keys: Array,
    accumulation: Accumulation,
) -> tuple[Array, Any, ClassCounts | None, Any]:
    """Computes `_gradients` of a batch, part by part.

    All parts have the same size and whole groups, so the loss and its gradient are the means over
    parts. So are the running statistics: each part moves the same old values towards the mean over
    its own groups.
    """
    size = batch["mask"].shape[0]
    groups = None if counts is None else counts.positive.shape[0]
    rows = jnp.arange(size), None if groups is None else jnp.arange(groups)
    augment_key, loss_key, mix_key = keys

    def one(part: Any) -> tuple[Any, Any]:
        batch, counts, (images, of_groups) = part
        part_keys = Keys(
            augment=RowsKey(augment_key, images, size),
            loss=RowsKey(loss_key, of_groups, groups) if groups else loss_key,
            mix=RowsKey(mix_key, images, size),
        )
        value, batch_stats, counts, grads = function(batch, counts, part_keys)
        return (value, batch_stats, grads), counts

    parts = jax.tree.map(lambda leaf: accumulation.split(leaf, size), (batch, counts, rows))
    (value, batch_stats, grads), kept = mean_over_parts(one, parts)
    after = jax.tree.map(lambda leaf: accumulation.join(leaf, size), kept)
    return value, batch_stats, after, grads


def _rate(learning_rate: Array, factor: float, step: Array, first: int) -> Array | float:
    """Returns the learning rate of a leaf; the float 0 if it is never trained."""
    if not factor:
        return 0.0
    rate = learning_rate * factor
    # The optimizer's means move all the while, so that the first update is no bigger than others.
    return jnp.where(step < first, 0.0, rate) if first else rate


def _moved_params(params: Any, direction: Any, rates: Any) -> Any:
    """Moves the parameters against the direction, by the learning rates."""
    # The condition is evaluated while tracing, so frozen leaves keep their bits. For them
    # optax.masked passes the gradient through in place of a velocity.
    return jax.tree.map(
        lambda w, v, rate: w if isinstance(rate, float) and not rate else w - rate * v,
        params, direction, rates,
    )  # fmt: skip


def moved_ema(state: TrainState, *, decay: float) -> dict[str, Any]:
    """Updates the EMA of parameters and running statistics.

    a <- d a + (1 - d) w with d = min(decay, (1 + t) / (10 + t)), where t is the step just done. The
    smaller d in the first steps quickly forgets the initial values, as
    tf.train.ExponentialMovingAverage does with num_updates.
    """
    step = state.step.astype(jnp.float32)
    fraction = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    # In this form the average of a weight that does not change, such as a frozen one, keeps its
    # bits.
    return jax.tree.map(lambda a, w: a + fraction * (w - a), state.ema, state.weights)


def predict_step(
    params: Any, batch_stats: Any, images: Array, *, model: nn.Module
) -> tuple[Array, Array]:
    """Computes logits, float32 [B, C], and features, float32 [B, F], with running statistics.

    Images are [B, S, S, 3], or [B, V, S, S, 3] for V views of each image. Features are averaged
    over the views, and therefore logits too, since they are affine in the features.
    """
    variables = {"params": params, "batch_stats": batch_stats}
    views = images.reshape(-1, *images.shape[-3:])
    outputs: Any = model.apply(variables, augment.to_model_input(views), train=False)
    if images.ndim == 4:
        return outputs
    logits, features = (rows.reshape(*images.shape[:2], -1).mean(1) for rows in outputs)
    return logits, features


def eval_step(
    params: Any,
    batch_stats: Any,
    batch: Batch,
    *,
    model: nn.Module,
    loss: Loss,
    missing_labels: float = 0.0,
) -> dict[str, Array]:
    """Computes logits [B, C], targets [B, C], mask [B], and the loss summed over valid rows.

    Evaluation gets no class counts, so it cannot change them. For `missing_labels` see
    `dense_targets`.
    """
    logits, _ = predict_step(params, batch_stats, batch["image"], model=model)
    targets = dense_targets(batch, num_classes=model.num_classes, missing_labels=missing_labels)

    def one(row: Array, target: Array) -> Array:
        # Any key will do, because losses draw numbers in training only.
        return loss(row[None], target[None], None, key=jax.random.key(0), train=False)[0]

    # Losses are means over their batch. Applied to one row at a time they leave a value for each
    # row, of which the mask selects the valid ones.
    values = jax.vmap(one)(logits, targets)  # [B]
    total = jnp.where(batch["mask"], values, 0.0).sum()
    return {"logits": logits, "targets": targets, "mask": batch["mask"], "loss_sum": total}
