# SPDX-License-Identifier: BSD-3-Clause
"""Removes PNG chunks that a decoder does not need: text, colour profiles, animations.

Text may decompress to a thousand times its size, and each further frame costs as much as the first.
"""

import bisect
import io
import itertools
import struct
import zlib
from typing import NamedTuple

from mlimages_jax.data.images.image_types import BadImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
_END = b"\0\0\0\0IEND\xaeB`\x82"

Bytes = bytes | memoryview


class PngFile(NamedTuple):
    """A PNG reduced to its pixels.

    Attributes:
        pieces: Parts of the file; joined they are a PNG file.
        transparency: Contents of its tRNS chunk, b"" if there is none.
        is_truncated: Whether the file ended inside its pixels.
    """

    pieces: list[Bytes]
    transparency: bytes
    is_truncated: bool


def pixels_only(data: bytes, *, with_exif: bool = False) -> PngFile:
    """Drops chunks that are not needed for the pixels and checks the others, without copying.

    A file may end after its last pixels: the missing end is added.

    Args:
        data: A PNG file.
        with_exif: Whether to keep the EXIF data.

    Raises:
        BadImage: truncated before the pixels, or corrupt if a checksum is wrong.
    """
    view, at = memoryview(data), len(SIGNATURE)
    pieces: list[Bytes] = [SIGNATURE]
    transparency, pixels, is_truncated = b"", False, False
    kept = _KEPT | {b"eXIf"} if with_exif else _KEPT
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind == b"IEND":
            break
        if end > len(data):
            is_truncated = kind == b"IDAT"
            if is_truncated:
                # With a length and checksum of its own, decoders accept what is left of the pixels.
                pieces.append(_chunk(kind, data[at + 8 : at + 8 + length]))
                pixels = True
            break
        if kind in kept:
            if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise BadImage("corrupt", f"byte {at}: the checksum of a PNG chunk is wrong")
            pieces.append(view[at:end])
            pixels = pixels or kind == b"IDAT"
            if kind == b"tRNS":
                transparency = data[at + 8 : end - 4]
        at = end
    if not pixels:
        raise BadImage("truncated", "the PNG ends before its pixels")
    return PngFile([*pieces, _END], transparency, is_truncated)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", checksum)


class Pieces(io.RawIOBase):
    """A file object over pieces in memory; joining them would copy up to 200 MB."""

    def __init__(self, pieces: list[Bytes]):
        self._pieces = pieces
        self._starts = [0, *itertools.accumulate(map(len, pieces))]
        self._at = 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position in bytes."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io passes no other
        """Reads from one piece at a time; returns 0 at the end."""
        number = bisect.bisect_right(self._starts, self._at) - 1
        if number >= len(self._pieces):
            return 0
        inside = self._at - self._starts[number]
        some = self._pieces[number][inside : inside + len(buffer)]
        buffer[: len(some)] = some
        self._at += len(some)
        return len(some)
