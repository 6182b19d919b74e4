# SPDX-License-Identifier: BSD-3-Clause
"""JPEG files of 1 or 3 components to pixels: simplejpeg, and compiled code where it was built.

`_jpeg` (see its .pyi) decodes a window without the rest, to the very pixels that simplejpeg gives.
It is built when the package is installed, if there is a C compiler and libjpeg-turbo's headers (on
Debian and Ubuntu the packages gcc and libjpeg-dev); without it everything works the same, slower.
"""

import numpy as np
import simplejpeg

from mlimages_jax.data.picture_header import BadPicture, PictureHeader

try:
    from mlimages_jax.data import _jpeg
except ImportError:
    _jpeg = None  # type: ignore[assignment]

_EXTRA_COLUMNS = 48  # of the compiled code's result, see _jpeg.pyi


def is_compiled() -> bool:
    """Whether the compiled code was built."""
    return _jpeg is not None


def reduction(header: PictureHeader, *, min_height: int, min_width: int) -> int:
    """The largest of 1, 2, 4, 8 that still leaves so many pixels a side; 1 where both are 0.

    The decoder's other factors (7/8, 3/4, ...) save no time.
    """
    if min_height <= 0 and min_width <= 0:
        return 1
    fits = [
        factor
        for factor in (1, 2, 4, 8)
        if reduced(header.height, factor) >= min_height
        and reduced(header.width, factor) >= min_width
    ]
    return max(fits, default=1)


def reduced(pixels: int, factor: int) -> int:
    """A side at 1 / factor of its size: rounded up."""
    return -(-pixels // factor)


def decode(
    data: bytes, header: PictureHeader, *, factor: int = 1, colorspace: str = "RGB"
) -> np.ndarray:
    """All of a picture at 1 / factor of its size.

    Args:
        data: the file.
        header: its header.
        factor: 1, 2, 4 or 8.
        colorspace: RGB or GRAY.

    Returns:
        uint8 [ceil(H / factor), ceil(W / factor), 3, or 1 for GRAY].

    Raises:
        BadPicture: truncated or corrupt: any warning of libjpeg counts.
    """
    try:
        return simplejpeg.decode_jpeg(
            data,
            colorspace=colorspace,
            min_height=reduced(header.height, factor),
            min_width=reduced(header.width, factor),
            strict=True,
        )
    except ValueError as error:
        raise _bad_picture(error) from error


def decode_window(
    data: bytes, header: PictureHeader, window: tuple[int, int, int, int], *, factor: int = 1
) -> np.ndarray:
    """A part of what `decode` gives; the compiled code decodes little else.

    It does not see damage behind the window, which `decode` refuses.

    Args:
        data: the file.
        header: its header.
        window: top, left, height and width in the reduced picture.
        factor: 1, 2, 4 or 8.

    Returns:
        uint8 [height, width, 3], RGB; its rows need not be contiguous.

    Raises:
        BadPicture: as `decode`.
        ValueError: when the window does not lie inside the picture.
    """
    top, left, height, width = window
    bottom, right = top + height, left + width
    whole = reduced(header.height, factor), reduced(header.width, factor)
    if not (0 <= top < bottom <= whole[0] and 0 <= left < right <= whole[1]):
        raise ValueError(f"the window {window} does not lie in {whole[0]}x{whole[1]} pixels")
    if _jpeg is None:
        return decode(data, header, factor=factor)[top:bottom, left:right]
    rows = np.empty((height, width + _EXTRA_COLUMNS, 3), np.uint8)
    try:
        column = _jpeg.decode_window(data, factor, top, left, height, width, rows)
    except ValueError as error:
        raise _bad_picture(error) from error
    return rows[:, column : column + width]


def sequential(data: bytes) -> bytes:
    """A progressive file as a sequential one: the same pixels, in a fraction of the decoding time.

    Coefficients and markers stay. Any other file, and all without the compiled code, come back as
    they are.

    Raises:
        BadPicture: when a progressive file is damaged.
    """
    if _jpeg is None:
        return data
    try:
        return _jpeg.to_sequential(data) or data
    except ValueError as error:
        raise _bad_picture(error) from error


def _bad_picture(error: ValueError) -> BadPicture:
    reason = "truncated" if "Premature end" in str(error) else "corrupt"
    return BadPicture(reason, f"libjpeg: {error}")
