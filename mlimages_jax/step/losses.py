# SPDX-License-Identifier: BSD-3-Clause
"""Losses: weighted sigmoid cross-entropy (release and paper), its alternatives, and softmax.

Targets of the multi-label losses are dense float32 [B, C]: -1 unknown, 0 absent, (0, 1] present
with that confidence. Every loss is called as `(logits, targets, counts, key, train)` and returns a
scalar and the counts. Losses without counts pass them through, so that the training step can treat
all losses alike.

The weighted loss (Wu et al., "Tencent ML-Images", 2019, section 4) balances classes by the number
of consecutive steps in which a class was present or absent *in the batch of one worker*. Here a
worker is a group of `group_size` examples, so the counts are [G, C] and do not depend on the number
of devices.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from mlimages_jax.models.batch_norm import in_groups
from mlimages_jax.step.draws import Key, uniform

POSITIVE_WEIGHT = 12.0  # weight of the positive term, from train.py
PRESENCE_THRESHOLD = 0.7  # minimum label of a present class, train.py --mask_thres
NEGATIVE_SELECTION = 0.1  # fraction of absent classes that count in a step, --neg_select


@struct.dataclass
class ClassCounts:
    """Consecutive steps in which each class was present and absent, float32 [G, C] each."""

    positive: Array
    negative: Array


class Loss(Protocol):
    """The signature of a loss."""

    def __call__(
        self, logits: Array, targets: Array, counts: ClassCounts | None, *, key: Key, train: bool
    ) -> tuple[Array, ClassCounts | None]:
        """Returns the loss (float32 scalar) and the counts after this step."""


class Coefficients(NamedTuple):
    """Balance weights of the classes, float32 [G, C]."""

    positive: Array
    negative: Array


def initial_counts(num_groups: int, num_classes: int) -> ClassCounts:
    """Returns zero counts, float32 [num_groups, num_classes]."""
    zeros = jnp.zeros((num_groups, num_classes), jnp.float32)
    return ClassCounts(positive=zeros, negative=zeros)


def update_counts(counts: ClassCounts, present: Array, selected: Array) -> ClassCounts:
    """Counts after a step.

    Args:
        counts: Counts before the step, [G, C].
        present: Whether any image of the group has the class, bool [G, C].
        selected: Whether the random draw keeps the class if it is absent, bool [G, C].

    Returns:
        P + 1 and 0 where present; 0 and N + selected where absent (train.py).
    """
    return ClassCounts(
        positive=jnp.where(present, counts.positive + 1, 0.0),
        negative=jnp.where(present, 0.0, counts.negative + selected),
    )


def released_coefficients(counts: ClassCounts, present: Array, selected: Array) -> Coefficients:
    """Class weights of the released train.py, computed from the updated counts, [G, C].

    rP = max(0.01, -log10((0.01 + P) / 10)) where present, else 0;
    rN = v where v > 0.01 else 0.001, with v = -log10((8 + N) / 10), where absent and selected,
    else 0. The two lower bounds differ in the original, too.
    """
    # The weight of a present class falls from 1.0 in its first step to the lower bound after ten.
    # The 0.01 keeps log10 finite for the classes without a count, whose weight is then replaced.
    positive = jnp.maximum(0.01, -jnp.log10((0.01 + counts.positive) / 10))
    # 0.046 for N = 1 and at most 0 from N = 2 on, so nearly every absent class gets the lower
    # bound.
    negative = -jnp.log10((8 + counts.negative) / 10)
    negative = jnp.where(negative > 0.01, negative, 0.001)
    return Coefficients(
        positive=jnp.where(present, positive, 0.0),
        negative=jnp.where(~present & selected, negative, 0.0),
    )


def paper_coefficients(counts: ClassCounts) -> Coefficients:
    """Class weights of the paper, equation 3: both lower bounds 0.01, no selection; [G, C]."""
    return Coefficients(
        positive=jnp.maximum(0.01, -jnp.log10((0.01 + counts.positive) / 10)),
        negative=jnp.maximum(0.01, -jnp.log10((8 + counts.negative) / 10)),
    )


def sigmoid_cross_entropy(
    logits: Array, targets: Array, *, positive_weight: Array | float = 1.0
) -> Array:
    """Computes -w y log s(x) - (1 - y) log(1 - s(x)), [B, C]; 0 where the label is unknown.

    With w != 1 the minimum over x is not at s(x) = y, so sigmoid(x) is not a calibrated
    probability.

    Args:
        logits: x, [B, C].
        targets: y, [B, C], from 0 to 1; -1 is unknown.
        positive_weight: w, [C] or a scalar.
    """
    y = jnp.maximum(targets, 0)  # of unknown labels, -1, whose loss is replaced below
    # log_sigmoid and not the logarithm of a sigmoid, which is -inf for logits below about -88.
    loss = -positive_weight * y * jax.nn.log_sigmoid(logits) - (1 - y) * jax.nn.log_sigmoid(-logits)
    return jnp.where(targets >= 0, loss, 0.0)


def weighted_sigmoid_cross_entropy(
    logits: Array,
    targets: Array,
    counts: ClassCounts,
    *,
    selected: Array,
    group_size: int | None = None,
    variant: str = "released",
    positive_weight: float = POSITIVE_WEIGHT,
    threshold: float = PRESENCE_THRESHOLD,
) -> tuple[Array, ClassCounts]:
    """Computes the loss of ML-Images: sum over classes of the group means, averaged over groups.

    Args:
        logits: float32 [B, C].
        targets: float32 [B, C].
        counts: Counts before the step, [G, C] with G = B / group_size.
        selected: Which absent classes count in this step, bool [G, C] ("released" only).
        group_size: Number of examples that share counts; None for the full batch.
        variant: "released" weights a class by its presence in the group; "paper" weights every
            element by its own label, positive ones (>= threshold) by rP and the others by rN.
        positive_weight: Weight of the positive term, eta in the paper.
        threshold: Minimum label of a present class.

    Returns:
        The loss, float32 scalar, and the updated counts. No gradient flows through the weights.

    Raises:
        ValueError: The variant is unknown, or the batch size is not a multiple of group_size.
    """
    # A label of low confidence (below the threshold) is still a target, but does not make its class
    # present.
    positive = in_groups(targets, group_size) >= threshold  # [G, n, C]
    present = positive.any(1)  # [G, C]
    if variant == "released":
        counts = update_counts(counts, present, selected)
        coefficients = released_coefficients(counts, present, selected)
        weight = (coefficients.positive + coefficients.negative)[:, None]  # [G, 1, C]
    elif variant == "paper":
        # The paper has no random selection: every absent class is counted in every step.
        counts = update_counts(counts, present, jnp.ones_like(present))
        coefficients = paper_coefficients(counts)
        weight = jnp.where(
            positive, coefficients.positive[:, None], coefficients.negative[:, None]
        )  # [G, n, C]
    else:
        raise ValueError(f"variant={variant!r} is neither 'released' nor 'paper'")
    per_element = sigmoid_cross_entropy(logits, targets, positive_weight=positive_weight)
    # As in train.py the mean also divides by the unknown entries, whose loss is 0. The weights
    # depend on targets and counts alone, so they need no stop_gradient.
    per_class = (weight * in_groups(per_element, group_size)).mean(1)  # [G, C]
    return per_class.sum(1).mean(), counts


def weighted_loss(
    logits: Array,
    targets: Array,
    counts: ClassCounts | None,
    *,
    key: Key,
    train: bool,
    negative_selection: float = NEGATIVE_SELECTION,
    positive_weight: float = POSITIVE_WEIGHT,
    **settings: Any,
) -> tuple[Array, ClassCounts | None]:
    """Computes `weighted_sigmoid_cross_entropy` with absent classes selected by `key`.

    Each class of each group is kept with probability `negative_selection`. In evaluation every
    class has weight 1 and the counts are unchanged.

    Raises:
        ValueError: Training without counts, or as for the wrapped function.
    """
    if not train:
        # Class weights depend on what came before in the training, so that two evaluations of the
        # same weights would differ.
        per_element = sigmoid_cross_entropy(logits, targets, positive_weight=positive_weight)
        return per_element.sum(1).mean(), counts
    if counts is None:
        raise ValueError("the weighted loss needs class counts in training: see initial_counts")
    # One draw per class and group and not per image: a worker of the original drew once a batch.
    selected = uniform(key, counts.positive.shape) <= negative_selection
    return weighted_sigmoid_cross_entropy(
        logits, targets, counts, selected=selected, positive_weight=positive_weight, **settings
    )


def with_positive_weights(
    logits: Array, positive_weights: Array | None, *, train: bool
) -> tuple[Array, Array | float]:
    """Prepares a loss whose present labels have weights w: shifted logits, and w as a factor.

    With weights the least cross-entropy of a class with probability p is at log(w p / (1 - p)).
    With x + log w in the place of the logit x it is at x = log(p / (1 - p)) again, so probabilities
    need no correction. In evaluation all weights are 1.

    Args:
        logits: Floats [B, C].
        positive_weights: float32 [C], positive; None for weights of 1.
        train: Whether the weights are used.
    """
    if positive_weights is None or not train:
        return logits, 1.0
    return logits + jnp.log(positive_weights), positive_weights


def plain_sigmoid_cross_entropy(
    logits: Array,
    targets: Array,
    counts: ClassCounts | None,
    *,
    key: Key,
    train: bool,
    positive_weights: Array | None = None,
) -> tuple[Array, ClassCounts | None]:
    """Computes binary cross-entropy: sum over classes, mean over examples.

    Present labels have the weights of `with_positive_weights`.
    """
    shifted, weights = with_positive_weights(logits, positive_weights, train=train)
    per_element = sigmoid_cross_entropy(shifted, targets, positive_weight=weights)
    return per_element.sum(1).mean(), counts


def asymmetric_loss(
    logits: Array,
    targets: Array,
    counts: ClassCounts | None,
    *,
    key: Key,
    train: bool,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
    positive_weights: Array | None = None,
) -> tuple[Array, ClassCounts | None]:
    """Computes the asymmetric loss (Ridnik et al., ICCV 2021): sum over classes, batch mean.

    With p = s(x) and p_m = max(p - clip, 0), by their equations 7 and 8:
    -y (1 - p)^gamma_positive log p - (1 - y) p_m^gamma_negative log(1 - p_m).
    The first term has the weights of `with_positive_weights`.
    """
    logits, weights = with_positive_weights(logits, positive_weights, train=train)
    y = jnp.maximum(targets, 0)
    p = jax.nn.sigmoid(logits)
    shifted = jnp.maximum(p - clip, 0)
    # With a clip, 1 - shifted >= clip > 0, so the logarithm is safe. Below the clip the term and
    # its derivative are 0.
    log_negative = jnp.log1p(-shifted) if clip else jax.nn.log_sigmoid(-logits)
    focus = (1 - p) ** gamma_positive if gamma_positive else 1.0
    positive = weights * y * focus * jax.nn.log_sigmoid(logits)
    negative = (1 - y) * shifted**gamma_negative * log_negative
    return jnp.where(targets >= 0, -positive - negative, 0.0).sum(1).mean(), counts


def focal_loss(
    logits: Array,
    targets: Array,
    counts: ClassCounts | None,
    *,
    key: Key,
    train: bool,
    gamma: float = 2.0,
    alpha: float = 0.25,
    positive_weights: Array | None = None,
) -> tuple[Array, ClassCounts | None]:
    """Computes the focal loss (Lin et al., ICCV 2017) of every class: sum over classes, batch mean.

    With p = s(x), by their equation 5:
    -alpha y (1 - p)^gamma log p - (1 - alpha) (1 - y) p^gamma log(1 - p).
    The first term has the weights of `with_positive_weights`.
    """
    logits, weights = with_positive_weights(logits, positive_weights, train=train)
    y = jnp.maximum(targets, 0)
    # sigmoid(-x) and not 1 - sigmoid(x), which loses all digits for confident predictions.
    p, q = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    positive = weights * alpha * y * q**gamma * jax.nn.log_sigmoid(logits)
    negative = (1 - alpha) * (1 - y) * p**gamma * jax.nn.log_sigmoid(-logits)
    return jnp.where(targets >= 0, -positive - negative, 0.0).sum(1).mean(), counts


def softmax_cross_entropy(
    logits: Array,
    targets: Array,
    counts: ClassCounts | None,
    *,
    key: Key,
    train: bool,
    label_smoothing: float = 0.0,
) -> tuple[Array, ClassCounts | None]:
    """Computes -sum_j y_j log softmax(x)_j, averaged over examples; unknown labels count as 0.

    Label smoothing by s (Szegedy et al., CVPR 2016, section 7) replaces y with y (1 - s) + s / C,
    in training only: evaluation reports the plain loss. A row without any class, such as one
    outside the mask, contributes 0 either way.

    Raises:
        ValueError: label_smoothing is outside [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing} must be at least 0 and below 1")
    y = jnp.maximum(targets, 0)
    if train and label_smoothing:
        # Also spread over the true class itself, as the paper defines it.
        smooth = (1 - label_smoothing) * y + label_smoothing / y.shape[-1]
        y = jnp.where((y > 0).any(-1, keepdims=True), smooth, y)
    return optax.softmax_cross_entropy(logits, y).mean(), counts
