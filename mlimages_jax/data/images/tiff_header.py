# SPDX-License-Identifier: BSD-3-Clause
"""Reads the first directory of a TIFF file (size, kind, memory) before libtiff sees it."""

import struct
from typing import NamedTuple

from mlimages_jax.data.images.image_types import BadImage, ImageHeader
from mlimages_jax.data.images.jpeg_markers import read_jpeg_header

# Limit for offsets and sizes of strips and tiles together: a few per row of the largest image.
_MAX_NUMBERS = 2**20
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS = 254, 256, 257, 258, 259, 273
_ORIENTATION, _SAMPLES, _ROWS, _COUNTS = 274, 277, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_PLACES = {_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS}
_RAW = {50706: "DNG", 33421: "a camera's RAW"}  # DNGVersion; CFARepeatPatternDim
_PLAIN, _JPEG = 1, 7


class _Tag(NamedTuple):
    code: str  # of struct; "" for types whose numbers are not needed
    length: int
    at: int  # offset of its first number
    field: int  # offset of its value field


def read_tiff_header(data: bytes) -> ImageHeader:
    """Reads the header of the first image in the file.

    Raises:
        BadImage: unsupported (RAW, or an unsupported JPEG inside) or corrupt.
        IndexError: If the file ends before.
        struct.error: If the file ends before.
    """
    if data.startswith(b"MM\0+"):
        raise BadImage("unsupported", "a big-endian BigTIFF: convert it to JPEG or PNG")
    tags = _tags(data)
    width, height = _number(data, tags, _WIDTH), _number(data, tags, _HEIGHT)
    samples, bits = _number(data, tags, _SAMPLES, 1), _number(data, tags, _BITS, 1)
    # Bit 0 of NewSubfileType marks a thumbnail, with which RAW files begin. Decoding it would pass
    # off a thumbnail as the photograph.
    if data[8:10] == b"CR" or _RAW.keys() & tags or _number(data, tags, _SUBFILE, 0) & 1:
        raise BadImage("unsupported", "a camera's RAW file (TIFF): convert it to JPEG or PNG")
    compression = _number(data, tags, _COMPRESSION, _PLAIN)
    if compression == _JPEG:
        _check_jpeg(data, tags)
    # Pillow's memory besides the result, plus what libtiff decompresses at a time.
    held = int(width * height * (1 if samples > 1 or bits <= 8 else 2.1))
    if compression != _PLAIN:
        across = _number(data, tags, _TILE_WIDTH, width)
        down = _number(data, tags, _TILE_HEIGHT, min(height, _number(data, tags, _ROWS, height)))
        held += across * down * max(4 if compression == _JPEG else 1, samples * -(-bits // 8))
    return ImageHeader("tiff", width, height, samples, bits, held)


def stored_upright(data: bytes) -> bytes:
    """Returns the file with orientation 1, because Pillow turns TIFFs, and only them, by itself."""
    tag = _tags(data).get(_ORIENTATION)
    if tag is None or tag.code != "H" or tag.length != 1:
        return data
    changed = bytearray(data)
    struct.pack_into(_order(data) + "H", changed, tag.at, 1)
    return bytes(changed)


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _tags(data: bytes) -> dict[int, _Tag]:
    order, big = _order(data), 43 in (data[2], data[3])
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    entry, room = (20, 8) if big else (12, 4)
    at += 8 if big else 2
    tags: dict[int, _Tag] = {}
    numbers = 0  # Pillow stores all of these as Python integers
    for i in range(count):
        start = at + entry * i
        tag, kind, length = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, start)
        field = start + entry - room
        size = _SIZES.get(kind, 1) * length
        place = field
        if size > room:
            (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, field)
        if tag in _PLACES:
            numbers += length

        tags.setdefault(tag, _Tag(_TYPES.get(kind, ""), length, place, field))
        if numbers > _MAX_NUMBERS:
            raise BadImage("unsupported", f"a TIFF of over {_MAX_NUMBERS:,} strips or tiles")
    return tags


def _number(data: bytes, tags: dict[int, _Tag], tag: int, default: int | None = None) -> int:
    if tag not in tags or not tags[tag].code or not tags[tag].length:
        if default is None:
            raise BadImage("corrupt", f"the TIFF lacks the tag {tag}")
        return default
    return int(struct.unpack_from(_order(data) + tags[tag].code, data, tags[tag].at)[0])


def _numbers(data: bytes, tags: dict[int, _Tag], tag: int) -> list[int]:
    if tag not in tags or not tags[tag].code:
        return []
    found = tags[tag]
    return list(struct.unpack_from(f"{_order(data)}{found.length}{found.code}", data, found.at))


def _check_jpeg(data: bytes, tags: dict[int, _Tag]) -> None:
    """Checks the JPEG in each strip or tile like a JPEG file, before its decoder sees it."""
    for offsets, counts in ((_OFFSETS, _COUNTS), (_TILE_OFFSETS, _TILE_COUNTS)):
        places = zip(_numbers(data, tags, offsets), _numbers(data, tags, counts), strict=False)
        for offset, count in places:
            read_jpeg_header(data[offset : offset + count])
