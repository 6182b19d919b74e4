# SPDX-License-Identifier: BSD-3-Clause
"""Decodes image files to pixels: what is supported, what is refused, and why.

The rules, in the order in which they are applied:

1. Magic bytes decide what a file is, never its name. The header gives format and size. No decoder
   sees a file above the pixel limit (691 bytes of JPEG can claim 65,000 x 65,000 pixels), one that
   needs more than 3 bytes per pixel and 100 MB (`budget`), or a JPEG process that our libraries do
   not handle (`jpeg_markers`).
2. JPEG: libjpeg-turbo, see `jpeg`. Its warnings count as errors, except those that do not concern
   the pixels.
3. WebP without animation, and PNG of 16 bits with a transparent colour: OpenCV.
4. All other supported formats, and the first frame of animations: Pillow, see `pillow_pixels`. PNG
   is first stripped to the chunks of its pixels, see `png_chunks`; BMPs with masks or run lengths
   are decoded by `bmp_pixels`. HEIC needs the extra `heif`.
5. Everything else, and whatever a decoder or encoder raises, becomes a `BadImage` with a countable
   reason.

Number of pixels that fit into 3 bytes per pixel and 100 MB. All formats were seen to stay within
this limit when decoded, verified and stored at the largest accepted size
(docs/benchmarks/input.md); the numbers of HEIC follow from pillow-heif's memory per pixel:

    67 million (limit)    JPEG, also CMYK; PNG; GIF; BMP; TIFF without large strips; tiled JPEG 2000
    47                    PNG and TIFF in grey of 16 bits
    50, 33 and 16         progressive JPEG: grey, with halved colour, with full colour
    31 and 19             WebP: lossy, and lossless or with transparency
    14 and less           AVIF, by its planes; TIFF of one strip 33
    29, 16 and 7          HEIC: of 8 bits, with transparency or in grey, of 10 bits
    5                     JPEG 2000 without tiles
    4                     QOI, PPM as text or of 16 bits, BMP with run lengths: slow decoders

A large image is encoded in strips, so that its file is not in memory twice besides the pixels; a
file above 90 MB is too large (`jpeg_encoder`).

Quarter turns stay within this limit for JPEGs, which need the compiled part above 33 million
pixels; other formats take 6 bytes per pixel while they are turned (`whole_images`).

Transparent pixels are blended with white, as on a browser's page: the colours under them are
arbitrary. The EXIF orientation is ignored unless requested, as in the original training. A
re-encoded image is either turned upright or keeps the tag, so its orientation is never lost.

Every function may be called from many threads; decoders release the GIL while they work. All
threads of a process share one memory budget and wait for it.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, ParamSpec, TypeVar, get_args

import numpy as np
from PIL import Image

from mlimages_jax.data.images import jpeg, jpeg_encoder, whole_images
from mlimages_jax.data.images.budget import decoding_bytes, in_flight
from mlimages_jax.data.images.header import BadImage, ImageHeader, read_header
from mlimages_jax.data.images.image_types import described
from mlimages_jax.data.images.orientation import orientation_of, upright, with_orientation
from mlimages_jax.data.images.shrinking import shrink, shrunken_size
from mlimages_jax.data.images.transforms import CropBox

MAX_PIXELS = 2**26  # 8,192 x 8,192: 200 MB as RGB, below the size at which Pillow warns
JPEG_QUALITY = 90  # at full colour resolution: smaller and more accurate than 95 with halved colour

_MAX_JPEG_SIDE = 65_500  # limit of libjpeg

Chroma = Literal["444", "420"]
_CHROMAS = get_args(Chroma)
Orientation = Literal["exif", "stored"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _own_row(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Turns every exception about an image into a `BadImage`, so that it only costs this image.

    The decoders raise OSError, SyntaxError, struct.error, cv2.error, EOFError and others.
    """

    @functools.wraps(function)
    def checked(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        try:
            return function(*arguments, **options)
        except BadImage:
            raise
        except MemoryError as error:
            raise BadImage("too_large", "there is not enough memory to decode it") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            message = f"it has more pixels than its header says, and too many: {described(error)}"
            raise BadImage("too_large", message.split(", could be")[0]) from error
        except Exception as error:  # damaged files make the decoders raise any type
            raise BadImage("corrupt", f"{type(error).__name__}: {described(error)}") from error

    return checked


class StoredImage(NamedTuple):
    """A JPEG with 1 or 3 components that decodes without a warning, and its size in pixels."""

    jpeg: bytes
    height: int
    width: int


@_own_row
def decode(
    data: bytes,
    *,
    min_height: int = 0,
    min_width: int = 0,
    exif_orientation: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decodes an image file.

    Args:
        data: The bytes of the file.
        min_height: With `min_width`: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, the
            smallest whose sides are at least these. Both 0 means full size.
        min_width: See `min_height`.
        exif_orientation: Whether to apply the EXIF orientation.
        max_pixels: Refuse images whose header claims more (width * height). For formats read by
            Pillow its own limit applies too: it refuses twice `Image.MAX_IMAGE_PIXELS`.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        BadImage: If the file cannot be decoded; has the reason.
    """
    header = read_header(data)
    whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
    turn = orientation_of(data, header) if exif_orientation else 1
    if turn >= 5:  # stored on its side, while the caller speaks of the upright image
        min_height, min_width = min_width, min_height
    factor = _factor(header, min_height=min_height, min_width=min_width)
    with in_flight.hold(whole_images.needed(header, factor=factor, orientation=turn)):
        return whole_images.pixels(
            data, header, max_pixels=max_pixels, factor=factor, orientation=turn
        )


@_own_row
def decode_box(
    data: bytes,
    box: CropBox,
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    header: ImageHeader | None = None,
) -> np.ndarray:
    """Decodes the part of an image inside a box; of a JPEG little more than this part.

    Args:
        data: The bytes of the file.
        box: The box in pixels of the image.
        size: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if the box then still has this
            many pixels per side; the far edges of the box are rounded inwards.
        max_pixels: See `decode`.
        header: Header of the file, if `read_header` was already called.

    Returns:
        uint8 [h, w, 3], RGB; its rows need not be contiguous.

    Raises:
        BadImage: If the file cannot be decoded. Damage of a JPEG after the box may go unnoticed.
    """
    header = header or read_header(data)
    whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
    if header.format != "jpeg" or header.components == 4:
        with in_flight.hold(whole_images.needed(header)):
            pixels = whole_images.pixels(data, header, max_pixels=max_pixels)
        return pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    factor = jpeg.reduction(
        header,
        min_height=math.ceil(size * header.height / box.height),
        min_width=math.ceil(size * header.width / box.width),
    )
    # Not 1 / factor: libjpeg rounds the sides of a reduced image up.
    down = jpeg.reduced(header.height, factor) / header.height
    across = jpeg.reduced(header.width, factor) / header.width
    height, width = max(1, int(box.height * down)), max(1, int(box.width * across))
    window = (int(box.top * down), int(box.left * across), height, width)
    with in_flight.hold(decoding_bytes(header, pixels=height * width)):
        return jpeg.decode_window(data, header, window, factor=factor)


@_own_row
def verify(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Checks that an image file decodes to its end; returns its header.

    Damage of a JPEG shows while its coefficients are read. All of them are read even at 1/8 of the
    size and in grey, including those of colour.

    Raises:
        BadImage: If the file cannot be decoded; has the reason.
    """
    header = read_header(data)
    if header.format == "jpeg" and header.components != 4:
        _checked_jpeg(data, header, max_pixels=max_pixels)
    else:
        whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
        with in_flight.hold(whole_images.needed(header)):
            whole_images.pixels(data, header, max_pixels=max_pixels)
    return header


def _checked_jpeg(data: bytes, header: ImageHeader, *, max_pixels: int) -> bytes:
    """Returns the file, or a repaired one, that decodes to its end without a warning."""
    whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
    whole_images.needed(header)  # raises too_large: an accepted image will be decoded in full
    with in_flight.hold(whole_images.needed(header, factor=8)):
        return jpeg.without_warnings(data, header)


def stored_jpeg(
    data: bytes,
    *,
    short_side: int | None = None,
    quality: int = JPEG_QUALITY,
    max_pixels: int = MAX_PIXELS,
    check: bool = True,
    chroma: Chroma = "444",
    sequential: bool = False,
    restart_markers: bool = False,
    orientation: Orientation = "stored",
) -> StoredImage:
    """Returns the JPEG that a data set stores for an image file.

    A JPEG with 1 or 3 components that needs neither resizing nor turning keeps its bytes, after it
    was decoded once as a check. Everything else is re-encoded.

    Images are shrunk by averaging (INTER_AREA). A JPEG is first decoded at 1/2, 1/4 or 1/8 if that
    leaves at least twice the requested size: on the four photographs of the original this is 44-53
    dB from averaging the full image, far better than the 36-44 dB lost by re-encoding.

    Args:
        data: The bytes of the file.
        short_side: Shrink the shorter side to this many pixels. None, or a smaller image, keeps the
            size.
        quality: Quality of re-encoding, 1 to 100.
        max_pixels: See `decode`.
        check: Whether to decode files that keep their bytes; False if `verify` has accepted them.
        chroma: Of re-encoding: "444" keeps the colour resolution; "420" halves it, which makes
            files a fifth smaller and decoding faster by 3/10, for 2 dB (docs/benchmarks/input.md).
        sequential: Whether to rewrite progressive files that keep their pixels, see
            `jpeg.sequential`.
        restart_markers: Whether every file gets them, see `jpeg.sequential`.
        orientation: "exif" applies the EXIF orientation, because readers of the result ignore it; a
            re-encoded file has no tag. "stored" keeps pixels and orientation tag, also when
            re-encoding.

    Raises:
        BadImage: If the file cannot be decoded or stored; has the reason.
    """
    if not (short_side is None or short_side > 0) or not 1 <= quality <= 100:
        raise ValueError(
            f"short_side={short_side}, quality={quality}: give at least 1, and 1 to 100"
        )
    if chroma not in _CHROMAS:
        raise ValueError(f"chroma={chroma!r} is none of {_CHROMAS}")
    return _stored_jpeg(
        data, short_side=short_side, quality=quality, max_pixels=max_pixels, check=check,
        chroma=chroma, sequential=sequential, restart_markers=restart_markers,
        orientation=orientation,
    )  # fmt: skip


@_own_row
def _stored_jpeg(
    data: bytes, *, short_side: int | None, quality: int, max_pixels: int, check: bool,
    chroma: Chroma, sequential: bool, restart_markers: bool, orientation: Orientation,
) -> StoredImage:  # fmt: skip
    header = read_header(data)
    whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
    height, width = shrunken_size(header.height, header.width, short_side=short_side)
    shrinks = (height, width) != (header.height, header.width)
    plain = header.format == "jpeg" and header.components != 4 and not shrinks
    tag = 1 if plain and orientation == "stored" else orientation_of(data, header)
    if plain and tag == 1:
        sound = _checked_jpeg(data, header, max_pixels=max_pixels) if check else data
        if sequential or restart_markers:
            known = header if sound is data else None  # a repaired file has another one
            sound = jpeg.sequential(sound, restart_markers=restart_markers, header=known)
        return StoredImage(sound, height, width)
    if max(height, width) > _MAX_JPEG_SIDE:
        message = f"{width} x {height} pixels: a JPEG has at most {_MAX_JPEG_SIDE:,} a side"
        raise BadImage("too_large", message)
    # Leaves at least twice the size for averaging, see `stored_jpeg`.
    factor = _factor(header, min_height=2 * height, min_width=2 * width)
    turn = tag if orientation == "exif" else 1
    first = 1 if shrinks else turn  # a shrinking image is turned when it is small
    with in_flight.hold(whole_images.needed(header, factor=factor, orientation=first)):
        pixels = whole_images.pixels(
            data, header, max_pixels=max_pixels, factor=factor, orientation=first
        )
        # Headers of other formats may describe a turned image or a frame around it.
        if header.format != "jpeg" or first >= 5:
            height, width = shrunken_size(*pixels.shape[:2], short_side=short_side)
        if pixels.shape[:2] != (height, width):
            pixels = shrink(pixels, height, width)
        if orientation == "exif":
            pixels, tag = upright(pixels, turn if first == 1 else 1), 1
        pieces = jpeg_encoder.encode(pixels, quality=quality, chroma=chroma)
        height, width = pixels.shape[:2]
        del pixels  # joining the pieces takes the memory of the file twice
        stored = b"".join(pieces)
    if restart_markers:
        stored = jpeg.sequential(stored, restart_markers=True)
    stored = stored if tag == 1 else with_orientation(stored, tag)
    return StoredImage(stored, height, width)


def _factor(header: ImageHeader, *, min_height: int, min_width: int) -> int:
    if header.format != "jpeg" or header.components == 4:
        return 1
    return jpeg.reduction(header, min_height=min_height, min_width=min_width)
