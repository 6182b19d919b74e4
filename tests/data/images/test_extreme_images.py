# SPDX-License-Identifier: BSD-3-Clause
"""Every mode and depth with extreme sizes and all options: stored, or a `BadImage`."""

import concurrent.futures
import io
import struct
import threading
import time

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import PIL
import pytest
import simplejpeg
from PIL import Image

from mlimages_jax.data.images import (
    budget,
    decode,
    views,
    whole_images,
)
from mlimages_jax.data.images.decode import BadImage, StoredImage, stored_jpeg
from mlimages_jax.data.images.image_types import ImageHeader, described
from mlimages_jax.inference import user_images
from tests.support import fuzzing, image_files

MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "GIF": ["P", "L"],
    "WEBP": ["RGB", "RGBA"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "JPEG2000": ["L", "LA", "RGB", "RGBA", "I;16"],
    "AVIF": ["RGB", "RGBA"],
    "QOI": ["RGB", "RGBA"],
    "ICO": ["RGBA"],
}
if int(PIL.__version__.partition(".")[0]) >= 13:  # older ones write files that end too early
    MODES["TIFF"].append("YCbCr")
KINDS = [(kind, mode) for kind, modes in MODES.items() for mode in modes]
SIDES = [1, 2, 3, 7, 8, 9, 16, 17, 255, 257, 501, 4_097, 16_384, 32_768, 65_500, 65_501, 70_001]


def made(kind: str, mode: str, width: int, height: int, orientation: int) -> bytes | None:
    """A file, or None where Pillow cannot write it."""
    rng = np.random.default_rng(width * 7 + height)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(np.asarray(image)[:, :, 0].astype(dtype) * 250)
    elif mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") and orientation > 1 else {}
    if kind == "JPEG":
        options["progressive"] = width % 2 == 1
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (ValueError, OSError, KeyError, RuntimeError, OverflowError, struct.error):
        return None
    return file.getvalue()


OPTIONS = st.fixed_dictionaries(
    {
        "short_side": st.sampled_from([None, 1, 2, 8, 64, 300, 70_000]),
        "quality": st.sampled_from([1, 90, 100]),
        "chroma": st.sampled_from(["444", "420"]),
        "sequential": st.booleans(),
        "check": st.booleans(),
        "orientation": st.sampled_from(["stored", "exif"]),
        "max_pixels": st.sampled_from([1, 10_000, decode.MAX_PIXELS]),
    }
)


def _stores_or_tells(kind, mode, size, orientation, options):
    data = made(kind, mode, *size, orientation)
    if data is None:
        return
    try:
        stored = stored_jpeg(data, **options)
    except BadImage as bad:
        assert bad.reason in {"too_large", "unsupported"}, bad
        return
    assert isinstance(stored, StoredImage)
    assert simplejpeg.decode_jpeg_header(stored.jpeg)[:2] == stored[1:]
    assert decode.decode(stored.jpeg).shape == (*stored[1:], 3)


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(
    st.sampled_from(KINDS),
    st.sampled_from(SIDES),
    st.sampled_from([1, 1, 2, 3, 17, 64]),
    st.booleans(),
    st.integers(1, 8),
    OPTIONS,
)
def test_every_image_is_stored_or_told_about(kind, long, short, lying, orientation, options):
    size = (long, short) if lying else (short, long)
    _stores_or_tells(*kind, size, orientation, options)


@pytest.mark.slow
@hypothesis.settings(max_examples=fuzzing.fraction(1_500), deadline=None, derandomize=True)
@hypothesis.given(
    st.sampled_from(KINDS), st.sampled_from(SIDES), st.integers(1, 40), st.booleans(),
    st.integers(1, 8), OPTIONS,
)  # fmt: skip
def test_many_images_are_stored_or_told_about(kind, long, short, lying, orientation, options):
    size = (long, short) if lying else (short, long)
    _stores_or_tells(*kind, size, orientation, options)


