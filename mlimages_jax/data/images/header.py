# SPDX-License-Identifier: BSD-3-Clause
"""Reads format and size from the first bytes of an image file, before any decoder sees it."""

import struct

from mlimages_jax.data.images.image_types import BadImage, ImageHeader
from mlimages_jax.data.images.jpeg_markers import read_jpeg_header
from mlimages_jax.data.images.other_headers import read_other_header
from mlimages_jax.data.images.refused_formats import is_html, is_no_image, recognised

__all__ = ["BadImage", "ImageHeader", "begins_like_image", "read_header"]

_PNG_COMPONENTS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette counts as three
_ANIMATED, _ALPHA = 0x02, 0x10  # flags of an extended WebP
_READ = "JPEG, PNG, GIF nor WebP, nor another format that is read or known"


def read_header(data: bytes) -> ImageHeader:
    """Reads format and size of an image file without decoding it.

    Raises:
        BadImage: empty, not_an_image, unsupported, too_large, truncated or corrupt.
    """
    if not data:
        raise BadImage("empty", "the file has no bytes")
    try:
        header = _parse_header(data)
    except (IndexError, struct.error, OverflowError):  # OverflowError: an offset above 2**63
        message = f"the file ends inside its header, after {len(data)} bytes"
        raise BadImage("truncated", message) from None
    if header.width == 0 or header.height == 0:
        raise BadImage("corrupt", f"the header says {header.width} x {header.height} pixels")
    return header


def begins_like_image(start: bytes) -> bool:
    """Returns whether a file with these first 32 bytes or more is an image, supported or not."""
    try:
        read_header(start)
    except BadImage as bad:
        return bad.reason not in ("empty", "not_an_image") and not is_no_image(start)
    return True


def _parse_header(data: bytes) -> ImageHeader:
    if data.startswith(b"\xff\xd8"):
        return read_jpeg_header(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_header(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif_header(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_header(data)
    if header := read_other_header(data):
        return header
    if data.startswith((b"\x89PNG", b"\x09PNG")):
        raise BadImage("corrupt", "a PNG whose line endings were changed in transfer: get it again")
    if name := recognised(data):
        raise BadImage("unsupported", f"{name}: convert it to JPEG or PNG")
    if is_html(data):
        raise BadImage("not_an_image", f"an HTML page, neither {_READ}")
    raise BadImage("not_an_image", f"neither {_READ}: begins with {data[:12]!r}")


def _png_header(data: bytes) -> ImageHeader:
    if data[12:16] == b"CgBI":
        raise BadImage("unsupported", "a PNG for iPhones (CgBI): convert it to JPEG or PNG")
    if len(data) > 16 and data[12:16] != b"IHDR":
        raise BadImage("corrupt", f"a PNG that begins with the chunk {data[12:16]!r}")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if colour not in _PNG_COMPONENTS:
        raise BadImage("corrupt", f"a PNG of the unknown colour type {colour}")
    # See pillow_pixels.py; for grey images the high bytes are extracted strip by strip.
    held = int(width * height * (2.1 if colour == 0 and bits == 16 else 1))
    return ImageHeader("png", width, height, _PNG_COMPONENTS[colour], bits, held)


def _gif_header(data: bytes) -> ImageHeader:
    """Parses GIF89a, 18 and 20; Pillow enlarges the screen to contain the first frame."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    while data[at : at + 1] == b"!":  # an extension: a label, then blocks up to an empty one
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    if data[at : at + 1] == b"," and len(data) >= at + 9:
        left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
        width, height = max(width, left + across), max(height, top + down)
    return ImageHeader("gif", width, height, components=3, bits=8, held=width * height)


def _webp_header(data: bytes) -> ImageHeader:
    """Parses a lossy, lossless or extended file (RFC 9649, 2.5 to 2.7)."""
    kind = data[12:16]
    # Measured bytes per pixel besides the result: OpenCV's copy of 3 or 4, and libwebp's own.
    if kind == b"VP8 ":
        # The upper two bits are a scale that decoders ignore (RFC 6386, 9.1).
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return ImageHeader("webp", width, height, 3, 8, held=int(3.2 * width * height))
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        components = 3 + (packed >> 28 & 1)
        return ImageHeader("webp", width, height, components, 8, held=int(5.2 * width * height))
    if kind == b"VP8X":
        flags, width, height_low, height_high = struct.unpack_from("<B3xHxHB", data, 20)
        width += 1 + (data[26] << 16)
        height = 1 + height_low + (height_high << 16)
        components = 4 if flags & _ALPHA else 3
        extended = 14 if flags & _ANIMATED else 5.2
        return ImageHeader("webp", width, height, components, 8, int(extended * width * height))
    raise BadImage("corrupt", f"a WebP that begins with the chunk {kind!r}")
