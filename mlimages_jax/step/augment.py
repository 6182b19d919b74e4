# SPDX-License-Identifier: BSD-3-Clause
"""Colour and rotation of training images, batched, on the device.

Every function takes a whole batch with one parameter an example and treats examples independently:
under jit with the batch sharded over devices nothing is communicated. The operations are those of
`tf.image` and `tf.contrib.image`, matched to the released training script's numbers.
"""

import math

import jax
import jax.numpy as jnp

# The ranges of the released script's distort_color and rotate_image.
BRIGHTNESS = 32 / 255  # added: +-
SATURATION = (0.5, 1.5)  # factor
HUE = 0.2  # turns of the colour circle: +-
CONTRAST = (0.5, 1.5)  # factor
ROTATION = math.radians(45)  # +-

ROTATE_THEN_COLOUR, CONTRAST_EARLY, UNCHANGED = range(3)  # the three ways of pretrain_augment


def to_model_input(images: jax.Array) -> jax.Array:
    """Maps uint8 [..., 3] to float32 in [-1, 1]; floats are taken to be there and pass through."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) * (2 / 255) - 1


def adjust_brightness(x: jax.Array, delta: jax.Array) -> jax.Array:
    """Adds delta [B] to x [B, H, W, 3]; not clipped, like all operations here."""
    return x + _per_example(delta)


def adjust_contrast(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales each channel's distance to its mean over the image: [B, H, W, 3], factor [B]."""
    factor = _per_example(factor)
    mean = x.mean(axis=(1, 2), keepdims=True)
    return x * factor + mean * (1 - factor)  # exact for factor 1, unlike (x - mean) * factor + mean


def adjust_saturation(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiplies the saturation of HSV and clips it to [0, 1]: x [B, H, W, 3], factor [B].

    With V = max and S = (max - min) / max, changing S alone moves each channel along the line to
    the maximum: by the factor itself, or by as much as brings the minimum to 0. Pixels without a
    positive channel have no saturation and become grey.
    """
    high, low = _extremes(x)
    limit = jnp.maximum(high, 0) / _nonzero(high - low)
    scale = jnp.minimum(factor[:, None, None], limit)
    return high[..., None] + (x - high[..., None]) * scale[..., None]


def adjust_hue(x: jax.Array, delta: jax.Array) -> jax.Array:
    """Turns the hue by delta [B] (1 is the whole circle); x [B, H, W, 3] keeps each max and min.

    Formulas of the hexagonal hue, in sixths of the circle, red at 0, green at 2, blue at 4.
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
    )  # 1 within a sixth of the channel's own hue, 0 from a third on
    return low[..., None] + (high - low)[..., None] * jnp.clip(strength, 0, 1)


def rotate(x: jax.Array, radians: jax.Array) -> jax.Array:
    """Rotates each image about its centre, counter-clockwise for positive angles.

    Args:
      x: [B, H, W, C] of any type.
      radians: float [B].

    Returns:
      Same shape and type: the nearest source pixel, 0 where that lies outside.
    """
    height, width = x.shape[1:3]
    rows = jnp.arange(height) - (height - 1) / 2
    columns = jnp.arange(width) - (width - 1) / 2
    sin, cos = jnp.sin(radians)[:, None, None], jnp.cos(radians)[:, None, None]
    row = sin * columns + cos * rows[:, None] + (height - 1) / 2  # [B, H, W]
    column = cos * columns - sin * rows[:, None] + (width - 1) / 2
    row = jnp.floor(row + 0.5).astype(jnp.int32)
    column = jnp.floor(column + 0.5).astype(jnp.int32)
    if x.dtype != jnp.uint8 or x.shape[3] != 3:
        return jax.vmap(_pick)(x, row, column)
    # One word a pixel: XLA for TPUs counts a third of the bytes (docs/benchmarks/training_step.md).
    words = jax.lax.bitcast_convert_type(jnp.pad(x, [(0, 0)] * 3 + [(0, 1)]), jnp.uint32)
    return jax.lax.bitcast_convert_type(jax.vmap(_pick)(words, row, column), jnp.uint8)[..., :3]


