# SPDX-License-Identifier: BSD-3-Clause
"""Types that all readers of image files share: the header, and the error of a refused file."""

import re
from typing import NamedTuple


class BadImage(ValueError):  # noqa: N818  # says what it is about
    """A file that is not an image we can use.

    Attributes:
        reason: empty, not_an_image, unsupported, too_large, truncated or corrupt.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class ImageHeader(NamedTuple):
    """The claims of a file's first bytes; nothing is verified by decoding.

    Attributes:
        format: jpeg, png, gif, webp, avif, heif, jpeg2000, tiff, bmp, ppm, ico or qoi.
        width: Width in pixels, at least 1.
        height: Height in pixels, at least 1.
        components: Channels: 1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha, or CMYK in a jpeg.
        bits: Bits per channel.
        held: Peak memory of the decoder in bytes, besides the result of 3 bytes per pixel.
        scan: Where the pixels of a jpeg begin, behind all metadata, in bytes; 0 for other formats.
    """

    format: str
    width: int
    height: int
    components: int
    bits: int
    held: int = 0
    scan: int = 0


_ADDRESS = re.compile(r"<_io\.[^<>]*>|<[^<>]* at 0x[0-9a-fA-F]+>|(?: at)? 0x[0-9a-fA-F]{6,}")


def described(error: Exception) -> str:
    """Returns an exception's message without memory addresses, so that runs can be compared."""
    text = _ADDRESS.sub("", str(error)).strip()
    return " ".join(text.split()) or type(error).__name__
