# SPDX-License-Identifier: BSD-3-Clause
"""What every reader of image files shares: the header of a file, and why a file is refused."""

import re
from typing import NamedTuple


class BadImage(ValueError):  # noqa: N818
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
    """What the first bytes of a file say; nothing of it is verified by decoding.

    Attributes:
      format: jpeg, png, gif, webp, avif, heif, jpeg2000, tiff, bmp, ppm, ico or qoi.
      width: In pixels, at least 1.
      height: In pixels, at least 1.
      components: Channels: 1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha, or CMYK in a jpeg.
      bits: Per channel.
      held: Bytes that the decoder holds at its peak beside the result of 3 bytes a pixel.
    """

    format: str
    width: int
    height: int
    components: int
    bits: int
    held: int = 0


_ADDRESS = re.compile(r"<_io\.[^<>]*>|<[^<>]* at 0x[0-9a-fA-F]+>|(?: at)? 0x[0-9a-fA-F]{6,}")


def described(error: Exception) -> str:
    """What an exception says, without addresses: two runs over the same files say the same."""
    text = _ADDRESS.sub("", str(error)).strip()
    return " ".join(text.split()) or type(error).__name__
