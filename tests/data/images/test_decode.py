# SPDX-License-Identifier: BSD-3-Clause
"""The decoding policy on a corpus of good and bad files, with colours worked out by hand."""

import concurrent.futures
import pickle
import struct
import subprocess
import sys

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import simplejpeg

from mlimages_jax.data.images import decode as decode_module
from mlimages_jax.data.images.decode import (
    BadImage,
    decode,
    read_header,
    stored_jpeg,
)
from mlimages_jax.data.images.shrinking import shrink
from tests.support import image_files
from tests.support.image_files import BAD, BLUE, GOOD, GREEN, HEIGHT, RED, WIDTH, YELLOW


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The colours in the middle of the quadrants, in reading order."""
    height, width, _ = pixels.shape
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return [tuple(map(int, pixels[row, column])) for row in rows for column in columns]


def assert_colours(found: list, expected: list, *, tolerance: int = 6) -> None:
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=tolerance)


@pytest.mark.parametrize("kind", GOOD)
def test_good_files_keep_their_colours(kind):
    pixels = decode(GOOD[kind]())
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert_colours(corners(pixels), [RED, GREEN, BLUE, YELLOW], tolerance=8)


def test_lossless_files_are_exact():
    for data in (image_files.by_pillow("PNG"), image_files.by_pillow("WEBP", lossless=True)):
        np.testing.assert_array_equal(decode(data), image_files.quadrants())
    # 16 bits: 220 * 256 + 77 is 220 again, whatever the low byte.
    np.testing.assert_array_equal(decode(image_files.deep_png()), image_files.quadrants())


def test_grey_becomes_three_equal_channels():
    for data in (image_files.grey_jpeg(), image_files.deep_png(grey=True)):
        pixels = decode(data)
        assert_colours(corners(pixels), [(c[0],) * 3 for c in (RED, GREEN, BLUE, YELLOW)])
        assert (pixels[..., 0] == pixels[..., 2]).all()


def test_transparent_pixels_become_white():
    white = (255, 255, 255)
    assert corners(decode(image_files.translucent_png())) == [RED, white, BLUE, white]


def test_half_transparent_is_halfway_to_white():
    rgba = np.full((2, 2, 4), (100, 0, 255, 128), np.uint8)
    png = cv2.imencode(".png", rgba[:, :, [2, 1, 0, 3]])[1].tobytes()
    # 100 * 128/255 + 255 * 127/255 = 177.2; 127; 255
    assert tuple(decode(png)[0, 0]) == (177, 127, 255)


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused_with_a_reason(kind):
    make, reason = BAD[kind]
    for refuse in (decode, stored_jpeg):
        with pytest.raises(BadImage) as caught:
            refuse(make())
        assert caught.value.reason == reason
        assert str(caught.value)


def test_a_bomb_is_refused_before_decoding(monkeypatch):
    def never(*arguments, **options):
        pytest.fail("a decoder saw the bomb")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    monkeypatch.setattr(decode_module.Image, "open", never)
    bomb = image_files.jpeg_bomb()
    assert len(bomb) < 700
    for data in (bomb, image_files.png_bomb(), image_files.gif_bomb()):
        with pytest.raises(BadImage, match="65000 x 65000 pixels are more than"):
            decode(data, exif_orientation=True)


def test_the_cap_counts_pixels():
    data = GOOD["colour"]()
    assert decode(data, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(BadImage, match="64 x 32 pixels are more than the 2,047 allowed"):
        decode(data, max_pixels=HEIGHT * WIDTH - 1)


def test_pillows_own_limit_is_a_bad_image_too(monkeypatch):
    monkeypatch.setattr(decode_module.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImage) as caught:
        decode(GOOD["gif named .JPEG"]())
    assert caught.value.reason == "too_large"


def test_unusual_jpegs_are_unsupported():
    data = bytearray(GOOD["colour"]())
    frame = data.index(b"\xff\xc0")
    data[frame + 4] = 12  # bits
    with pytest.raises(BadImage, match="3 components with 12 bits"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("colour", ("jpeg", 64, 32, 3, 8)),
        ("progressive", ("jpeg", 64, 32, 3, 8)),
        ("rotated by EXIF", ("jpeg", 64, 32, 3, 8)),
        ("cmyk", ("jpeg", 64, 32, 4, 8)),
        ("png with a palette", ("png", 64, 32, 3, 2)),
        ("16-bit png", ("png", 64, 32, 3, 16)),
        ("gif named .JPEG", ("gif", 64, 32, 3, 8)),
        ("webp named .JPEG", ("webp", 64, 32, 3, 8)),
        ("lossless webp", ("webp", 64, 32, 3, 8)),
    ],
)
def test_headers(kind, expected):
    assert read_header(GOOD[kind]())[:5] == expected


def test_header_of_an_extended_webp():
    # 3 bytes each, less one: 300 x 70,000; bit 4 of the flags: alpha.
    sides = (300 - 1).to_bytes(3, "little") + (70_000 - 1).to_bytes(3, "little")
    data = b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<IB3x", 10, 0x10) + sides
    assert read_header(data)[:5] == ("webp", 300, 70_000, 4, 8)


def test_header_survives_fill_bytes_and_thumbnails():
    data = GOOD["colour"]()
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data  # its own size must not count
    assert read_header(b"\xff\xd8" + thumbnail + b"\xff\xff\xff" + data[3:]).width == WIDTH


@pytest.mark.parametrize(
    ("least", "shape"),
    [
        ((0, 0), (32, 64)),
        ((33, 1), (32, 64)),  # never enlarged
        ((17, 1), (32, 64)),
        ((16, 32), (16, 32)),
        ((9, 17), (16, 32)),
        ((8, 17), (16, 32)),  # both sides have to be large enough
        ((8, 16), (8, 16)),
        ((1, 0), (4, 8)),  # at most 1/8
    ],
)
def test_jpegs_shrink_by_powers_of_two(least, shape):
    pixels = decode(GOOD["colour"](), min_height=least[0], min_width=least[1])
    assert pixels.shape == (*shape, 3)
    assert_colours(corners(pixels), [RED, GREEN, BLUE, YELLOW])


@pytest.mark.parametrize(
    ("orientation", "order"),
    [(1, "RGBY"), (2, "GRYB"), (3, "YBGR"), (4, "BYRG"),
     (5, "RBGY"), (6, "BRYG"), (7, "YGBR"), (8, "GYRB")],
)  # fmt: skip
def test_exif_orientation(orientation, order):
    colours = {"R": RED, "G": GREEN, "B": BLUE, "Y": YELLOW}
    data = image_files.exif_jpeg(orientation)
    assert_colours(corners(decode(data)), [RED, GREEN, BLUE, YELLOW])
    upright = decode(data, exif_orientation=True)
    assert upright.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    assert_colours(corners(upright), [colours[letter] for letter in order])


def test_least_sides_are_those_of_the_upright_image():
    pixels = decode(image_files.exif_jpeg(6), min_height=32, min_width=9, exif_orientation=True)
    assert pixels.shape == (32, 16, 3)


@pytest.mark.parametrize("make", [GOOD["colour"], GOOD["halved colour"], image_files.grey_jpeg])
def test_clean_jpegs_are_stored_as_they_came(make):
    data = make()
    for short_side in (None, HEIGHT, HEIGHT + 1):  # never enlarged
        assert stored_jpeg(data, short_side=short_side) == (data, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["cmyk", "png named .JPEG", "16-bit png", "lossless webp"])
def test_others_are_stored_as_jpeg_in_full_colour(kind):
    stored = stored_jpeg(GOOD[kind]())
    assert (stored.height, stored.width) == (HEIGHT, WIDTH)
    assert simplejpeg.decode_jpeg_header(stored.jpeg)[2:] == ("YCbCr", "444")
    assert_colours(corners(decode(stored.jpeg)), [RED, GREEN, BLUE, YELLOW], tolerance=8)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((64, 96), 32, (32, 48)), ((96, 64), 32, (48, 32)), ((640, 640), 100, (100, 100)),
     ((300, 455), 100, (100, 152))],
)  # fmt: skip
def test_larger_images_shrink(size, short_side, expected):
    pixels = image_files.noise(*size)
    stored = stored_jpeg(image_files.jpeg(pixels), short_side=short_side)
    assert (stored.height, stored.width) == expected
    shrunken = cv2.resize(pixels, expected[::-1], interpolation=cv2.INTER_AREA)
    error = np.abs(decode(stored.jpeg).astype(int) - shrunken)
    assert error.mean() < 2.5


def test_shrinking_averages():
    stripes = np.tile(np.array([255, 0, 0, 0], np.uint8), 16)  # means of 63.75, unseen by sampling
    png = cv2.imencode(".png", np.tile(stripes, (64, 1)))[1].tobytes()
    jpeg = image_files.jpeg(np.tile(stripes[None, :, None], (64, 1, 3)))
    for data in (png, jpeg):
        pixels = decode(stored_jpeg(data, short_side=16).jpeg)
        np.testing.assert_allclose(pixels, 64, atol=3)


def test_the_quick_check_finds_what_the_full_decoder_finds():
    data = image_files.jpeg(image_files.noise(128, 192))
    refused = 0
    for seed in range(60):
        broken = image_files.flipped(data, seed=seed, count=1 + seed % 3)
        outcomes = []
        for check in (decode, stored_jpeg):
            try:
                check(broken)
                outcomes.append("fine")
            except BadImage as bad:
                outcomes.append(bad.reason)
        assert outcomes[0] == outcomes[1]
        refused += outcomes[0] != "fine"
    assert refused > 10  # a single wrong bit often makes another valid image


def test_threads_give_the_same_pixels():
    files = [make() for make in GOOD.values()] * 8
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, files))
    for data, pixels in zip(files, together, strict=True):
        np.testing.assert_array_equal(pixels, decode(data))


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(st.sampled_from(sorted(GOOD)), st.data())
def test_broken_files_raise_nothing_else(kind, data):
    broken = bytearray(GOOD[kind]())
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.integers(1, len(broken))) :]
    try:
        pixels = decode(bytes(broken), exif_orientation=True, max_pixels=2**20)
    except BadImage:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def test_bad_images_cross_processes():
    bad = pickle.loads(pickle.dumps(BadImage("empty", "the file has no bytes")))
    assert (bad.reason, str(bad)) == ("empty", "the file has no bytes")


def test_importing_stays_light():
    heavy = "{'jax', 'tensorflow', 'tensorflow_datasets', 'grain'} & set(sys.modules)"
    code = f"import sys, mlimages_jax.data.images.decode; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [(61, 97, 20, 32), (640, 480, 427, 320), (64, 96, 32, 48)])
def test_averages_are_those_of_bytes(size):
    """As OpenCV does with bytes, and as the mean of each block where the factor is a whole one."""
    height, width, new_height, new_width = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    found = shrink(pixels, new_height, new_width)
    expected = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found != expected).mean() < (0.3 if height == 2 * new_height else 0.001)
    if height == 2 * new_height:
        blocks = pixels.reshape(new_height, 2, new_width, 2, 3).mean(axis=(1, 3))
        assert np.abs(found - blocks).max() <= 0.5
    again = shrink(pixels[:, ::-1].copy(), new_height, new_width)
    np.testing.assert_array_equal(found, shrink(pixels, new_height, new_width))
    assert not np.shares_memory(found, again)


def test_verifying_says_what_decoding_says():
    for make in image_files.GOOD.values():
        assert decode_module.verify(make()) == read_header(make())
    for make, reason in image_files.BAD.values():
        with pytest.raises(BadImage) as error:
            decode_module.verify(make())
        assert error.value.reason == reason