def _pick(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """image[row, column], 0 outside; under vmap, so that a sharded batch stays where it is.

    image is [H, W] or [H, W, C].
    """
    height, width = image.shape[:2]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = image.at[row, column].get(mode="clip")
    inside = inside.reshape(*inside.shape, *[1] * (image.ndim - 2))
    return jnp.where(inside, values, jnp.zeros_like(values))


def pretrain_augment(
    key: jax.Array, images: jax.Array, *, colour: bool = True, rotation: bool = True
) -> jax.Array:
    """Distorts a training batch in one of three ways an example, each as likely as the others.

    1. rotation, then brightness, saturation, hue, contrast;
    2. brightness, contrast, saturation, hue;
    3. nothing.

    Example i depends on the key, i and the image only, however the batch is sharded.

    Args:
      key: A jax.random key, fresh for each step.
      images: uint8 [B, S, S, 3].
      colour: Whether to apply the colour operations.
      rotation: Whether to rotate.

    Returns:
      float32 [B, S, S, 3] in [-1, 1].
    """
    draws = jax.random.uniform(key, [images.shape[0], 6])  # row i is the same for any B
    choice, angle, brightness, saturation, hue, contrast = draws.T
    way = jnp.floor(3 * choice).astype(jnp.int32)  # [B]
    if rotation:
        angle = _between(-ROTATION, ROTATION, angle)
        images = rotate(images, jnp.where(way == ROTATE_THEN_COLOUR, angle, 0))
    x = images.astype(jnp.float32) / 255
    if colour:
        x = distort_colour(
            x,
            way,
            brightness=_between(-BRIGHTNESS, BRIGHTNESS, brightness),
            saturation=_between(*SATURATION, saturation),
            hue=_between(-HUE, HUE, hue),
            contrast=_between(*CONTRAST, contrast),
        )
    return 2 * x - 1


def distort_colour(
    x: jax.Array,
    way: jax.Array,
    *,
    brightness: jax.Array,
    saturation: jax.Array,
    hue: jax.Array,
    contrast: jax.Array,
) -> jax.Array:
    """Applies the colour operations in the order of each example's way.

    The two orders differ in the place of contrast only, so both run as one chain with contrast at
    either end, neutral (exactly) where it has no place.

    Args:
      x: float32 [B, H, W, 3] in [0, 1].
      way: int [B]: ROTATE_THEN_COLOUR, CONTRAST_EARLY or UNCHANGED.
      brightness: [B], see adjust_brightness.
      saturation: [B], see adjust_saturation.
      hue: [B], see adjust_hue.
      contrast: [B], see adjust_contrast.

    Returns:
      float32 [B, H, W, 3], clipped to [0, 1].
    """
    early = way == CONTRAST_EARLY
    distorted = adjust_brightness(x, brightness)
    distorted = adjust_contrast(distorted, jnp.where(early, contrast, 1))
    distorted = adjust_hue(adjust_saturation(distorted, saturation), hue)
    distorted = adjust_contrast(distorted, jnp.where(early, 1, contrast))
    return jnp.clip(jnp.where(_per_example(way == UNCHANGED), x, distorted), 0, 1)


def _between(low: float, high: float, share: jax.Array) -> jax.Array:
    return low + (high - low) * share


def _per_example(values: jax.Array) -> jax.Array:
    """[B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]


def _extremes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Largest and smallest channel: [..., 3] -> two of [...], cheaper than two reductions."""
    red, green, blue = jnp.unstack(x, axis=-1)
    high = jnp.maximum(jnp.maximum(red, green), blue)
    return high, jnp.minimum(jnp.minimum(red, green), blue)


def _nonzero(spread: jax.Array) -> jax.Array:
    """1 in place of 0: grey pixels have no hue, and any divisor serves."""
    return jnp.where(spread > 0, spread, 1)
