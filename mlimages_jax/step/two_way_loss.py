# SPDX-License-Identifier: BSD-3-Clause
"""The two-way multi-label loss (Kobayashi, CVPR 2023): classes of an image, images of a class.

Within a row it asks that every present class scores above every absent one, and within a column
that every image with the class scores above every image without it. Only differences of logits
count, so a logit orders classes and images, but its sigmoid is not a probability.
"""

import jax
import jax.numpy as jnp
from jax import Array

from mlimages_jax.models.batch_norm import in_groups
from mlimages_jax.step.draws import Key
from mlimages_jax.step.losses import ClassCounts

_NOTHING = -1e30  # the logarithm of an empty sum, finite so that its gradient is 0 and not nan


def two_way_loss(
    logits: Array,
    targets: Array,
    counts: ClassCounts | None,
    *,
    key: Key,
    train: bool,
    group_size: int | None = None,
    positive_temperature: float = 4.0,
    negative_temperature: float = 1.0,
) -> tuple[Array, ClassCounts | None]:
    """Computes the two-way loss (equation 10): the mean over rows plus the mean over classes.

    For the known entries of a row, or of a class in a group,

        softplus(Tp log sum_i y_i exp(-x_i / Tp) + Tn log sum_i (1 - y_i) exp(x_i / Tn)),

    where the sums of the paper, over present and over absent entries, are those for y in {0, 1};
    confidences and mixed images weigh in both. Rows and classes without a present entry are left
    out of the means. Classes are compared within groups, so the loss depends neither on devices
    nor on parts of a batch. In evaluation, which sees one row at a time, it is the mean over rows,
    in which those without a present class count as 0.

    Args:
        logits: Floats [B, C]; computed in float32 whatever their type.
        targets: float32 [B, C].
        counts: Passed through.
        key: Unused.
        train: Whether the comparison over images is included.
        group_size: Number of images that are compared; None for the full batch.
        positive_temperature: Tp. At 0 only the lowest present logit would count, at a high
            temperature all do.
        negative_temperature: Tn, likewise for the highest absent logit.

    Returns:
        The loss, float32 scalar, and the counts.
    """
    # Evaluation calls losses with one row at a time, so there is no other image to compare with.
    size = group_size if train else None
    x = in_groups(logits.astype(jnp.float32), size)  # [G, n, C]
    y = in_groups(targets, size)
    present = jnp.where(y > 0, y, 0.0)
    absent = jnp.where(y >= 0, 1 - y, 0.0)

    def one_way(axis: int) -> tuple[Array, Array]:
        """Values of the rows or classes, and which of them have a present entry."""
        positive = positive_temperature * _log_sum(-x / positive_temperature, present, axis=axis)
        negative = negative_temperature * _log_sum(x / negative_temperature, absent, axis=axis)
        known = (present > 0).any(axis)
        return jnp.where(known, jax.nn.softplus(positive + negative), 0.0), known

    rows, has_class = one_way(2)  # [G, n]
    if not train:
        return rows.mean(), counts
    classes, has_image = one_way(1)  # [G, C]
    return (_mean(rows, has_class) + _mean(classes, has_image)).mean(), counts


def _log_sum(exponents: Array, weights: Array, *, axis: int) -> Array:
    """Returns log sum_i w_i exp(e_i) over the positive weights; _NOTHING where there are none."""
    is_in = weights > 0

    terms = jnp.where(is_in, exponents + jnp.log(jnp.where(is_in, weights, 1.0)), _NOTHING)
    return jax.nn.logsumexp(terms, axis=axis)


def _mean(values: Array, known: Array) -> Array:
    """Returns the mean of the known values in each group, [G]; 0 where there are none."""
    return values.sum(1) / jnp.maximum(known.sum(1), 1)
