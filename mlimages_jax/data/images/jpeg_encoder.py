# SPDX-License-Identifier: BSD-3-Clause
"""Encodes pixels as JPEG, large images in strips.

The encoder returns a copy of its output, so a large file would be in memory twice besides the
pixels: 110 MB for 67 million black and white dots. A strip is a JPEG with the same tables; joined
after one header with restart markers between them (ITU-T T.81, B.2.4.4), the strips are one JPEG
with the same pixels.
"""

import struct

import numpy as np
import simplejpeg

from mlimages_jax.data.images.budget import BYTES_BESIDE
from mlimages_jax.data.images.image_types import BadImage

_LARGE = 2**24  # pixels
_STRIP = 2**22
_MAX_BYTES = BYTES_BESIDE - 10_000_000  # of the file; the rest is for a strip
_MAX_INTERVAL = 2**16 - 1  # blocks between two restart markers
_SOF0, _SOS, _RST0 = 0xC0, 0xDA, 0xD0


def encode(pixels: np.ndarray, *, quality: int, chroma: str) -> list[bytes]:
    """Returns the pieces of a JPEG, to be joined by the caller, best after freeing the pixels.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        quality: 1 to 100.
        chroma: "444" or "420", see `decode.stored_jpeg`.

    Raises:
        BadImage: too_large, if the file would exceed the memory limit.
    """
    height, width = pixels.shape[:2]
    if height * width <= _LARGE:
        return [_encode(pixels, quality=quality, chroma=chroma)]
    block = 8 if chroma == "444" else 16
    across = -(-width // block)
    # A strip is one restart interval, which the format counts in blocks with 16 bits.
    down = max(1, min(_MAX_INTERVAL // across, _STRIP // (width * block)))
    pieces: list[bytes] = []
    for i, top in enumerate(range(0, height, down * block)):
        strip = _encode(pixels[top : top + down * block], quality=quality, chroma=chroma)
        size, scan = _places(strip)
        if i == 0:
            interval = struct.pack(">HHH", 0xFFDD, 4, across * down)
            # The first strip gives the header, in which its own height is replaced by that of the
            # image.
            pieces += [strip[:size], struct.pack(">H", height), strip[size + 2 : scan], interval]
        else:
            scan += 2 + int.from_bytes(strip[scan + 2 : scan + 4], "big")
            # Restart markers must count RST0 to RST7 in turn (ITU-T T.81, B.2.1).
            pieces.append(bytes((0xFF, _RST0 + (i - 1) % 8)))
        pieces.append(strip[scan:-2])  # without the strip's own end marker
        if sum(map(len, pieces)) > _MAX_BYTES:
            raise BadImage(
                "too_large",
                f"{width} x {height} pixels, as a JPEG of quality {quality} over "
                f"{_MAX_BYTES / 1e6:,.0f} MB: shrink it",
            )
    return [*pieces, b"\xff\xd9"]


def _encode(pixels: np.ndarray, *, quality: int, chroma: str) -> bytes:
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=quality, colorspace="RGB", colorsubsampling=chroma
    )
    return encoded


def _places(jpeg: bytes) -> tuple[int, int]:
    """Returns the offsets of the height and of the scan in a JPEG of this encoder."""
    at, height = 2, 0
    while jpeg[at + 1] != _SOS:
        if jpeg[at + 1] == _SOF0:
            height = at + 5
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return height, at
