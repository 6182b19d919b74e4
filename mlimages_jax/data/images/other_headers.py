# SPDX-License-Identifier: BSD-3-Clause
"""Reads format and size of the less common image formats, before any decoder sees them."""

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from mlimages_jax.data.images.image_types import BadImage, ImageHeader
from mlimages_jax.data.images.tiff_header import read_tiff_header

# Pillow decodes these in Python, at half a microsecond per pixel or more: two seconds at most.
MAX_PIXELS_IN_PYTHON = 2**22
_AVIF_MAX_SIDE = 32_768  # limit of libavif, which reports larger headers as damaged

_BMP_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}  # sizes of the known headers after the file's own
_BMP_RLE = {1, 2}
_BLANK = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PPM = re.compile(rb"P([1-6])" + _BLANK + rb"(\d+)" + _BLANK + rb"(\d+)(?:" + _BLANK + rb"(\d+))?")
_PPM_PREFIX = re.compile(rb"P[1-6](?:\s+\d|\s*#|\s*\Z)")
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_ANY_BRANDS = {b"mif1", b"mif2", b"msf1", b"miaf", b"MiHB"}
_SIZE_PROPERTY = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)
_HEVC_CONFIG = re.compile(rb"hvcC\x01.{15}(.)(.)", re.DOTALL)  # chroma format, depth over 8
_AV1_CONFIG = re.compile(rb"av1C\x81.(.)", re.DOTALL)


def read_other_header(data: bytes) -> ImageHeader | None:
    """Reads the header of a TIFF, BMP, PPM, JPEG 2000, AVIF, HEIF, ICO, CUR or QOI file, or None.

    Raises:
        BadImage: unsupported, too_large or corrupt.
        IndexError: If the file ends before.
        struct.error: If the file ends before.
    """
    for fits, read in _READERS:
        if fits(data):
            return read(data)
    return None


def _is_bmp(data: bytes) -> bool:
    """Checks more than two letters, because a text file may begin with them too."""
    return data[:2] == b"BM" and len(data) >= 18 and data[15:18] == b"\0\0\0"


def _bmp(data: bytes) -> ImageHeader:
    return dib_header(data[14:])


def dib_header(data: bytes) -> ImageHeader:
    """Reads the header of a BMP without a file header, as icons contain it.

    Raises:
        BadImage: It is damaged, or a run-length encoded image that is too large.
    """
    (size,) = struct.unpack_from("<I", data)
    if size not in _BMP_SIZES:
        raise BadImage("corrupt", f"a BMP header of {size} bytes")
    if size in (12, 16):
        width, height, _, bits = struct.unpack_from("<HHHH", data, 4)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 4)
    if width < 0:
        raise BadImage("corrupt", f"a BMP of {width} x {height} pixels")
    height = abs(height)  # negative: rows are stored from the top
    if compression in _BMP_RLE:
        _check_python(width, height, "a run-length encoded BMP")
    return ImageHeader("bmp", width, height, 3, min(bits, 8), held=width * height)


def _is_ppm(data: bytes) -> bool:
    return bool(_PPM_PREFIX.match(data))


def _ppm(data: bytes) -> ImageHeader:
    found = _PPM.match(data[: 2**16])
    if not found:
        raise IndexError("no size")
    # Ten digits are beyond every limit; of more than 4,300 int() would raise an error of its own.
    kind, width, height = int(found[1]), int(found[2][:10]), int(found[3][:10])
    deep = kind in (2, 3, 5, 6) and found[4] is not None and int(found[4][:10]) > 255
    if kind <= 3 or deep:
        _check_python(width, height, "a PPM in text or of 16 bits")
    components = 3 if kind in (3, 6) else 1
    # The Python decoder keeps the numbers of all rows in memory at once.
    held = width * height * (1 if kind > 3 and not deep else 20)
    return ImageHeader("ppm", width, height, components, 16 if deep else 8, held)


def _is_jpeg2000(data: bytes) -> bool:
    return data.startswith((_JP2, _CODESTREAM))


def _jpeg2000(data: bytes) -> ImageHeader:
    """Parses the SIZ segment (ITU-T T.800, A.5.1) of the first codestream, the one decoded."""
    at = 0
    while not data.startswith(_CODESTREAM, at):
        length, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if length == 1:
            (length,), header = struct.unpack_from(">Q", data, at + 8), 16
        at += header if kind == b"jp2c" else max(length, 8)
    x1, y1, x0, y0, tile_width, tile_height = struct.unpack_from(">6I", data, at + 8)
    (components,) = struct.unpack_from(">H", data, at + 40)
    if not 1 <= components <= 4:
        raise BadImage("unsupported", f"a JPEG 2000 of {components} components")
    width, height = max(0, x1 - x0), max(0, y1 - y0)
    tile = min(tile_width, width) * min(tile_height, height)
    bits = (data[at + 42] & 0x7F) + 1
    held = width * height + 6 * components * tile  # OpenJPEG: 32 bits or more per number
    return ImageHeader("jpeg2000", width, height, components, bits, held)


def _brands(data: bytes) -> set[bytes]:
    if data[4:8] != b"ftyp":
        return set()
    names = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    # Bytes 4 to 8 are a version number and no brand (ISO/IEC 14496-12, 4.3).
    return {names[i : i + 4] for i in range(0, len(names), 4)} - {names[4:8]}


def _is_avif(data: bytes) -> bool:
    return bool(_brands(data) & _AVIF_BRANDS)


def _is_heif(data: bytes) -> bool:
    return bool(_brands(data) & _HEIF_BRANDS) or data[8:12] in _ANY_BRANDS & _brands(data)


