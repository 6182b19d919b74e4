# SPDX-License-Identifier: BSD-3-Clause
"""JPEG files to pixels: simplejpeg, and compiled code where it was built.

`_jpeg` (see its .pyi) decodes a window without the rest, to the very pixels that simplejpeg gives.
It is built when the package is installed, if there is a C compiler and libjpeg-turbo's headers (on
Debian and Ubuntu the packages gcc and libjpeg-dev); without it everything works the same, slower.
"""

import contextlib
import io
from collections.abc import Callable
from typing import TypeVar

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from mlimages_jax.data.images import jpeg_markers, pillow_pixels
from mlimages_jax.data.images.image_types import BadImage, ImageHeader, described
from mlimages_jax.data.images.jpeg_markers import read_jpeg_header
from mlimages_jax.data.images.orientation import as_stored

try:
    from mlimages_jax.data.images import _jpeg
except ImportError:
    _jpeg = None  # type: ignore[assignment]

_Result = TypeVar("_Result")

_STRIP = 2**20  # pixels that are converted at a time
STRIP_BYTES = 50_000_000  # of the strips that are turned: few, since each decodes those before it
_EXTRA_COLUMNS = 48  # of the compiled code's result, see _jpeg.pyi


def is_compiled() -> bool:
    """Whether the compiled code was built."""
    return _jpeg is not None


