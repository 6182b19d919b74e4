# SPDX-License-Identifier: BSD-3-Clause
"""Batched mixup and CutMix of training images and their targets, on the device.

Each example is mixed with the next one in its statistics group (`batch_norm.in_groups`), the last
with the first. Batches are shuffled, so the next example is as random as any other, and groups that
fit on one device need no communication.
"""

import math

import jax.numpy as jnp
from jax import Array

from mlimages_jax.models.batch_norm import in_groups
from mlimages_jax.step.draws import Key, uniform


def mix(
    key: Key,
    images: Array,
    targets: Array,
    mask: Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    group_size: int | None,
) -> tuple[Array, Array]:
    """Mixes every example with another one, images and targets with the same weights.

    The weight of an example in its mixture is drawn from Beta(alpha, alpha), independently for each
    example. Mixup (Zhang et al., ICLR 2018) takes the weighted sum of the two images. CutMix (Yun
    et al., ICCV 2019) pastes a box of the other image: its sides are sqrt(1 - weight) of the
    image's, its centre is a uniformly random pixel, it is clipped at the border, and the weight is
    then the fraction of the image outside the box.

    The result for example i depends only on the key, i and the two examples, not on the sharding.

    Args:
        key: A jax.random key, different for each step.
        images: Images, float32 [B, H, W, 3].
        targets: Targets, float32 [B, C], -1 where unknown. A class that is unknown in one of the
            two examples is unknown in the mixture, unless that example has weight 0.
        mask: Valid rows, bool [B]. Rows outside the mask are neither changed nor mixed into others;
            an example whose partner is outside the mask is unchanged.
        mixup_alpha: Parameter of the Beta distribution; 0 disables mixup.
        cutmix_alpha: The same for CutMix. If both are enabled, each example uses one at random.
        group_size: Size of the statistics groups; None for the full batch.

    Returns:
        Images and targets of the same shapes; the inputs if both are disabled.

    Raises:
        ValueError: An alpha is negative or not finite, groups have a single example, or groups do
            not divide the batch.
    """
    if not (0 <= mixup_alpha < math.inf and 0 <= cutmix_alpha < math.inf):
        raise ValueError(
            f"mixup_alpha={mixup_alpha} and cutmix_alpha={cutmix_alpha} must be finite, 0 or more"
        )
    if not (mixup_alpha or cutmix_alpha):
        return images, targets

    batch, height, width = images.shape[:3]
    draws = uniform(key, [batch, 5])  # row i is the same for any B
    which, first, second, row, column = draws.T
    is_cutmix = which < 0.5 if mixup_alpha and cutmix_alpha else jnp.full(batch, bool(cutmix_alpha))
    fraction = symmetric_beta(first, second, alpha=jnp.where(is_cutmix, cutmix_alpha, mixup_alpha))
    box = boxes(row, column, area=1 - fraction, height=height, width=width)  # [B, H, W]
    # The labels get the fraction that is visible, as boxes are clipped at the border.
    fraction = jnp.where(is_cutmix, 1 - box.sum((1, 2)) / (height * width), fraction)

    # A neighbour that is no image is black: mixing it in would darken an image for nothing.
    paired = mask & _neighbour(mask, group_size)
    fraction = jnp.where(paired, fraction, 1.0)
    weight = jnp.where(_per_pixel(is_cutmix), 1.0 - box, _per_pixel(fraction))
    weight = weight[..., None]  # [B, H, W, 1]
    mixed = weight * images + (1 - weight) * _neighbour(images, group_size)
    images = jnp.where(_per_pixel(paired)[..., None], mixed, images)
    return images, mix_targets(targets, _neighbour(targets, group_size), fraction=fraction)


def symmetric_beta(first: Array, second: Array, *, alpha: Array) -> Array:
    """Transforms two uniform draws into one from Beta(alpha, alpha), exactly, without rejection.

    1/2 + T / (2 sqrt(2 alpha + T^2)) has that distribution for T of Student's with 2 alpha degrees
    of freedom, and T = sqrt(2 alpha (U^(-1/alpha) - 1)) cos(2 pi V) is Student's (Bailey, Math.
    Comp. 62, 1994; Devroye, "Random variate generation in one line of code", 1996). With
    p = U^(1/alpha), numerator and denominator are multiplied by p to avoid overflow. A rejection
    sampler would have to loop until all examples on all devices are accepted.

    Args:
        first: Uniform in [0, 1), [B].
        second: The same, independent of `first`.
        alpha: Positive parameters, [B].

    Returns:
        float32 [B] in [0, 1].
    """
    p = first ** (1 / alpha)  # underflows to 0 for small alphas, where the result is 0 or 1
    cosine = jnp.cos(2 * jnp.pi * second)
    above = (1 - p) * cosine**2
    distance = jnp.sqrt(above / jnp.maximum(p + above, jnp.finfo(jnp.float32).tiny))
    return 0.5 + 0.5 * jnp.sign(cosine) * distance


def boxes(row: Array, column: Array, *, area: Array, height: int, width: int) -> Array:
    """Masks of one box per example, with the aspect ratio of the image.

    Args:
        row: Row of the centre as a fraction of the height in [0, 1), [B].
        column: Column of the centre as a fraction of the width in [0, 1), [B].
        area: Area of the box before clipping at the border, as a fraction of the image's, [B].
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        bool [B, height, width], true inside the box.
    """
    side = jnp.sqrt(area)
    down = _interval(row, side, height)
    across = _interval(column, side, width)
    return down[:, :, None] & across[:, None, :]


def _interval(centre: Array, side: Array, length: int) -> Array:
    """Returns which pixels are in an interval of round(side * length) pixels, bool [B, length]."""
    size = jnp.round(side * length).astype(jnp.int32)
    start = jnp.floor(centre * length).astype(jnp.int32) - size // 2
    pixels = jnp.arange(length)
    return (pixels >= start[:, None]) & (pixels < (start + size)[:, None])


def mix_targets(own: Array, other: Array, *, fraction: Array) -> Array:
    """Returns the weighted sum of two targets, or -1 where a target of nonzero weight is unknown.

    Args:
        own: Targets, float32 [B, C], -1 where unknown.
        other: Targets of the partners, likewise.
        fraction: Weight of `own` in [0, 1], [B].

    Returns:
        float32 [B, C].
    """
    fraction = fraction[:, None]
    unknown = ((own < 0) & (fraction > 0)) | ((other < 0) & (fraction < 1))
    return jnp.where(unknown, -1.0, fraction * own + (1 - fraction) * other)


def _neighbour(x: Array, group_size: int | None) -> Array:
    """Returns for each row of x [B, ...] that of the next example in its group, cyclically."""
    groups = in_groups(x, group_size)
    if groups.shape[1] < 2:
        raise ValueError(
            f"a batch of {x.shape[0]} with group_size={group_size} leaves every example alone in "
            "its group: mixing needs groups of two or more"
        )
    return jnp.roll(groups, -1, axis=1).reshape(x.shape)


def _per_pixel(x: Array) -> Array:
    return x[:, None, None]
