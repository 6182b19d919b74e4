# SPDX-License-Identifier: BSD-3-Clause
"""Picture files to pixels: what is read, what is refused, and why.

The policy, in the order in which it is applied:

1. Magic bytes say what a file is; its name says nothing. The header gives the size, and over the
   pixel cap no decoder gets to see the file (691 bytes of JPEG can claim 65,000 x 65,000 pixels).
2. JPEG of 1 or 3 components: libjpeg-turbo, see `jpeg`; its warnings count as errors.
3. PNG with 16 bits: OpenCV, which verifies the checksums where Pillow does not.
4. CMYK and YCCK JPEG, other PNG, GIF (first frame), WebP: Pillow.
5. Everything else, and whatever a decoder refuses, is a `BadPicture` with a countable reason.

Transparent pixels are laid on white, as a browser shows them: the colours under them are arbitrary.
The EXIF orientation is ignored unless asked for, as in the original training. What is encoded anew
either is turned upright or keeps the tag, so that no image loses its orientation on the way.

Every function may be called from many threads; the decoders release Python's lock as they work.
"""

import io
import math
import struct
import threading
from typing import Literal, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from mlimages_jax.data import jpeg
from mlimages_jax.data.picture_header import BadPicture, PictureHeader, read_header
from mlimages_jax.data.transforms import CropBox

MAX_PIXELS = 2**26  # 8,192 x 8,192: 200 MB as RGB, and below the size where Pillow starts to warn
JPEG_QUALITY = 90  # in full colour resolution: smaller, and closer, than 95 with halved colour

_MAX_PIXELS_AS_FLOAT = 2**22  # 50 MB as float32, for each thread
_buffers = threading.local()

Chroma = Literal["444", "420"]
Orientation = Literal["exif", "stored"]

_EXIF_ORIENTATION = 0x0112
_ORIENTATION_MARKS = (b"Exif\0\0", b"tiff:Orientation")  # one of them is in a JPEG that has a tag


class StoredPicture(NamedTuple):
    """A JPEG of 1 or 3 components that decodes without a warning, and its size in pixels."""

    jpeg: bytes
    height: int
    width: int


