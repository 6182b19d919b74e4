# SPDX-License-Identifier: BSD-3-Clause
"""Batched colour and rotation augmentation of training images, on the device.

Every function takes a batch with one parameter per example and treats examples independently, so a
batch that is sharded over devices needs no communication. The operations follow `tf.image` and
`tf.contrib.image`, with the ranges of the released training script.
"""

import math

import jax
import jax.numpy as jnp

from mlimages_jax.step.draws import Key, uniform

# The ranges of the released script's distort_color and rotate_image.
BRIGHTNESS = 32 / 255  # +-, added
SATURATION = (0.5, 1.5)  # factor
HUE = 0.2  # +-, in turns of the colour circle
CONTRAST = (0.5, 1.5)  # factor
ROTATION = math.radians(45)  # +-, in radians

ROTATE_THEN_COLOUR, CONTRAST_EARLY, UNCHANGED = range(3)  # the variants of pretrain_augment


def to_model_input(images: jax.Array) -> jax.Array:
    """Maps uint8 [..., 3] to float32 in [-1, 1]; floats are assumed to be in that range already."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) * (2 / 255) - 1


def adjust_brightness(x: jax.Array, delta: jax.Array) -> jax.Array:
    """Adds delta [B] to x [B, H, W, 3]. Like all operations here, does not clip."""
    return x + _per_example(delta)


def adjust_contrast(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales each channel's deviation from its mean over the image: x [B, H, W, 3], factor [B]."""
    factor = _per_example(factor)
    mean = x.mean(axis=(1, 2), keepdims=True)
    return x * factor + mean * (1 - factor)  # exact at factor 1, unlike (x - mean) * factor + mean


