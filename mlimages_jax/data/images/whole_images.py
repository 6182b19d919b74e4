# SPDX-License-Identifier: BSD-3-Clause
"""Decodes all pixels of an image file, upright, and computes the memory that this takes.

Turning an image stored on its side needs two copies, 6 bytes per pixel: too much above 33
megapixels. Such a JPEG is decoded in strips that are written into the upright image. Where that is
impossible (other formats, CMYK, the largest progressive files, no compiled code) two copies are
used.
"""

import numpy as np

from mlimages_jax.data.images import jpeg, other_formats
from mlimages_jax.data.images.budget import BYTES_BESIDE, BYTES_PER_PIXEL, decoding_bytes
from mlimages_jax.data.images.image_types import BadImage, ImageHeader
from mlimages_jax.data.images.orientation import upright

MAX_SIDE = 1_000_000  # limit of libpng and OpenCV


def check_size(width: int, height: int, *, max_pixels: int) -> None:
    """Refuses images above the limits.

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
    """Returns the peak memory of `pixels` in bytes.

    Raises:
        BadImage: too_large, see `decoding_bytes`.
    """
    size = _reduced_pixels(header, factor)
    once = decoding_bytes(header, pixels=size)
    if orientation < 5:
        return once
    if _turns_in_strips(header, factor):
        return once + jpeg.STRIP_BYTES
    return max(once, 2 * BYTES_PER_PIXEL * size)  # turning starts after the decoder has finished


def pixels(
    data: bytes, header: ImageHeader, *, max_pixels: int, factor: int = 1, orientation: int = 1
) -> np.ndarray:
    """Decodes a file of any format; the caller must hold the bytes that are `needed`.

    Args:
        data: The bytes of the file.
        header: Header of the file.
        max_pixels: Limit of the decoded pixels, which may be more than the header of other formats
            claims.
        factor: Decode a JPEG at 1 / factor of its size: 1, 2, 4 or 8.
        orientation: EXIF orientation to undo, 1 to 8.

    Returns:
        uint8 [H, W, 3], RGB, upright.

    Raises:
        BadImage: If the file cannot be decoded; has the reason.
        Exception: Anything that a library raises.
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
    """Returns whether two copies would be too much; each strip decodes all strips before it."""
    allowed = BYTES_PER_PIXEL * header.width * header.height + BYTES_BESIDE
    return (
        2 * BYTES_PER_PIXEL * _reduced_pixels(header, factor) > allowed
        and header.format == "jpeg"
        and header.components != 4
        and header.held + jpeg.STRIP_BYTES <= BYTES_BESIDE
        and jpeg.is_compiled()
    )