def decode(
    data: bytes,
    *,
    min_height: int = 0,
    min_width: int = 0,
    exif_orientation: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode a picture file.

    Args:
      data: The bytes of the file.
      min_height: With `min_width`: a JPEG may come back at 1/2, 1/4 or 1/8 of its size, the
        smallest whose sides are at least these. Both 0: the full size.
      min_width: See `min_height`.
      exif_orientation: Turn the picture upright as its EXIF data say.
      max_pixels: Refuse a picture whose header says more (width * height). What Pillow reads is
        bound by its own limit too: it refuses twice `Image.MAX_IMAGE_PIXELS`.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      BadPicture: With a reason.
    """
    header = read_header(data)
    _check_size(header.width, header.height, max_pixels=max_pixels)
    orientation = _orientation(data, header) if exif_orientation else 1
    if orientation >= 5:  # lying on its side
        min_height, min_width = min_width, min_height
    if header.format == "jpeg" and header.components != 4:
        factor = jpeg.reduction(header, min_height=min_height, min_width=min_width)
        pixels = jpeg.decode(data, header, factor=factor)
    elif header.format == "png" and header.bits == 16:
        pixels = _decode_deep_png(data)
    else:
        pixels = _decode_with_pillow(data, header, max_pixels=max_pixels)
    return _upright(pixels, orientation)


def decode_box(data: bytes, box: CropBox, *, size: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode what a box of a picture holds, of a JPEG little else.

    Args:
      data: The bytes of the file.
      box: In pixels of the picture.
      size: A JPEG may come back at 1/2, 1/4 or 1/8 of its size, if the box then still has this many
        pixels a side; the box is rounded inwards at its far edges.
      max_pixels: As for `decode`.

    Returns:
      uint8 [h, w, 3], RGB; its rows need not be contiguous.

    Raises:
      BadPicture: With a reason. Damage of a JPEG behind the box may go unseen.
    """
    header = read_header(data)
    if header.format != "jpeg" or header.components == 4:
        pixels = decode(data, max_pixels=max_pixels)
        return pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    _check_size(header.width, header.height, max_pixels=max_pixels)
    factor = jpeg.reduction(
        header,
        min_height=math.ceil(size * header.height / box.height),
        min_width=math.ceil(size * header.width / box.width),
    )
    down = jpeg.reduced(header.height, factor) / header.height
    across = jpeg.reduced(header.width, factor) / header.width
    window = (
        int(box.top * down),
        int(box.left * across),
        max(1, int(box.height * down)),
        max(1, int(box.width * across)),
    )
    return jpeg.decode_window(data, header, window, factor=factor)


def verify(data: bytes, *, max_pixels: int = MAX_PIXELS) -> PictureHeader:
    """Checks that a picture file decodes to its end; returns what its header says.

    A broken JPEG shows while its coefficients are read, and at 1/8 of the size, in grey, they all
    are: those of colour too.

    Raises:
      BadPicture: With a reason.
    """
    header = read_header(data)
    if header.format == "jpeg" and header.components != 4:
        _check_size(header.width, header.height, max_pixels=max_pixels)
        jpeg.decode(data, header, factor=8, colorspace="GRAY")
    else:
        decode(data, max_pixels=max_pixels)
    return header


def stored_jpeg(
    data: bytes,
    *,
    short_side: int | None = None,
    quality: int = JPEG_QUALITY,
    max_pixels: int = MAX_PIXELS,
    check: bool = True,
    chroma: Chroma = "444",
    sequential: bool = False,
    orientation: Orientation = "stored",
) -> StoredPicture:
    """The JPEG that a data set stores for a picture file.

    A JPEG of 1 or 3 components that need neither shrink nor turn keeps its bytes, after it was
    decoded once as a check. Anything else is encoded anew.

    Shrinking averages (INTER_AREA). A JPEG is decoded at 1/2, 1/4 or 1/8 first where twice the
    wanted size remains: on the four photographs of the original that is 44-53 dB from averaging the
    full picture, far above the 36-44 dB that the new encoding costs.

    Args:
      data: The bytes of the file.
      short_side: Shrink the shorter side to this many pixels. None, or a smaller picture: as it is.
      quality: Of a new encoding, 1 to 100.
      max_pixels: As for `decode`.
      check: Decode what keeps its bytes; False for files that `verify` has passed before.
      chroma: Of a new encoding: "444" keeps the colours' resolution, "420" halves it, which makes
        files a fifth smaller and decoding faster by 3/10 for 2 dB (benchmarks/README.md).
      sequential: Rewrite what keeps its bytes, if it is progressive, see `jpeg.sequential`.
      orientation: "exif": turn upright as the EXIF data say, since whoever reads the result ignores
        them; a new encoding has none. "stored": pixels and orientation tag stay as they came, also
        in a new encoding.

    Raises:
      BadPicture: With a reason.
    """
    header = read_header(data)
    height, width = _shrunken_size(header.height, header.width, short_side=short_side)
    shrinks = (height, width) != (header.height, header.width)
    plain = header.format == "jpeg" and header.components != 4 and not shrinks
    tag = 1 if plain and orientation == "stored" else _orientation(data, header)
    if plain and tag == 1:
        if check:
            verify(data, max_pixels=max_pixels)
        return StoredPicture(jpeg.sequential(data) if sequential else data, height, width)
    pixels = decode(data, min_height=2 * height, min_width=2 * width, max_pixels=max_pixels)
    if shrinks:
        pixels = _shrink(pixels, height, width)
    if orientation == "exif":
        pixels, tag = _upright(pixels, tag), 1
    stored = simplejpeg.encode_jpeg(
        pixels, quality=quality, colorspace="RGB", colorsubsampling=chroma
    )
    stored = stored if tag == 1 else _with_orientation(stored, tag)
    return StoredPicture(stored, pixels.shape[0], pixels.shape[1])


def _shrink(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average uint8 [H, W, 3] to [height, width, 3]."""
    if pixels.shape[0] * pixels.shape[1] > _MAX_PIXELS_AS_FLOAT:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV averages floats in two thirds of the time. The bytes are the same, but for halves where
    # the shrinking is by a whole number: there this rounds them to even, the other upwards.
    floats = _floats("before", pixels.shape)
    np.copyto(floats, pixels)
    average = _floats("after", (height, width, 3))
    cv2.resize(floats, (width, height), dst=average, interpolation=cv2.INTER_AREA)
    return cv2.convertScaleAbs(average)


def _floats(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Memory of this thread for a float32 array, the same again: new pages would cost the gain."""
    size = math.prod(shape)
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.float32)
        setattr(_buffers, name, buffer)
    return buffer[:size].reshape(shape)


def _check_size(width: int, height: int, *, max_pixels: int) -> None:
    if width * height > max_pixels:
        message = f"{width} x {height} pixels are more than the {max_pixels:,} allowed"
        raise BadPicture("too_large", message)


def _decode_deep_png(data: bytes) -> np.ndarray:
    """Keep the high byte of each 16-bit value."""
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None:
        reason = "corrupt" if b"IEND" in data[-12:] else "truncated"
        raise BadPicture(reason, "OpenCV cannot read this PNG of 16 bits")
    shallow = np.right_shift(deep, 8).astype(np.uint8)
    if shallow.ndim == 2:
        return cv2.cvtColor(shallow, cv2.COLOR_GRAY2RGB)
    if shallow.shape[2] == 4:
        return _on_white(cv2.cvtColor(shallow, cv2.COLOR_BGRA2RGBA))
    return cv2.cvtColor(shallow, cv2.COLOR_BGR2RGB)


def _decode_with_pillow(data: bytes, header: PictureHeader, *, max_pixels: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=[header.format]) as picture:
            _check_size(*picture.size, max_pixels=max_pixels)  # a GIF's frame may exceed its screen
            if picture.has_transparency_data:
                return _on_white(np.asarray(picture.convert("RGBA")))
            return np.array(picture.convert("RGB"))  # a copy can be written to
    except BadPicture:
        raise
    except Image.DecompressionBombError as error:
        raise BadPicture("too_large", f"Pillow: {error}") from error
    except Exception as error:  # its readers raise OSError, SyntaxError, struct.error and more
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        raise BadPicture(reason, f"Pillow: {error}") from error


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 [H, W, 4] on white: uint8 [H, W, 3]."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    mixed = rgba[:, :, :3] * alpha + 255 * (255 - alpha)  # at most 255 * 255: fits 16 bits
    return ((mixed + 127) // 255).astype(np.uint8)


def _orientation(data: bytes, header: PictureHeader) -> int:
    """EXIF's 1 to 8; 1 where there is none or nonsense."""
    if header.format == "jpeg" and not any(mark in data for mark in _ORIENTATION_MARKS):
        return 1  # as most: Pillow would take a twentieth of the time of storing one
    try:
        with Image.open(io.BytesIO(data), formats=[header.format]) as picture:
            value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a picture with broken EXIF data is still a picture
        return 1
    return int(value) if value in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (EXIF 2.32, tag 274): where row 0 and column 0 belong."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _with_orientation(encoded: bytes, orientation: int) -> bytes:
    """A JPEG of simplejpeg, with EXIF data of this one tag behind its JFIF segment."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    content = exif.tobytes()
    (jfif,) = struct.unpack_from(">H", encoded, 4)
    at = 4 + jfif
    return encoded[:at] + struct.pack(">HH", 0xFFE1, 2 + len(content)) + content + encoded[at:]


def _shrunken_size(height: int, width: int, *, short_side: int | None) -> tuple[int, int]:
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    return round(height * short_side / shorter), round(width * short_side / shorter)
