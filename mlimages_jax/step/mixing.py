# SPDX-License-Identifier: BSD-3-Clause
"""Mixup and CutMix of training images and their targets, batched, on the device.

Each example is mixed with its neighbour in its own statistics group (`batch_norm.in_groups`), the
last with the first. Batches are shuffled, so a neighbour is as random as any other example; and
where groups fit a device nothing is communicated.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from mlimages_jax.models.batch_norm import in_groups


def mix(
    key: Array,
    images: Array,
    targets: Array,
    mask: Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    group_size: int | None,
) -> tuple[Array, Array]:
    """Mixes every example with another, images and targets in the same shares.

    The share an example keeps is drawn from Beta(alpha, alpha), for each example anew. Mixup (Zhang
    et al., ICLR 2018) adds the two images in these shares. CutMix (Yun et al., ICCV 2019) pastes
    a box of the other image: each side is sqrt(1 - share) of the image's, the centre any pixel,
    what lies outside is cut off, and the share is then what the box leaves.

    Example i depends on the key, i and the two examples only, however the batch is sharded.

    Args:
        key: a jax.random key, fresh for each step.
        images: float32 [B, H, W, 3].
        targets: float32 [B, C], -1 where unknown. A class unknown in either of the two is unknown
            in the mixture, unless that one's share is 0.
        mask: bool [B]. Rows outside are neither changed nor mixed into others: the example whose
            neighbour is one stays as it is.
        mixup_alpha: of the Beta distribution; 0 switches mixup off.
        cutmix_alpha: the same for CutMix. With both on, each example takes either at random.
        group_size: of the statistics groups; None means the whole batch.

    Returns:
        Images and targets of the same shapes; the ones that came in with both switched off.

    Raises:
        ValueError: for an alpha that cannot be, groups of one, or groups that do not divide the
            batch.
    """
    if not (0 <= mixup_alpha < math.inf and 0 <= cutmix_alpha < math.inf):
        raise ValueError(
            f"mixup_alpha={mixup_alpha} and cutmix_alpha={cutmix_alpha} must be finite, 0 or more"
        )
    if not (mixup_alpha or cutmix_alpha):
        return images, targets

    batch, height, width = images.shape[:3]
    draws = jax.random.uniform(key, [batch, 5])  # row i is the same for any B
    which, first, second, row, column = draws.T
    cut = which < 0.5 if mixup_alpha and cutmix_alpha else jnp.full(batch, bool(cutmix_alpha))
    share = symmetric_beta(first, second, alpha=jnp.where(cut, cutmix_alpha, mixup_alpha))
    box = boxes(row, column, area=1 - share, height=height, width=width)  # [B, H, W]
    share = jnp.where(cut, 1 - box.sum((1, 2)) / (height * width), share)

    paired = mask & _neighbour(mask, group_size)
    share = jnp.where(paired, share, 1.0)
    weight = jnp.where(_per_pixel(cut), 1.0 - box, _per_pixel(share))[..., None]  # [B, H, W, 1]
    mixed = weight * images + (1 - weight) * _neighbour(images, group_size)
    images = jnp.where(_per_pixel(paired)[..., None], mixed, images)
    return images, mix_targets(targets, _neighbour(targets, group_size), share=share)


def symmetric_beta(first: Array, second: Array, *, alpha: Array) -> Array:
    """Turns two uniform draws into one of Beta(alpha, alpha), exactly and without rejection.

    1/2 + T / (2 sqrt(2 alpha + T^2)) has that distribution for T of Student's with 2 alpha degrees
    of freedom, and T = sqrt(2 alpha (U^(-1/alpha) - 1)) cos(2 pi V) is Student's (Bailey, Math.
    Comp. 62, 1994; Devroye, "Random variate generation in one line of code", 1996). With
    p = U^(1/alpha) both sides are multiplied by p, so that nothing overflows. A sampler that
    rejects would loop until all examples of all devices are done.

    Args:
        first: uniform in [0, 1), [B].
        second: the same, independent.
        alpha: above 0, [B].

    Returns:
        float32 [B] in [0, 1].
    """
    p = first ** (1 / alpha)
    cosine = jnp.cos(2 * jnp.pi * second)
    above = (1 - p) * cosine**2
    distance = jnp.sqrt(above / jnp.maximum(p + above, jnp.finfo(jnp.float32).tiny))
    return 0.5 + 0.5 * jnp.sign(cosine) * distance


def boxes(row: Array, column: Array, *, area: Array, height: int, width: int) -> Array:
    """One box an example, with the proportions of the image.

    Args:
        row: of the centre, as a share of the height in [0, 1), [B].
        column: of the centre, as a share of the width.
        area: of the box before what lies outside is cut off, as a share of the image's, [B].
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        bool [B, height, width], true inside the box.
    """
    side = jnp.sqrt(area)
    down = _interval(row, side, height)
    across = _interval(column, side, width)
    return down[:, :, None] & across[:, None, :]


def _interval(centre: Array, side: Array, length: int) -> Array:
    """Which of `length` pixels lie in an interval of round(side * length): bool [B, length]."""
    size = jnp.round(side * length).astype(jnp.int32)
    start = jnp.floor(centre * length).astype(jnp.int32) - size // 2
    pixels = jnp.arange(length)
    return (pixels >= start[:, None]) & (pixels < (start + size)[:, None])


def mix_targets(own: Array, other: Array, *, share: Array) -> Array:
    """The sum of share * own and (1 - share) * other, -1 where a part that counts is unknown.

    Args:
        own: float32 [B, C], -1 where unknown.
        other: the partner's.
        share: of the own ones, in [0, 1], [B].

    Returns:
        float32 [B, C].
    """
    share = share[:, None]
    unknown = ((own < 0) & (share > 0)) | ((other < 0) & (share < 1))
    return jnp.where(unknown, -1.0, share * own + (1 - share) * other)


def _neighbour(x: Array, group_size: int | None) -> Array:
    """Row i is that of the next example in its group, cyclically; [B, ...]."""
    groups = in_groups(x, group_size)
    if groups.shape[1] < 2:
        raise ValueError(
            f"a batch of {x.shape[0]} with group_size={group_size} leaves every example alone in "
            "its group: mixing needs groups of two or more"
        )
    return jnp.roll(groups, -1, axis=1).reshape(x.shape)


def _per_pixel(x: Array) -> Array:
    return x[:, None, None]
