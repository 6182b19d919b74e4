# SPDX-License-Identifier: BSD-3-Clause
"""All pixels of an image file, upright: their size, the memory that they take, and decoding them.

An image that lies on its side is needed twice while it is turned, 6 bytes a pixel: too much over 33
megapixels. Such a JPEG is decoded in strips that go to their place in the upright image. Where that
does not work (other formats, CMYK, the largest progressive files, no compiled code) it is read all
the same, with two copies.
"""

import numpy as np

from mlimages_jax.data.images import jpeg, other_formats
from mlimages_jax.data.images.budget import BYTES_BESIDE, BYTES_PER_PIXEL, decoding_bytes
from mlimages_jax.data.images.image_types import BadImage, ImageHeader
from mlimages_jax.data.images.orientation import upright

MAX_SIDE = 1_000_000  # of libpng, and of OpenCV


def check_size(width: int, height: int, *, max_pixels: int) -> None:
    """Refuses what is over the cap.

    Raises:
      BadImage: too_large.
    """
    if width * height > max_pixels:
        message = f"{width} x {height} pixels are more than the {max_pixels:,} allowed"
        raise BadImage("too_large", message)
    if max(width, height) > MAX_SIDE:
        message = f"{width} x {height} pixels: a side is over the {MAX_SIDE:,} allowed"
        raise BadImage("too_large", message)


def needed(header: ImageHeader, *, factor: int = 1, orientation: int = 1) -> int:
    """Bytes that `pixels` takes at its peak.

    Raises:
      BadImage: too_large, see `decoding_bytes`.
    """
    size = _reduced_pixels(header, factor)
    once = decoding_bytes(header, pixels=size)
    if orientation < 5:
        return once
    if _turns_in_strips(header, factor):
        return once + jpeg.STRIP_BYTES
    return max(once, 2 * BYTES_PER_PIXEL * size)  # the decoder is done when the turning begins


def pixels(
    data: bytes, header: ImageHeader, *, max_pixels: int, factor: int = 1, orientation: int = 1
) -> np.ndarray:
    """Decodes a file of any format; the caller holds what is `needed`.

    Args:
      data: The bytes of the file.
      header: Of the file.
      max_pixels: What other formats decode to may be larger than their header says.
      factor: Of a JPEG: decode at 1, 1/2, 1/4 or 1/8 of the size.
      orientation: EXIF's 1 to 8, to be undone.

    Returns:
      uint8 [H, W, 3], RGB, upright.

    Raises:
      BadImage: With a reason.
      Exception: Whatever a library raises.
    """
    if orientation >= 5 and _turns_in_strips(header, factor):
        return jpeg.decode_turned(data, header, orientation=orientation, factor=factor)
    if header.format == "jpeg":
        return upright(jpeg.decode(data, header, factor=factor), orientation)
    decoded = other_formats.decode(data, header)
    check_size(decoded.shape[1], decoded.shape[0], max_pixels=max_pixels)
    return upright(decoded, orientation)


def _reduced_pixels(header: ImageHeader, factor: int) -> int:
    return jpeg.reduced(header.height, factor) * jpeg.reduced(header.width, factor)


def _turns_in_strips(header: ImageHeader, factor: int) -> bool:
    """Only what two copies are too much for: each strip decodes the strips before it once more."""
    allowed = BYTES_PER_PIXEL * header.width * header.height + BYTES_BESIDE
    return (
        2 * BYTES_PER_PIXEL * _reduced_pixels(header, factor) > allowed
        and header.format == "jpeg"
        and header.components != 4
        and header.held + jpeg.STRIP_BYTES <= BYTES_BESIDE
        and jpeg.is_compiled()
    )
