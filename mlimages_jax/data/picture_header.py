# SPDX-License-Identifier: BSD-3-Clause
"""What the first bytes of a picture file say: format and size, before any decoder sees it."""

import struct
from typing import NamedTuple

# JPEG markers: of C0-CF these three start no frame; and those that stand alone.
_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_PNG_COMPONENTS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette counts as three


class BadPicture(ValueError):  # noqa: N818
    """A file that is not a picture we can use.

    Attributes:
      reason: empty, not_an_image, unsupported, too_large, truncated or corrupt.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class PictureHeader(NamedTuple):
    """What the first bytes of a file say; nothing of it is verified by decoding.

    Attributes:
      format: jpeg, png, gif or webp.
      width: In pixels, at least 1.
      height: In pixels, at least 1.
      components: Channels: 1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha, or CMYK in a jpeg.
      bits: Per channel.
    """

    format: str
    width: int
    height: int
    components: int
    bits: int


def read_header(data: bytes) -> PictureHeader:
    """Format and size of a picture file, without decoding it.

    Raises:
      BadPicture: empty, not_an_image, unsupported, truncated or corrupt.
    """
    if not data:
        raise BadPicture("empty", "the file has no bytes")
    try:
        header = _parse_header(data)
    except (IndexError, struct.error):
        message = f"the file ends inside its header, after {len(data)} bytes"
        raise BadPicture("truncated", message) from None
    if header.width == 0 or header.height == 0:
        raise BadPicture("corrupt", f"the header says {header.width} x {header.height} pixels")
    return header


def _parse_header(data: bytes) -> PictureHeader:
    if data.startswith(b"\xff\xd8"):
        return _jpeg_header(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
        if colour not in _PNG_COMPONENTS:
            raise BadPicture("corrupt", f"a PNG of the unknown colour type {colour}")
        return PictureHeader("png", width, height, _PNG_COMPONENTS[colour], bits)
    if data.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        return PictureHeader("gif", width, height, components=3, bits=8)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_header(data)
    raise BadPicture("not_an_image", f"neither JPEG, PNG, GIF nor WebP: begins {data[:12]!r}")


def _jpeg_header(data: bytes) -> PictureHeader:
    """Walk the segments (ITU-T T.81, B.1.1) to the first start of frame."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise BadPicture("corrupt", f"byte {at} should begin a JPEG marker")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NOT_A_FRAME:
            break
        elif marker in (0xD9, 0xDA):
            raise BadPicture("corrupt", f"byte {at}: pixels, or the end, before the JPEG's size")
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
    if bits != 8 or components not in (1, 3, 4):
        raise BadPicture("unsupported", f"a JPEG of {components} components with {bits} bits each")
    return PictureHeader("jpeg", width, height, components, bits)


def _webp_header(data: bytes) -> PictureHeader:
    """RFC 9649, 2.5 to 2.7: a lossy, a lossless or an extended file."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return PictureHeader("webp", width, height, components=3, bits=8)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        return PictureHeader("webp", width, height, components=3 + (packed >> 28 & 1), bits=8)
    if kind == b"VP8X":
        flags, width, height_low, height_high = struct.unpack_from("<B3xHxHB", data, 20)
        width += data[26] << 16
        height = height_low + (height_high << 16)
        components = 3 + (flags >> 4 & 1)
        return PictureHeader("webp", width + 1, height + 1, components, bits=8)
    raise BadPicture("corrupt", f"a WebP that begins with the chunk {kind!r}")