def reduction(header: ImageHeader, *, min_height: int, min_width: int) -> int:
    """The largest of 1, 2, 4, 8 that still leaves so many pixels a side; 1 where both are 0.

    The decoder's other factors (7/8, 3/4, ...) save no time.
    """
    if min_height <= 0 and min_width <= 0:
        return 1
    for factor in (8, 4, 2):
        if -(-header.height // factor) >= min_height and -(-header.width // factor) >= min_width:
            return factor
    return 1


def reduced(pixels: int, factor: int) -> int:
    """A side at 1 / factor of its size: rounded up."""
    return -(-pixels // factor)


def decode(
    data: bytes, header: ImageHeader, *, factor: int = 1, colorspace: str = "RGB"
) -> np.ndarray:
    """All of an image at 1 / factor of its size.

    Args:
        data: the file.
        header: its header.
        factor: 1, 2, 4 or 8.
        colorspace: RGB or GRAY.

    Returns:
        uint8 [ceil(H / factor), ceil(W / factor), 3, or 1 for GRAY].

    Raises:
        BadImage: truncated or corrupt: any warning of libjpeg counts.
    """
    if header.components == 4:
        return _attempt(data, lambda file: _rgb_of_cmyk(_whole(file, header, factor, "CMYK")))
    return _attempt(data, lambda file: _whole(file, header, factor, colorspace))


def without_warnings(data: bytes, header: ImageHeader) -> bytes:
    """The file itself, or repaired (`jpeg_markers.repaired`) where libjpeg warns of it.

    Raises:
        BadImage: as `decode`.
    """

    def check(file: bytes) -> bytes:
        _whole(file, header, 8, "GRAY")
        return file

    return _attempt(data, check)


def _attempt(data: bytes, decoder: Callable[[bytes], _Result]) -> _Result:
    """What the decoder makes of the file, or else of the file without harmless faults."""
    try:
        return decoder(data)
    except (ValueError, OSError) as error:
        mended = jpeg_markers.repaired(data)
        if mended is not None:
            with contextlib.suppress(ValueError, OSError):
                return decoder(mended)
        raise _bad_image(error) from error


def _whole(data: bytes, header: ImageHeader, factor: int, colorspace: str) -> np.ndarray:
    height, width = reduced(header.height, factor), reduced(header.width, factor)
    try:
        return simplejpeg.decode_jpeg(
            data, colorspace=colorspace, min_height=height, min_width=width, strict=True
        )
    except ValueError as error:
        if "subsampling" not in str(error):  # TurboJPEG knows the usual ones only, libjpeg all
            raise
    if _jpeg is not None and header.components != 4:
        pixels = np.empty((height, width, 3), np.uint8)
        _jpeg.decode_window(data, factor, 0, 0, height, width, pixels)
        return pixels
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        whole = pillow_pixels.rgb(image)
    size = width, height
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA) if factor > 1 else whole


def _rgb_of_cmyk(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4], inverted as Adobe stores it, to RGB in its place: [H, W, 3]."""
    if pixels.shape[2] == 3:  # Pillow has done it
        return pixels
    height, width, _ = pixels.shape
    result = pixels.reshape(-1)[: 3 * height * width].reshape(height, width, 3)
    rows = -(-_STRIP // width)
    for top in range(0, height, rows):
        strip = pixels[top : top + rows]
        light = strip[:, :, 3:].astype(np.uint16)
        ink = (255 - strip[:, :, :3]) * light + np.uint16(128)  # at most 65,153
        # Rounded division by 255, as Pillow does it; the result overtakes no row to be read.
        result[top : top + rows] = light - ((ink >> 8) + ink >> 8)
    return result


def decode_window(
    data: bytes, header: ImageHeader, window: tuple[int, int, int, int], *, factor: int = 1
) -> np.ndarray:
    """A part of what `decode` gives; the compiled code decodes little else.

    It does not see damage behind the window, which `decode` refuses.

    Args:
        data: the file.
        header: its header.
        window: top, left, height and width in the reduced image.
        factor: 1, 2, 4 or 8.

    Returns:
        uint8 [height, width, 3], RGB; its rows need not be contiguous.

    Raises:
        BadImage: as `decode`.
        ValueError: when the window does not lie inside the image.
    """
    top, left, height, width = window
    bottom, right = top + height, left + width
    whole = reduced(header.height, factor), reduced(header.width, factor)
    if not (0 <= top < bottom <= whole[0] and 0 <= left < right <= whole[1]):
        raise ValueError(f"the window {window} does not lie in {whole[0]}x{whole[1]} pixels")
    if _jpeg is None:
        return decode(data, header, factor=factor)[top:bottom, left:right]
    rows = np.empty((height, width + _EXTRA_COLUMNS, 3), np.uint8)
    compiled = _jpeg
    column = _attempt(
        data, lambda file: compiled.decode_window(file, factor, top, left, height, width, rows)
    )
    return rows[:, column : column + width]


def decode_turned(
    data: bytes, header: ImageHeader, *, orientation: int, factor: int = 1
) -> np.ndarray:
    """All of an image that lies on its side, upright, without a second copy of it.

    Needs the compiled code.

    Args:
        data: the file, of 1 or 3 components.
        header: its header.
        orientation: EXIF's 5 to 8.
        factor: 1, 2, 4 or 8.

    Returns:
        uint8 [ceil(W / factor), ceil(H / factor), 3].

    Raises:
        BadImage: as `decode`.
    """
    height, width = reduced(header.height, factor), reduced(header.width, factor)
    result = np.empty((width, height, 3), np.uint8)
    stored = as_stored(result, orientation)
    rows = max(1, STRIP_BYTES // (3 * (width + _EXTRA_COLUMNS)))
    for top in range(0, height, rows):
        window = (top, 0, min(rows, height - top), width)
        stored[top : top + rows] = decode_window(data, header, window, factor=factor)
    return result


def sequential(data: bytes) -> bytes:
    """A progressive file as a sequential one: the same pixels, in a fraction of the decoding time.

    Coefficients and markers stay. Any other file, and all without the compiled code, come back as
    they are.

    Raises:
        BadImage: when a progressive file is damaged.
    """
    if _jpeg is None:
        return data
    read_jpeg_header(data)  # the gate before every decoder
    return _attempt(data, _jpeg.to_sequential) or data


def _bad_image(error: Exception) -> BadImage:
    if "Premature end" in str(error) or "truncated" in str(error):
        reason = "truncated"
    elif "not implemented" in str(error) or "Unsupported JPEG process" in str(error):
        reason = "unsupported"
    else:
        reason = "corrupt"
    return BadImage(reason, f"libjpeg: {described(error)}")
