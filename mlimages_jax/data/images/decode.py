# SPDX-License-Identifier: BSD-3-Clause
"""Image files to pixels: what is read, what is refused, and why.

The policy, in the order in which it is applied:

1. Magic bytes say what a file is; its name says nothing. The header gives kind and size, and no
   decoder gets to see what is over the pixel cap (691 bytes of JPEG can claim 65,000 x 65,000
   pixels), what would take more than 3 bytes a pixel and 100 MB (`budget`), or a JPEG of a process
   that our libraries do not handle (`jpeg_markers`).
2. JPEG: libjpeg-turbo, see `jpeg`; its warnings count as errors, but for those that say nothing
   about the pixels.
3. WebP without animation, and PNG of 16 bits with a transparent colour: OpenCV.
4. All else that is read, of animations the first frame: Pillow, see `pillow_pixels`. PNG is
   stripped to its pixels before, see `png_chunks`; BMPs with masks or run lengths are read by
   `bmp_pixels`. HEIC needs the extra `heif`.
5. Everything else, and whatever a decoder or an encoder raises, is a `BadImage` with a countable
   reason.

How many pixels fit into 3 bytes a pixel and 100 MB. All were seen to keep it, decoded, verified
and stored, at the largest size that passes (docs/benchmarks/input.md, which names the exceptions);
those of HEIC follow from what pillow-heif was seen to hold for a pixel:

    67 million (the cap)  JPEG, also CMYK; PNG; GIF; BMP; TIFF without large strips; tiled JPEG 2000
    47                    PNG and TIFF in grey of 16 bits
    50, 33 and 16         progressive JPEG: grey, with halved colour, with full colour
    31 and 19             WebP: lossy, and lossless or with transparency
    14 and less           AVIF, by its planes; TIFF of one strip 33
    29, 16 and 7          HEIC: of 8 bits, with transparency or in grey, of 10 bits
    5                     JPEG 2000 without tiles
    4                     QOI, PPM as text or of 16 bits, BMP with run lengths: slow decoders

A large image is encoded in strips, so that its file is not held twice beside the pixels; a file of
over 90 MB is too large (`jpeg_encoder`).

What lies on its side is turned within this too if it is a JPEG, for which the compiled part is
needed over 33 million pixels; the rest takes 6 bytes a pixel while it is turned (`whole_images`).

Transparent pixels are laid on white, as a browser shows them: the colours under them are arbitrary.
The EXIF orientation is ignored unless asked for, as in the original training. What is encoded anew
either is turned upright or keeps the tag, so that no image loses its orientation on the way.

Every function may be called from many threads; the decoders release Python's lock as they work.
All threads of a process share one budget of memory, and wait for it.
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

MAX_PIXELS = 2**26  # 8,192 x 8,192: 200 MB as RGB, and below the size where Pillow starts to warn
JPEG_QUALITY = 90  # in full colour resolution: smaller, and closer, than 95 with halved colour

_MAX_JPEG_SIDE = 65_500  # of libjpeg

Chroma = Literal["444", "420"]
Orientation = Literal["exif", "stored"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _own_row(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Whatever is raised about an image belongs to that image: it becomes a `BadImage`.

    The decoders raise OSError, SyntaxError, struct.error, cv2.error, EOFError and more.
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
            message = f"it holds more pixels than its header says, too many: {described(error)}"
            raise BadImage("too_large", message.split(", could be")[0]) from error
        except Exception as error:
            raise BadImage("corrupt", f"{type(error).__name__}: {described(error)}") from error

    return checked


class StoredImage(NamedTuple):
    """A JPEG of 1 or 3 components that decodes without a warning, and its size in pixels."""

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
    """Decode an image file.

    Args:
      data: The bytes of the file.
      min_height: With `min_width`: a JPEG may come back at 1/2, 1/4 or 1/8 of its size, the
        smallest whose sides are at least these. Both 0: the full size.
      min_width: See `min_height`.
      exif_orientation: Turn the image upright as its EXIF data say.
      max_pixels: Refuse an image whose header says more (width * height). What Pillow reads is
        bound by its own limit too: it refuses twice `Image.MAX_IMAGE_PIXELS`.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      BadImage: With a reason.
    """
    header = read_header(data)
    whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
    turn = orientation_of(data, header) if exif_orientation else 1
    if turn >= 5:  # lying on its side
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
    """Decode what a box of an image holds, of a JPEG little else.

    Args:
      data: The bytes of the file.
      box: In pixels of the image.
      size: A JPEG may come back at 1/2, 1/4 or 1/8 of its size, if the box then still has this many
        pixels a side; the box is rounded inwards at its far edges.
      max_pixels: As for `decode`.
      header: Of the file, where `read_header` has read it already.

    Returns:
      uint8 [h, w, 3], RGB; its rows need not be contiguous.

    Raises:
      BadImage: With a reason. Damage of a JPEG behind the box may go unseen.
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
    down = jpeg.reduced(header.height, factor) / header.height
    across = jpeg.reduced(header.width, factor) / header.width
    height, width = max(1, int(box.height * down)), max(1, int(box.width * across))
    window = (int(box.top * down), int(box.left * across), height, width)
    with in_flight.hold(decoding_bytes(header, pixels=height * width)):
        return jpeg.decode_window(data, header, window, factor=factor)


