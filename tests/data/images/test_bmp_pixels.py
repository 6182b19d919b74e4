# SPDX-License-Identifier: BSD-3-Clause
"""BMPs that Pillow reads in part: masks of colours, transparency, run lengths."""

import struct

import numpy as np
import pytest

from mlimages_jax.data.images.decode import (
    BadImage,
    decode,
    stored_jpeg,
    verify,
)
from tests.support import image_files

MASKS = {
    "555": (16, (0x7C00, 0x3E0, 0x1F, 0)),
    "565": (16, (0xF800, 0x7E0, 0x1F, 0)),
    "1555": (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "444": (16, (0xF00, 0xF0, 0xF, 0)),
    "4444": (16, (0xF00, 0xF0, 0xF, 0xF000)),
    "332 in 16": (16, (0xE0, 0x1C, 0x3, 0)),
    "BGRX": (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    "unusual order": (32, (0xFF000000, 0xFF0, 0xFF0000, 0)),
    "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
    "18 bits": (32, (0xFE000000, 0x1FFFF80, 0x7F, 0)),
    "RGBA": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
}


def bmp(pixels, bits, masks, *, alpha=255, size=108, top_down=False):
    """A BMP of [H, W, 3] with the masks; without an alpha mask, `alpha` is dropped."""
    height, width = pixels.shape[:2]
    words = np.zeros((height, width), np.uint64)
    channels = [*np.moveaxis(pixels, 2, 0), np.broadcast_to(alpha, (height, width))]
    for channel, mask in zip(channels, masks, strict=True):
        if mask:
            low = mask & -mask
            words |= np.round(channel / 255 * (mask // low)).astype(np.uint64) * np.uint64(low)
    rows = words.astype(f"<u{bits // 8}").view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    body = (rows if top_down else rows[::-1]).tobytes()
    head = struct.pack("<IiiHHIIiiII", size, width, -height if top_down else height, 1, bits,
                       3, len(body), 0, 0, 0, 0)  # fmt: skip
    head += struct.pack("<IIII", *masks)[: 12 if size == 40 else 16]
    head = head.ljust(size, b"\0")
    return (
        b"BM"
        + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head))
        + (head + body)
    )


def steps(bits_a_channel):
    return 255 / (2**bits_a_channel - 1) / 2 + 1


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_every_layout_of_masks_is_read(kind, top_down):
    bits, masks = MASKS[kind]
    pixels = image_files.noise(11, 13)
    for size in (40, 108, 124) if not masks[3] else (56, 108, 124):
        found = decode(bmp(pixels, bits, masks, size=size, top_down=top_down)).astype(int)
        for channel in range(3):
            error = np.abs(found[..., channel] - pixels[..., channel]).max()
            assert error <= steps(masks[channel].bit_count()), (size, channel)


def test_transparency_by_a_mask_is_laid_on_white():
    alpha = np.full((6, 5), 0.0)
    alpha[:, 3:] = 255
    data = bmp(np.zeros((6, 5, 3)), *MASKS["4444"], alpha=alpha)
    assert (decode(data)[:, :3] == 255).all() and (decode(data)[:, 3:] == 0).all()


@pytest.mark.parametrize("kind", ["RGBA", "4444", "1555"])
def test_alpha_that_is_zero_everywhere_is_no_transparency(kind):
    pixels = image_files.quadrants()
    found = decode(bmp(pixels, *MASKS[kind], alpha=0))
    assert np.abs(found.astype(int) - pixels).max() <= 9


def test_masks_that_cannot_be_are_corrupt():
    for masks in ((0x10000, 0x3E0, 0x1F, 0), (0x7A00, 0x3E0, 0x1F, 0)):
        data = bytearray(bmp(image_files.noise(4, 4), *MASKS["555"]))
        struct.pack_into("<IIII", data, 54, *masks)
        with pytest.raises(BadImage, match="mask") as caught:
            verify(bytes(data))
        assert caught.value.reason == "corrupt"


def test_a_bmp_with_masks_that_is_cut_is_truncated():
    data = bmp(image_files.noise(8, 8), *MASKS["4444"])
    with pytest.raises(BadImage) as caught:
        verify(data[:-9])
    assert caught.value.reason == "truncated"
    assert stored_jpeg(data).width == 8


def runs(body: bytes, *, bits=8, width=5, height=3) -> bytes:
    """Rows from the bottom up, of a palette of black, red, white."""
    palette = bytes((0, 0, 0, 0, 0, 0, 255, 0, 255, 255, 255, 0))
    compression = 1 if bits == 8 else 2
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body),
                       0, 0, 3, 0)  # fmt: skip
    start = 54 + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + palette + body


RED, WHITE, BLACK = [255, 0, 0], [255] * 3, [0] * 3


def test_runs_that_end_early_leave_the_first_colour():
    found = decode(runs(b"\5\2\0\0\2\1\0\1")).tolist()
    assert found == [[BLACK] * 5, [RED] * 2 + [BLACK] * 3, [WHITE] * 5]


def test_moves_and_literals_of_runs():
    body = b"\0\3\1\2\1\0\0\2\1\1\1\2\0\1"  # three dots, one right and one up, a dot
    found = decode(runs(body)).tolist()
    assert found == [[BLACK] * 5, [BLACK] * 4 + [WHITE], [RED, WHITE, RED, BLACK, BLACK]]


def test_runs_of_four_bits_hold_two_colours():
    found = decode(runs(b"\5\x12\0\0\0\5\x12\x12\x10\0\0\1", bits=4)).tolist()
    row = [RED, WHITE, RED, WHITE, RED]
    assert found == [[BLACK] * 5, row, row]


@pytest.mark.parametrize("body", [b"\5\2\0\0\2", b"\5\2\0\0", b"\0\5\1\1"])
def test_runs_that_are_cut_are_truncated(body):
    with pytest.raises(BadImage) as caught:
        decode(runs(body))
    assert caught.value.reason == "truncated"


def test_runs_of_nothing_do_not_last_for_ever():
    with pytest.raises(BadImage, match="do not end") as caught:
        decode(runs(b"\0\2\0\0" * 10_000))
    assert caught.value.reason == "corrupt"
