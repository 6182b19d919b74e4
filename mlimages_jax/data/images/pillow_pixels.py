# SPDX-License-Identifier: BSD-3-Clause
"""Extracts pixels from an image opened by Pillow, with at most 4 bytes of memory per pixel.

Pillow stores colours in 4 bytes per pixel and returns copies, with a peak of 10 bytes per pixel.
Here it decodes into our memory, and strips of it are converted to RGB in place.
"""

import math
import warnings

import numpy as np
from PIL import Image

from mlimages_jax.data.images.image_types import BadImage

_STRIP = 2**18  # pixels converted at a time: 8 MB while they are blended with white
_DEEP = {"I;16", "I;16B", "I;16L", "I;16N"}
_BYTE = {"1", "L", "P"}
_WORD = {"RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr"}  # 4 bytes a pixel


# Hundreds of warnings about damaged tags in TIFFs. What matters becomes an error of its image.
warnings.filterwarnings("ignore", module=r"PIL\.(?!Image$)")


def rgb(image: Image.Image) -> np.ndarray:
    """Returns uint8 [H, W, 3]; transparent pixels blend with white, 16 bits keep the high byte.

    Args:
        image: An opened image, not yet loaded if it comes from a file.

    Raises:
        BadImage: unsupported, for numbers of 32 bits or colours that Pillow cannot convert.
        Exception: Anything that Pillow raises for damaged files.
    """
    deep = image.mode in _DEEP or (image.mode == "I" and image.format == "PPM")
    if not deep and image.mode not in _BYTE | _WORD:
        raise BadImage(
            "unsupported",
            f"a {image.format} of the mode {image.mode}: convert it to RGB of 8 bits a channel",
        )
    memory = _own_memory(image) if image.mode in _WORD else None
    image.load()
    width, height = image.size
    if memory is None:
        pixels = np.empty((height, width, 3), np.uint8)
    else:
        pixels = memory.reshape(-1)[: 3 * height * width].reshape(height, width, 3)
    rows = math.ceil(_STRIP / width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        # With our own memory this overwrites rows that were read, never rows still to come.
        pixels[top : top + rows] = _shallow(strip) if deep else _converted(strip)
    return pixels


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Blends uint8 [H, W, 4] with white: uint8 [H, W, 3]."""
    if rgba[:, :, 3].min() == 255:
        return rgba[:, :, :3]
    alpha = rgba[:, :, 3:].astype(np.uint16)
    mixed = rgba[:, :, :3] * alpha + 255 * (255 - alpha)  # at most 255 * 255: fits into 16 bits
    mixed += 127
    return (mixed + 1 + (mixed >> 8) >> 8).astype(np.uint8)  # divided by 255, rounded


def _own_memory(image: Image.Image) -> np.ndarray | None:
    """Makes a file decode into our memory, uint8 [H, W, 4]; returns None if that is impossible.

    Pillow does the same with memory-mapped files. The interface is not public: without it the
    pixels are the same but take twice the memory.
    """
    if not getattr(image, "tile", None):  # already loaded, or its decoder cannot use our memory
        return None
    memory = np.zeros((image.height, image.width, 4), np.uint8)
    layout = (image.mode, 4 * image.width, 1)
    try:
        image.im = Image.core.map_buffer(memory, image.size, "raw", 0, layout)
    except (AttributeError, TypeError, ValueError):
        return None
    return memory


def _converted(strip: Image.Image) -> np.ndarray:
    if strip.mode == "1" and "transparency" in strip.info:
        strip = _with_key(strip.convert("L"), strip.info["transparency"])
    if strip.mode == "La":
        strip = strip.convert("LA")  # Pillow has no direct conversion to RGBA
    if strip.has_transparency_data:
        return on_white(np.asarray(strip.convert("RGBA")))
    return np.asarray(strip.convert("RGB"))


def _with_key(strip: Image.Image, key: object) -> Image.Image:
    strip.info["transparency"] = key
    return strip


def _shallow(strip: Image.Image) -> np.ndarray:
    deep = np.asarray(strip)  # [h, W], 16 bits
    pixels = np.repeat((deep >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    key = strip.info.get("transparency")
    if isinstance(key, int):
        pixels[deep == key] = 255
    return pixels