@_own_row
def verify(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Checks that an image file decodes to its end; returns what its header says.

    A broken JPEG shows while its coefficients are read, and at 1/8 of the size, in grey, they all
    are: those of colour too.

    Raises:
      BadImage: With a reason.
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
    """The file, or a repaired one, which decodes to its end without a warning."""
    whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
    whole_images.needed(header)  # what passes is going to be decoded in full
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
    orientation: Orientation = "stored",
) -> StoredImage:
    """The JPEG that a data set stores for an image file.

    A JPEG of 1 or 3 components that need neither shrink nor turn keeps its bytes, after it was
    decoded once as a check. Anything else is encoded anew.

    Shrinking averages (INTER_AREA). A JPEG is decoded at 1/2, 1/4 or 1/8 first where twice the
    wanted size remains: on the four photographs of the original that is 44-53 dB from averaging the
    full image, far above the 36-44 dB that the new encoding costs.

    Args:
      data: The bytes of the file.
      short_side: Shrink the shorter side to this many pixels. None, or a smaller image: as it is.
      quality: Of a new encoding, 1 to 100.
      max_pixels: As for `decode`.
      check: Decode what keeps its bytes; False for files that `verify` has passed before.
      chroma: Of a new encoding: "444" keeps the colours' resolution, "420" halves it, which makes
        files a fifth smaller and decoding faster by 3/10 for 2 dB (docs/benchmarks/input.md).
      sequential: Rewrite what keeps its bytes, if it is progressive, see `jpeg.sequential`.
      orientation: "exif": turn upright as the EXIF data say, since whoever reads the result ignores
        them; a new encoding has none. "stored": pixels and orientation tag stay as they came, also
        in a new encoding.

    Raises:
      BadImage: With a reason.
    """
    if not (short_side is None or short_side > 0) or not 1 <= quality <= 100:
        raise ValueError(
            f"short_side={short_side} and quality={quality}: give 1 and more, 1 to 100"
        )
    if chroma not in get_args(Chroma):
        raise ValueError(f"chroma={chroma!r} is none of {get_args(Chroma)}")
    return _stored_jpeg(
        data, short_side=short_side, quality=quality, max_pixels=max_pixels, check=check,
        chroma=chroma, sequential=sequential, orientation=orientation,
    )  # fmt: skip


@_own_row
def _stored_jpeg(
    data: bytes, *, short_side: int | None, quality: int, max_pixels: int, check: bool,
    chroma: Chroma, sequential: bool, orientation: Orientation,
) -> StoredImage:  # fmt: skip
    header = read_header(data)
    whole_images.check_size(header.width, header.height, max_pixels=max_pixels)
    height, width = shrunken_size(header.height, header.width, short_side=short_side)
    shrinks = (height, width) != (header.height, header.width)
    plain = header.format == "jpeg" and header.components != 4 and not shrinks
    tag = 1 if plain and orientation == "stored" else orientation_of(data, header)
    if plain and tag == 1:
        if check:
            data = _checked_jpeg(data, header, max_pixels=max_pixels)
        return StoredImage(jpeg.sequential(data) if sequential else data, height, width)
    if max(height, width) > _MAX_JPEG_SIDE:
        message = f"{width} x {height} pixels: a JPEG has at most {_MAX_JPEG_SIDE:,} a side"
        raise BadImage("too_large", message)
    factor = _factor(header, min_height=2 * height, min_width=2 * width)
    turn = tag if orientation == "exif" else 1
    first = 1 if shrinks else turn  # what shrinks is turned when it is small
    with in_flight.hold(whole_images.needed(header, factor=factor, orientation=first)):
        pixels = whole_images.pixels(
            data, header, max_pixels=max_pixels, factor=factor, orientation=first
        )
        # What the header of other formats says may be turned, or a frame around the image.
        if header.format != "jpeg" or first >= 5:
            height, width = shrunken_size(*pixels.shape[:2], short_side=short_side)
        if pixels.shape[:2] != (height, width):
            pixels = shrink(pixels, height, width)
        if orientation == "exif":
            pixels, tag = upright(pixels, turn if first == 1 else 1), 1
        pieces = jpeg_encoder.encode(pixels, quality=quality, chroma=chroma)
        height, width = pixels.shape[:2]
        del pixels  # the file is held twice while its pieces are joined
        stored = b"".join(pieces)
    stored = stored if tag == 1 else with_orientation(stored, tag)
    return StoredImage(stored, height, width)


def _factor(header: ImageHeader, *, min_height: int, min_width: int) -> int:
    if header.format != "jpeg" or header.components == 4:
        return 1
    return jpeg.reduction(header, min_height=min_height, min_width=min_width)
