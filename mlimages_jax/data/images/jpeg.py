# SPDX-License-Identifier: BSD-3-Clause
"""Decodes JPEG files with simplejpeg, and with compiled code if it was built.

`_jpeg` (see its .pyi) decodes a window without the rest, with pixels identical to simplejpeg's. It
is built when the package is installed, if there are a C compiler and libjpeg-turbo's headers (on
Debian and Ubuntu the packages gcc and libjpeg-dev); without it everything works, but slower.
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
    _jpeg = None  # type: ignore[assignment]  # was not built, see `is_compiled`

_Result = TypeVar("_Result")

_STRIP = 2**20  # pixels converted at a time
STRIP_BYTES = 50_000_000  # of strips to be turned; large, as each decodes all strips before it
_MOST_REWRITTEN = 16_000_000  # pixels of files that need not be
_EXTRA_COLUMNS = 48  # in the result of the compiled code, see _jpeg.pyi


def is_compiled() -> bool:
    """Returns whether the compiled code was built."""
    return _jpeg is not None


def reduction(header: ImageHeader, *, min_height: int, min_width: int) -> int:
    """Returns the largest of 1, 2, 4, 8 that leaves at least these sides; 1 if both are 0.

    The decoder's other factors (7/8, 3/4, ...) save no time.
    """
    if min_height <= 0 and min_width <= 0:
        return 1
    for factor in (8, 4, 2):
        if -(-header.height // factor) >= min_height and -(-header.width // factor) >= min_width:
            return factor
    return 1


def reduced(pixels: int, factor: int) -> int:
    """Returns the length of a side at 1 / factor of its size, rounded up."""
    return -(-pixels // factor)


def decode(
    data: bytes, header: ImageHeader, *, factor: int = 1, colorspace: str = "RGB"
) -> np.ndarray:
    """Decodes an entire image at 1 / factor of its size.

    Args:
        data: Bytes of the file.
        header: Header of the file.
        factor: 1, 2, 4 or 8.
        colorspace: RGB or GRAY.

    Returns:
        uint8 [ceil(H / factor), ceil(W / factor), 3, or 1 for GRAY].

    Raises:
        BadImage: If it is truncated or corrupt; any warning of libjpeg counts.
    """
    if header.components == 4:
        return _attempt(data, lambda file: _rgb_of_cmyk(_whole(file, header, factor, "CMYK")))
    return _attempt(data, lambda file: _whole(file, header, factor, colorspace))


def without_warnings(data: bytes, header: ImageHeader) -> bytes:
    """Returns the file, repaired (see `jpeg_markers.repaired`) if libjpeg warns about it.

    Raises:
        BadImage: See `decode`.
    """

    def check(file: bytes) -> bytes:
        _whole(file, header, 8, "GRAY")
        return file

    return _attempt(data, check)


def _attempt(data: bytes, decoder: Callable[[bytes], _Result]) -> _Result:
    """Applies a decoder to the file, or if it fails, to the file without harmless faults."""
    try:
        return decoder(data)
    except (ValueError, OSError) as error:
        # Only after a failure: intact files, nearly all, need not be walked and copied.
        mended = jpeg_markers.repaired(data)
        if mended is not None:
            with contextlib.suppress(ValueError, OSError):
                return decoder(mended)
        raise _bad_image(error) from error


def _whole(data: bytes, header: ImageHeader, factor: int, colorspace: str) -> np.ndarray:
    height, width = reduced(header.height, factor), reduced(header.width, factor)
    try:
        # strict: libjpeg only warns about missing or damaged data, and fills the pixels with grey.
        return simplejpeg.decode_jpeg(
            data, colorspace=colorspace, min_height=height, min_width=width, strict=True
        )
    except ValueError as error:
        if "subsampling" not in str(error):  # TurboJPEG knows only the usual ones, libjpeg all
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
    """Converts uint8 [H, W, 4], inverted as Adobe stores it, to RGB [H, W, 3] in place."""
    if pixels.shape[2] == 3:  # Pillow has already converted it
        return pixels
    height, width, _ = pixels.shape
    result = pixels.reshape(-1)[: 3 * height * width].reshape(height, width, 3)
    rows = -(-_STRIP // width)
    for top in range(0, height, rows):
        strip = pixels[top : top + rows]
        light = strip[:, :, 3:].astype(np.uint16)
        ink = (255 - strip[:, :, :3]) * light + np.uint16(128)  # at most 65,153
        # Rounded division by 255, like Pillow's; writing never overtakes reading.
        result[top : top + rows] = light - ((ink >> 8) + ink >> 8)
    return result


def decode_window(
    data: bytes, header: ImageHeader, window: tuple[int, int, int, int], *, factor: int = 1
) -> np.ndarray:
    """Returns a part of the result of `decode`; the compiled code decodes little else.

    Unlike `decode`, it does not notice damage after the window.

    Args:
        data: Bytes of the file.
        header: Header of the file.
        window: Top, left, height and width in the reduced image.
        factor: 1, 2, 4 or 8.

    Returns:
        uint8 [height, width, 3], RGB; its rows need not be contiguous.

    Raises:
        BadImage: See `decode`.
        ValueError: If the window is not inside the image.
    """
    top, left, height, width = window
    bottom, right = top + height, left + width
    whole = reduced(header.height, factor), reduced(header.width, factor)
    if not (0 <= top < bottom <= whole[0] and 0 <= left < right <= whole[1]):
        raise ValueError(f"the window {window} does not lie in {whole[0]}x{whole[1]} pixels")
    if _jpeg is None:
        return decode(data, header, factor=factor)[top:bottom, left:right]
    # libjpeg decodes whole blocks, so it may start some columns before the window.
    rows = np.empty((height, width + _EXTRA_COLUMNS, 3), np.uint8)
    compiled = _jpeg  # for mypy: the global could change before the lambda is called
    column = _attempt(
        data, lambda file: compiled.decode_window(file, factor, top, left, height, width, rows)
    )
    return rows[:, column : column + width]


def decode_turned(
    data: bytes, header: ImageHeader, *, orientation: int, factor: int = 1
) -> np.ndarray:
    """Decodes an image stored on its side and returns it upright, without a second copy.

    Needs the compiled code.

    Args:
        data: Bytes of the file, with 1 or 3 components.
        header: Header of the file.
        orientation: EXIF orientation, 5 to 8.
        factor: 1, 2, 4 or 8.

    Returns:
        uint8 [ceil(W / factor), ceil(H / factor), 3].

    Raises:
        BadImage: See `decode`.
    """
    height, width = reduced(header.height, factor), reduced(header.width, factor)
    result = np.empty((width, height, 3), np.uint8)
    stored = as_stored(result, orientation)  # a view, so that writing to it turns the pixels
    rows = max(1, STRIP_BYTES // (3 * (width + _EXTRA_COLUMNS)))
    for top in range(0, height, rows):
        window = (top, 0, min(rows, height - top), width)
        stored[top : top + rows] = decode_window(data, header, window, factor=factor)
    return result


def sequential(
    data: bytes, *, restart_markers: bool = False, header: ImageHeader | None = None
) -> bytes:
    """Converts a progressive file to a sequential one with the same pixels, faster to decode.

    Coefficients and markers are kept. Other files, and all files without the compiled code, are
    returned unchanged.

    Args:
        data: Bytes of a file with 1 or 3 components.
        restart_markers: Whether to rewrite every file such that `decode_window` need not decode
            what is above and beside a window: with a restart marker about every 64 pixels, 1% more
            bytes. Files of more than 16 million pixels stay as they are, since all coefficients
            have to be in memory, 6 bytes a pixel.
        header: Its header, if it has been read.

    Raises:
        BadImage: If a file to convert is damaged.
    """
    if _jpeg is None:
        return data
    # As before every decoder: refuses dangerous files.
    header = header or read_jpeg_header(data)
    in_intervals = restart_markers and header.width * header.height <= _MOST_REWRITTEN
    compiled = _jpeg  # for mypy: the global could change before the lambda is called
    return _attempt(data, lambda file: compiled.rewritten(file, in_intervals)) or data


def _bad_image(error: Exception) -> BadImage:
    if "Premature end" in str(error) or "truncated" in str(error):
        reason = "truncated"
    elif "not implemented" in str(error) or "Unsupported JPEG process" in str(error):
        reason = "unsupported"
    else:
        reason = "corrupt"
    return BadImage(reason, f"libjpeg: {described(error)}")
