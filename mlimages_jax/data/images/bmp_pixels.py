# SPDX-License-Identifier: BSD-3-Clause
"""Decodes BMPs that Pillow supports only in part: colour masks and run lengths.

Pillow knows ten layouts of masks. If alpha is zero everywhere it returns a white image, where
viewers show the colours, and it takes a run-length file whose rows end early for truncated.
"""

import struct
from typing import NamedTuple

import numpy as np

from mlimages_jax.data.images.image_types import BadImage
from mlimages_jax.data.images.pillow_pixels import on_white

RUN_LENGTHS = {1: 8, 2: 4}  # bits per pixel, by compression number
_BY_MASKS = {3, 6}
_STRIP = 2**18  # pixels processed at a time
_USUAL = {16: (0x7C00, 0x03E0, 0x001F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}  # if all are 0
_END_OF_ROW, _END, _MOVE = 0, 1, 2  # codes after a count of 0


class _Head(NamedTuple):
    start: int  # offset of the pixels
    size: int  # of the header
    width: int
    height: int  # negative: rows are stored from the top
    bits: int
    compression: int


def decode(data: bytes) -> np.ndarray | None:
    """Returns uint8 [H, W, 3], RGB, blended with white; None for kinds that Pillow can read.

    Args:
        data: The bytes of a file whose header `other_headers` has checked.

    Raises:
        BadImage: If the file is corrupt or truncated.
    """
    start, size = struct.unpack_from("<II", data, 10)
    if size < 40:
        return None
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    head = _Head(start, size, width, height, bits, compression)
    if compression in _BY_MASKS and bits in _USUAL:
        return _by_masks(data, head)
    if RUN_LENGTHS.get(compression) == bits:
        return _run_lengths(data, head)
    return None


def _by_masks(data: bytes, head: _Head) -> np.ndarray:
    masks = _masks(data, head)
    height, words = abs(head.height), head.bits // 8
    # Rows are padded to a multiple of four bytes.
    stride = -(-head.width * head.bits // 32) * 4
    if len(data) < head.start + stride * height:
        there = max(0, len(data) - head.start)
        message = f"a BMP with {there:,} bytes of pixels instead of {stride * height:,}"
        raise BadImage("truncated", message)
    rows = np.frombuffer(data, np.uint8, stride * height, head.start).reshape(height, stride)
    stored = rows[:, : words * head.width].view(f"<u{words}")
    if head.height > 0:
        stored = stored[::-1]
    step = -(-_STRIP // head.width)
    strips = [slice(top, top + step) for top in range(0, height, step)]
    alpha = masks[3]
    if not any(np.any(stored[strip] & alpha) for strip in strips):
        alpha = 0  # as browsers do: a fully transparent image is never intended
    pixels = np.empty((height, head.width, 3), np.uint8)
    for strip in strips:
        wanted = (*masks[:3], alpha) if alpha else masks[:3]
        channels = np.stack([_levels(stored[strip], mask) for mask in wanted], axis=2)
        pixels[strip] = on_white(channels) if alpha else channels
    return pixels


def _masks(data: bytes, head: _Head) -> tuple[int, int, int, int]:
    """Returns the masks of red, green, blue and alpha, which follow a header of 40 bytes."""
    with_alpha = head.size >= 56 or head.compression == 6
    red, green, blue = struct.unpack_from("<III", data, 54)
    alpha = struct.unpack_from("<I", data, 66)[0] if with_alpha else 0
    masks = (red, green, blue, alpha)
    if not any(masks[:3]):
        return _USUAL[head.bits]
    for mask in masks:
        low = mask & -mask
        # The last term is 0 only if the bits of the mask have no gaps.
        if mask >> head.bits or (mask and (mask // low + 1) & (mask // low)):
            message = f"a BMP of {head.bits} bits with the mask {mask:#010x} of a colour"
            raise BadImage("corrupt", message)
    return masks


def _levels(stored: np.ndarray, mask: int) -> np.ndarray:
    """Returns the values selected by a mask, scaled to levels from 0 to 255."""
    if not mask:
        return np.zeros(stored.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    bits = mask.bit_length() - shift
    dropped = max(0, bits - 16)  # so that the product below fits into 32 bits
    most = 2 ** (bits - dropped) - 1
    value = (stored.astype(np.uint32) & mask) >> (shift + dropped)
    return ((value * 255 + most // 2) // most).astype(np.uint8)


def _run_lengths(data: bytes, head: _Head) -> np.ndarray:
    """Decodes run lengths; pixels not covered by a run get the first colour of the palette."""
    height = abs(head.height)
    indices = np.zeros((height, head.width), np.uint8)
    x, y, at = 0, 0, head.start
    packed = head.bits == 4
    for _ in range(2 * (indices.size + height) + 1_000):  # more could only be empty runs
        if y >= height:
            break
        if at + 2 > len(data):
            raise BadImage("truncated", _early_end(y, height))
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            pair = (value >> 4, value & 15) if packed else (value, value)
            run = indices[y, x : x + count]  # ends with the row, however long the run
            run[0::2], run[1::2] = pair
            x += count
        elif value == _END_OF_ROW:
            x, y = 0, y + 1
        elif value == _END:
            break
        elif value == _MOVE:
            right, down = struct.unpack_from("<BB", data, at)
            x, y, at = x + right, y + down, at + 2
        else:
            length = (value + 1) // 2 if packed else value
            literal = np.frombuffer(data[at : at + length], np.uint8)
            if len(literal) < length:
                raise BadImage("truncated", _early_end(y, height))
            if packed:
                literal = np.stack([literal >> 4, literal & 15], axis=1).reshape(-1)[:value]
            run = indices[y, x : x + value]
            run[:] = literal[: len(run)]
            x, at = x + value, at + length + length % 2  # literals are padded to whole words
    else:
        raise BadImage("corrupt", "a BMP whose runs do not end")
    rows = indices if head.height < 0 else indices[::-1]
    return _palette(data, head)[rows]


def _early_end(row: int, height: int) -> str:
    return f"the runs of a BMP end in row {row:,} of {height:,}"


def _palette(data: bytes, head: _Head) -> np.ndarray:
    """Returns uint8 [2**bits, 3]; colours missing in the file are black."""
    (used,) = struct.unpack_from("<I", data, 46)
    begin = 14 + head.size
    count = min(used or 2**head.bits, 2**head.bits, max(0, head.start - begin) // 4)
    palette = np.zeros((2**head.bits, 3), np.uint8)
    stored = np.frombuffer(data, np.uint8, 4 * count, begin).reshape(count, 4)
    palette[:count] = stored[:, 2::-1]  # stored as blue, green, red and a zero
    return palette