def _avif(data: bytes) -> ImageHeader:
    width, height = _largest_item(data)
    if max(width, height) > _AVIF_MAX_SIDE:
        raise BadImage(
            "too_large", f"{width} x {height}: the AVIF decoder reads at most {_AVIF_MAX_SIDE}"
        )
    components = 4 if b"auxid:1" in data[: 2**16] or b":alpha" in data[: 2**16] else 3
    bits, colours = 8, 1.5
    for found in _AV1_CONFIG.finditer(data[: 2**20]):
        flags = found[1][0]
        if flags & 0x60 == 0x60:
            raise BadImage("unsupported", "an AVIF of 12 bits: convert it to one of 8 or 10")
        bits = 10 if flags & 0x40 or bits == 10 else 8
        colours = max(colours, 1.5 if flags & 0x0C == 0x0C or flags & 0x10 else 3)
    # Planes twice (the decoder keeps a reference), plus Pillow's copies of the pixels.
    planes = (colours + (components == 4)) * (2 if bits == 10 else 1)
    held = int(width * height * (2 * planes + 4 + (components == 4)))
    return ImageHeader("avif", width, height, components, bits, held)


def _heif(data: bytes) -> ImageHeader:
    width, height = _largest_item(data)
    configs = [found.groups() for found in _HEVC_CONFIG.finditer(data[: 2**20])]
    deep = any(depth[0] & 7 for _, depth in configs)
    alpha = b"auxid:1" in data[: 2**20]
    plain = not alpha and all(chroma[0] & 3 for chroma, _ in configs)
    # Measured with pillow-heif 1.8: its pixels plus copies by Pillow, or numbers of 16 bits.
    held = int(width * height * (13.5 if deep else 3.4 if plain else 6))
    return ImageHeader("heif", width, height, 4 if alpha else 3, 10 if deep else 8, held)


def _largest_item(data: bytes) -> tuple[int, int]:
    """Returns width and height of the largest item: tiles and thumbnails are smaller."""
    # Searched for and not parsed: boxes are nested in many ways, and every item has this property.
    sizes = [struct.unpack(">II", found[1]) for found in _SIZE_PROPERTY.finditer(data)]
    if not sizes:
        raise IndexError("no item has a size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return int(width), int(height)


def _is_icon(data: bytes) -> bool:
    return data[:4] in (b"\0\0\1\0", b"\0\0\2\0") and 0 < int.from_bytes(data[4:6], "little") < 256


def icon_image(data: bytes) -> bytes:
    """Returns the largest image of an icon, which is a PNG or a headerless BMP."""
    count = int.from_bytes(data[4:6], "little")  # of entries; their lengths cannot be trusted
    entries = [struct.unpack_from("<BBBBHHII", data, 6 + 16 * i) for i in range(count)]
    *_, offset = max(entries, key=lambda e: ((e[0] or 256) * (e[1] or 256), e[5]))
    return data[offset:]


class DibLayout(NamedTuple):
    """Offsets of the parts of a headerless BMP in an icon.

    Attributes:
        bits: Bits per pixel.
        pixels: Offset of the pixels.
        mask: Offset of the 1-bit mask, which follows them.
        end: Offset of the end of the mask.
    """

    bits: int
    pixels: int
    mask: int
    end: int


def dib_layout(image: bytes) -> DibLayout:
    """Returns the layout of a headerless BMP with doubled height; its contents are not verified.

    Raises:
        struct.error: If the file ends inside its header.
    """
    (size,) = struct.unpack_from("<I", image)
    if size < 40:
        width, height, _, bits = struct.unpack_from("<HHHH", image, 4)
        colours, bytes_a_colour, masks = 0, 3, 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", image, 4)
        (colours,) = struct.unpack_from("<I", image, 32)
        bytes_a_colour, masks = 4, 12 if compression == 3 and size == 40 else 0
    if bits <= 8:
        colours = min(colours or 2**bits, 2**bits)
    pixels = size + masks + bytes_a_colour * colours
    rows = abs(height) // 2
    mask = pixels + -(-width * bits // 32) * 4 * rows
    return DibLayout(bits, pixels, mask, mask + -(-width // 32) * 4 * rows)


def _icon(data: bytes) -> ImageHeader:
    image = icon_image(data)
    if image.startswith(b"\x89PNG"):
        width, height = struct.unpack_from(">II", image, 16)
        return ImageHeader("ico", width, height, 4, 8, held=width * height)
    inner = dib_header(image)
    # Pillow decodes icons when it opens them; half of the height is the mask.
    held = 8 * inner.width * inner.height
    return ImageHeader("ico", inner.width, inner.height // 2, 4, 8, held)


def _is_qoi(data: bytes) -> bool:
    return data.startswith(b"qoif")


def _qoi(data: bytes) -> ImageHeader:
    width, height, channels = struct.unpack_from(">IIB", data, 4)
    _check_python(width, height, "a QOI file")
    return ImageHeader("qoi", width, height, channels, 8, held=5 * width * height)


def _is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _check_python(width: int, height: int, what: str) -> None:
    if width * height > MAX_PIXELS_IN_PYTHON:
        raise BadImage(
            "too_large",
            f"{what} of {width} x {height} pixels: its slow decoder gets at most "
            f"{MAX_PIXELS_IN_PYTHON:,}; convert it to JPEG or PNG",
        )


_READERS: list[tuple[Callable[[bytes], bool], Callable[[bytes], ImageHeader]]] = [
    (_is_tiff, read_tiff_header),
    (_is_bmp, _bmp),
    (_is_ppm, _ppm),
    (_is_jpeg2000, _jpeg2000),
    (_is_avif, _avif),
    (_is_heif, _heif),
    (_is_icon, _icon),
    (_is_qoi, _qoi),
]