@pytest.mark.parametrize("size", [(1, 1), (1, 70_001), (70_001, 1), (65_500, 1), (3, 20_000)])
def test_views_of_extreme_sizes(size):
    data = made("PNG", "RGB", *size, 1)
    for view in (views.TrainingView(32), views.TrainingView(32, interpolation="area")):
        assert view(data, np.random.default_rng(0)).shape == (32, 32, 3)
    for protocol in views.VIEW_NAMES:
        view = views.EvaluationView(32, protocol)
        try:
            assert view(data).shape[-3:] == (32, 32, 3)
        except BadImage as bad:
            assert bad.reason == "elongated"


RAISED = [
    ValueError("x"), MemoryError(), OverflowError("x"), SyntaxError("x"), cv2.error("x"),
    EOFError(), RecursionError("x"), KeyError(1), ZeroDivisionError(), AttributeError("x"),
    SystemError("x"), OSError("<_io.BytesIO object at 0x7f0011223344>"), NotImplementedError(),
]  # fmt: skip


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["pixels", "shrink", "read_header", "simplejpeg"])
def test_whatever_is_raised_belongs_to_the_image(error, place, monkeypatch):
    def fail(*arguments, **options):
        raise error

    if place == "simplejpeg":
        monkeypatch.setattr(simplejpeg, "encode_jpeg", fail)
    elif place == "pixels":
        monkeypatch.setattr(whole_images, "pixels", fail)
    else:
        monkeypatch.setattr(decode, place, fail)
    with pytest.raises(BadImage) as caught:
        stored_jpeg(image_files.by_pillow("PNG"), short_side=16)
    assert caught.value.reason == ("too_large" if isinstance(error, MemoryError) else "corrupt")
    assert "0x" not in str(caught.value)


def test_wrong_options_are_not_the_image_s_fault():
    data = image_files.by_pillow("PNG")
    for options in ({"short_side": 0}, {"quality": 0}, {"quality": 101}, {"chroma": "411"}):
        with pytest.raises(ValueError, match=r"give|none of") as caught:
            stored_jpeg(data, **options)
        assert not isinstance(caught.value, BadImage)


def test_addresses_are_left_out():
    assert described(OSError("cannot identify image file <_io.BytesIO object at 0x7f1>")) == (
        "cannot identify image file"
    )
    assert described(KeyError()) == "KeyError"


# The budget


def test_the_budget_is_never_exceeded_and_large_ones_pass():
    shared = budget.Budget(100)
    used, peak, lock = 0, 0, threading.Lock()

    def work(amount):
        nonlocal used, peak
        with shared.hold(amount):
            with lock:
                used += amount
                peak = max(peak, used)
                assert used <= 100 or used == amount
            time.sleep(0.0005)
            with lock:
                used -= amount

    amounts = [30, 40, 100, 250, 1, 60] * 30
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, amounts))
    assert used == 0 and peak == 250


def test_an_error_gives_the_budget_back():
    shared = budget.Budget(10)
    for _ in range(3):
        with pytest.raises(KeyError), shared.hold(10):
            raise KeyError
    with shared.hold(10):
        pass


def test_decoding_takes_from_the_budget(monkeypatch):
    held = []

    class Spy(budget.Budget):
        def hold(self, amount):
            held.append(amount)
            return super().hold(amount)

    monkeypatch.setattr(decode, "in_flight", Spy(10**9))
    data = made("JPEG", "RGB", 640, 480, 1)
    decode.decode(data)
    decode.decode(data, min_height=60, min_width=80)
    decode.verify(data)
    decode.stored_jpeg(data, short_side=100)
    decode.decode_box(data, decode.CropBox(0, 0, 480, 640), size=480)
    full = 3 * 640 * 480
    assert held == [full, full // 64, full // 64, full // 4, full]


def test_what_would_take_too_much_is_too_large_by_its_header():
    header = ImageHeader("jpeg", 5_000, 5_000, 3, 8, held=100_000_001)
    with pytest.raises(BadImage, match=r"175 MB, 175 MB are allowed|would take") as caught:
        budget.decoding_bytes(header)
    assert caught.value.reason == "too_large"
    assert budget.decoding_bytes(header._replace(held=10**8)) == 175_000_000


def test_images_of_pillow_pass_the_same_gate():
    data = bytearray(image_files.by_pillow("JPEG"))
    data[data.index(b"\xff\xc0") + 1] = 0xC3
    image = Image.open(io.BytesIO(data))
    with pytest.raises(BadImage, match="lossless"):
        user_images.pixels(image)