def adjust_saturation(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiplies the HSV saturation and clips it to [0, 1]: x [B, H, W, 3], factor [B].

    With V = max and S = (max - min) / max, changing only S scales each channel's distance to the
    maximum: by the factor, but at most until the minimum is 0. Pixels without a positive channel
    have no saturation and become grey.
    """
    high, low = _extremes(x)
    limit = jnp.maximum(high, 0) / _nonzero(high - low)
    scale = jnp.minimum(factor[:, None, None], limit)
    return high[..., None] + (x - high[..., None]) * scale[..., None]


def adjust_hue(x: jax.Array, delta: jax.Array) -> jax.Array:
    """Rotates the hue by delta [B] (1 is a full turn), keeping max and min of x [B, H, W, 3].

    Uses the hexagonal hue in sixths of the circle: red at 0, green at 2, blue at 4.
    """
    red, green, blue = jnp.unstack(x, axis=-1)
    high, low = _extremes(x)
    spread = _nonzero(high - low)
    hue = jnp.where(
        red == high,
        (green - blue) / spread,
        jnp.where(green == high, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    hue = hue + 6 * delta[:, None, None]  # [B, H, W]
    hue = hue - 6 * jnp.floor(hue / 6)  # jnp.mod is many times slower on CPUs
    strength = jnp.stack(
        [jnp.abs(hue - 3) - 1, 2 - jnp.abs(hue - 2), 2 - jnp.abs(hue - 4)], axis=-1
    )  # 1 up to a sixth of the circle from the channel's own hue, 0 from a third on
    return low[..., None] + (high - low)[..., None] * jnp.clip(strength, 0, 1)


def rotate(x: jax.Array, radians: jax.Array) -> jax.Array:
    """Rotates each image about its centre, counter-clockwise for positive angles.

    Args:
        x: Images [B, H, W, C] of any dtype.
        radians: Angles, float [B].

    Returns:
        Images of the same shape and dtype: the nearest source pixel, or 0 outside the image.
    """
    height, width = x.shape[1:3]
    rows = jnp.arange(height) - (height - 1) / 2
    columns = jnp.arange(width) - (width - 1) / 2
    sin, cos = jnp.sin(radians)[:, None, None], jnp.cos(radians)[:, None, None]
    # The inverse rotation: each output pixel looks up its source, so no output pixel stays empty.
    row = sin * columns + cos * rows[:, None] + (height - 1) / 2  # [B, H, W]
    column = cos * columns - sin * rows[:, None] + (width - 1) / 2

    row = jnp.floor(row + 0.5).astype(jnp.int32)
    column = jnp.floor(column + 0.5).astype(jnp.int32)
    if x.dtype != jnp.uint8 or x.shape[3] != 3:
        return jax.vmap(_pick)(x, row, column)
    # Gathering one 32-bit word per pixel instead of three bytes reduces the traffic that XLA counts
    # for TPUs to a third (docs/benchmarks/training_step.md).
    words = jax.lax.bitcast_convert_type(jnp.pad(x, [(0, 0)] * 3 + [(0, 1)]), jnp.uint32)
    return jax.lax.bitcast_convert_type(jax.vmap(_pick)(words, row, column), jnp.uint8)[..., :3]


def _pick(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Returns image[row, column], or 0 outside; image is [H, W] or [H, W, C].

    Called under vmap, so that a gather from a sharded batch needs no communication.
    """
    height, width = image.shape[:2]

    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = image.at[row, column].get(mode="clip")
    inside = inside.reshape(*inside.shape, *[1] * (image.ndim - 2))
    return jnp.where(inside, values, jnp.zeros_like(values))


def pretrain_augment(
    key: Key, images: jax.Array, *, colour: bool = True, hue: float = HUE, rotation: bool = True
) -> jax.Array:
    """Distorts each example of a training batch in one of three ways, with equal probability.

    1. rotation, then brightness, saturation, hue, contrast;
    2. brightness, contrast, saturation, hue;
    3. nothing.

    The result for example i depends only on the key, i and the image, not on the sharding.

    Args:
        key: A jax.random key, fresh for each step.
        images: uint8 [B, S, S, 3].
        colour: Whether to apply the colour operations.
        hue: Largest rotation of the hue either way, in turns of the colour circle; 0 leaves that
            operation out.
        rotation: Whether to rotate.

    Returns:
        float32 [B, S, S, 3] in [-1, 1].
    """
    # With partitionable threefry, jax's default, a value depends only on the key and its index. So
    # each device draws its own rows, and one array does the work of a key per example.
    draws = uniform(key, [images.shape[0], 6])  # row i is the same for any B
    choice, angle, brightness, saturation, turn, contrast = draws.T
    # XLA computes all branches of a choice per example, so every example goes through every
    # operation once; an angle of 0 and a factor of 1 change nothing.
    way = jnp.floor(3 * choice).astype(jnp.int32)  # [B]
    if rotation:
        angle = _between(-ROTATION, ROTATION, angle)
        # Before the conversion to floats, which would be gathered at four times the bytes.
        images = rotate(images, jnp.where(way == ROTATE_THEN_COLOUR, angle, 0))
    x = images.astype(jnp.float32) / 255
    if colour:
        x = distort_colour(
            x,
            way,
            brightness=_between(-BRIGHTNESS, BRIGHTNESS, brightness),
            saturation=_between(*SATURATION, saturation),
            hue=_between(-hue, hue, turn) if hue else None,
            contrast=_between(*CONTRAST, contrast),
        )
    return 2 * x - 1


def distort_colour(
    x: jax.Array,
    way: jax.Array,
    *,
    brightness: jax.Array,
    saturation: jax.Array,
    hue: jax.Array | None,
    contrast: jax.Array,
) -> jax.Array:
    """Applies the colour operations in the order chosen for each example.

    The two orders differ only in the position of contrast, so both run as one chain with contrast
    at both ends, where one of the two has factor 1, which is exactly the identity.

    Args:
        x: float32 [B, H, W, 3] in [0, 1].
        way: int [B]: ROTATE_THEN_COLOUR, CONTRAST_EARLY or UNCHANGED.
        brightness: [B], see adjust_brightness.
        saturation: [B], see adjust_saturation.
        hue: [B], see adjust_hue; None leaves the hue alone.
        contrast: [B], see adjust_contrast.

    Returns:
        float32 [B, H, W, 3], clipped to [0, 1].
    """
    early = way == CONTRAST_EARLY
    distorted = adjust_brightness(x, brightness)
    distorted = adjust_contrast(distorted, jnp.where(early, contrast, 1))
    distorted = adjust_saturation(distorted, saturation)
    if hue is not None:
        distorted = adjust_hue(distorted, hue)
    distorted = adjust_contrast(distorted, jnp.where(early, 1, contrast))
    return jnp.clip(jnp.where(_per_example(way == UNCHANGED), x, distorted), 0, 1)


def _between(low: float, high: float, fraction: jax.Array) -> jax.Array:
    return low + (high - low) * fraction


def _per_example(values: jax.Array) -> jax.Array:
    """[B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]


def _extremes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns maximum and minimum over channels, [..., 3] -> two of [...], without a reduction."""
    red, green, blue = jnp.unstack(x, axis=-1)
    high = jnp.maximum(jnp.maximum(red, green), blue)
    return high, jnp.minimum(jnp.minimum(red, green), blue)


def _nonzero(spread: jax.Array) -> jax.Array:
    """Replaces 0 by 1: grey pixels have no hue, so any divisor is fine."""
    return jnp.where(spread > 0, spread, 1)
