# SPDX-License-Identifier: BSD-3-Clause
"""Windows of JPEG files against slices of the whole image, with and without the compiled code."""

import concurrent.futures
import io
import itertools
import re

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mlimages_jax.data.images import jpeg, views
from mlimages_jax.data.images.decode import (
    BadImage,
    decode,
    decode_box,
    read_header,
    stored_jpeg,
)
from mlimages_jax.data.images.transforms import CropBox
from tests.support import fuzzing, image_files

needs_compiled = pytest.mark.skipif(
    not jpeg.is_compiled(), reason="built without a C compiler or libjpeg-turbo's headers"
)


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiled), "without"])
def each_way(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(jpeg, "_jpeg", None)


def textured(height: int = 173, width: int = 251) -> np.ndarray:
    """An image whose neighbouring pixels differ, in brightness and in colour."""
    coarse = np.random.default_rng(1).integers(0, 256, (height // 3, width // 3, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def saved(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **{"quality": 90} | options)
    return file.getvalue()


FILES = {
    f"{colours} {'progressive' if progressive else 'sequential'}": saved(
        textured(), subsampling=number, progressive=progressive
    )
    for number, colours in enumerate(("4:4:4", "4:2:2", "4:2:0"))
    for progressive in (False, True)
} | {
    "grey": saved(textured()[:, :, 0]),
    "upright": simplejpeg.encode_jpeg(textured(), quality=90, colorsubsampling="440"),
    "four to one": simplejpeg.encode_jpeg(textured(), quality=90, colorsubsampling="411"),
    "restarts": saved(textured(), restart_marker_blocks=3),
    # 16 MCUs a row: intervals of whole parts of rows, also with markers that come round again
    "restarts 4:2:0": saved(textured(), subsampling=2, restart_marker_blocks=4),
    "restarts 4:4:4": saved(textured(), subsampling=0, restart_marker_blocks=2),
    "restarts every MCU": saved(textured(), subsampling=1, restart_marker_blocks=1),
    "restarts every row": saved(textured(), subsampling=2, restart_marker_rows=1),
    "restarts grey": saved(textured()[:, :, 0], restart_marker_blocks=8, icc_profile=b"kept out"),
    "tiny": saved(textured(12, 9)),
    "RGB": saved(textured(), keep_rgb=True),
}


@needs_compiled
@pytest.mark.parametrize("kind", FILES)
def test_a_window_is_a_part_of_the_image_bit_by_bit(kind):
    data = FILES[kind]
    header = read_header(data)
    rng = np.random.default_rng(0)
    for factor in (1, 2, 4, 8):
        whole = jpeg.decode(data, header, factor=factor)
        for _ in range(40):
            height, width = (int(rng.integers(1, side + 1)) for side in whole.shape[:2])
            top = int(rng.integers(0, whole.shape[0] - height + 1))
            left = int(rng.integers(0, whole.shape[1] - width + 1))
            window = jpeg.decode_window(data, header, (top, left, height, width), factor=factor)
            expected = whole[top : top + height, left : left + width]
            np.testing.assert_array_equal(window, expected, err_msg=f"{factor} {top, left}")


@pytest.mark.parametrize(
    "window", [(0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (170, 0, 4, 5), (0, 240, 5, 12)]
)
def test_a_window_lies_inside(each_way, window):
    data = FILES["4:4:4 sequential"]
    with pytest.raises(ValueError, match="does not lie in 173x251 pixels"):
        jpeg.decode_window(data, read_header(data), window)


def test_the_factor_leaves_enough_pixels():
    header = read_header(FILES["grey"])  # 173 x 251
    cases = {(0, 0): 1, (1, 1): 8, (22, 32): 8, (23, 1): 4, (1, 33): 4, (87, 126): 2, (88, 1): 1}
    found = {
        least: jpeg.reduction(header, min_height=least[0], min_width=least[1]) for least in cases
    }
    assert found == cases
    assert jpeg.reduction(header, min_height=500, min_width=1) == 1  # more than there are


def test_damage_is_refused_where_the_window_meets_it(each_way):
    data = image_files.truncated(image_files.jpeg(image_files.noise(128, 192)))
    header = read_header(data)
    with pytest.raises(BadImage) as caught:
        jpeg.decode_window(data, header, (100, 5, 20, 20))
    assert caught.value.reason == "truncated"


@needs_compiled
def test_damage_behind_the_window_is_not_read():
    data = image_files.jpeg(image_files.noise(128, 192))
    whole = decode(data)
    window = jpeg.decode_window(image_files.truncated(data), read_header(data), (8, 40, 30, 100))
    np.testing.assert_array_equal(window, whole[8:38, 40:140])


@needs_compiled
def test_the_compiled_code_refuses_what_python_would_not_ask():
    data = FILES["4:2:0 sequential"]
    rows = np.empty((20, 20 + 48, 3), np.uint8)
    assert 0 <= jpeg._jpeg.decode_window(data, 1, 30, 40, 20, 20, rows) <= 48
    for window in ((160, 0, 20, 20), (0, 240, 20, 20), (2**31, 0, 20, 20), (0, 2**32 - 4, 20, 20)):
        with pytest.raises((ValueError, OverflowError)):
            jpeg._jpeg.decode_window(data, 1, *window, rows)
    for out in (
        np.empty((20, 19, 3), np.uint8),
        np.empty((7, 68, 3), np.uint8),
        np.empty(0, np.uint8),
    ):
        with pytest.raises(ValueError):
            jpeg._jpeg.decode_window(data, 1, 30, 40, 20, 20, out)
    with pytest.raises(ValueError):
        jpeg._jpeg.decode_window(data, 1, 0, 0, 0, 20, rows)
    with pytest.raises(ValueError, match="Not a JPEG"):
        jpeg._jpeg.decode_window(b"GIF89a", 1, 0, 0, 20, 20, rows)


def test_boxes_of_other_files_are_cut_from_the_whole(each_way):
    box = CropBox(4, 6, 21, 33)
    for kind, make in image_files.GOOD.items():
        expected = decode(make())[4:25, 6:39]
        np.testing.assert_array_equal(decode_box(make(), box, size=30), expected, err_msg=kind)
    with pytest.raises(BadImage, match="65000 x 65000 pixels are more than"):
        decode_box(image_files.jpeg_bomb(), box, size=30)


def test_a_box_is_reduced_with_its_image(each_way):
    data = FILES["4:2:0 sequential"]  # 173 x 251, at 1/4: 44 x 63
    found = decode_box(data, CropBox(40, 80, 120, 150), size=30)
    whole = decode(data, min_height=44, min_width=63)
    np.testing.assert_array_equal(found, whole[10:40, 20:57])


@needs_compiled
def test_training_views_are_the_same_without_the_compiled_code(monkeypatch):
    view = views.TrainingView(48, area=(0.05, 1.0))
    compiled = [view(data, np.random.default_rng(i)) for i, data in enumerate(FILES.values())]
    monkeypatch.setattr(jpeg, "_jpeg", None)
    for i, data in enumerate(FILES.values()):
        np.testing.assert_array_equal(view(data, np.random.default_rng(i)), compiled[i])


@needs_compiled
def test_progressive_files_become_sequential_without_loss():
    exif, icc = Image.Exif(), b"not a profile, but kept as one"
    exif[0x0112] = 6
    extra = {"exif": exif, "icc_profile": icc, "comment": b"words"}
    for colours in (0, 2):
        data = saved(textured(), progressive=True, subsampling=colours, **extra)
        found = jpeg.sequential(data)
        assert b"\xff\xc2" in data and b"\xff\xc2" not in found and b"\xff\xc0" in found
        np.testing.assert_array_equal(decode(found), decode(data))
        upright = decode(found, exif_orientation=True)
        np.testing.assert_array_equal(upright, decode(data, exif_orientation=True))
        with Image.open(io.BytesIO(found)) as image:
            assert image.info["icc_profile"] == icc and image.info["comment"] == b"words"
        assert jpeg.sequential(found) is found
        stored = stored_jpeg(data, sequential=True)
        assert stored == (found, 173, 251)
        assert stored_jpeg(data).jpeg == data


def test_without_compiled_code_progressive_files_stay(monkeypatch):
    monkeypatch.setattr(jpeg, "_jpeg", None)
    data = FILES["4:2:0 progressive"]
    assert jpeg.sequential(data) is data


@needs_compiled
def test_a_damaged_progressive_file_is_not_rewritten():
    data = FILES["4:2:0 progressive"]
    with pytest.raises(BadImage) as caught:
        jpeg.sequential(image_files.truncated(data))
    assert caught.value.reason == "truncated"


@needs_compiled
@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "tiny"])
def test_files_in_intervals_have_the_same_pixels(kind):
    data = FILES[kind]
    found = jpeg.sequential(data, restart_markers=True)
    header = read_header(found)
    np.testing.assert_array_equal(decode(found), decode(data))
    assert jpeg.sequential(found, restart_markers=True) is found
    with Image.open(io.BytesIO(found)) as image:
        assert image.info.get("icc_profile") == (b"kept out" if kind == "restarts grey" else None)
    for factor in (1, 2, 8):
        whole = jpeg.decode(data, header, factor=factor)
        top, left = whole.shape[0] // 2, whole.shape[1] // 3
        window = jpeg.decode_window(found, header, (top, left, 2, 3), factor=factor)
        np.testing.assert_array_equal(window, whole[top : top + 2, left : left + 3])


@needs_compiled
def test_intervals_are_whole_parts_of_rows_of_about_64_pixels():
    lengths = {}
    for width in (8, 64, 250, 464, 500, 1000):  # 1, 4, 16, 29, 32 and 63 MCUs of 16 pixels
        data = saved(textured(40, width), subsampling=2)
        found = jpeg.sequential(data, restart_markers=True)
        at = found.index(b"\xff\xdd\0\4") + 4
        lengths[width] = int.from_bytes(found[at : at + 2])
    assert lengths == {8: 1, 64: 4, 250: 4, 464: 1, 500: 4, 1000: 3}


@needs_compiled
def test_what_a_window_does_not_need_is_not_decoded():
    data = jpeg.sequential(FILES["4:2:0 sequential"], restart_markers=True)
    header, whole = read_header(data), decode(data)
    markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    broken = bytearray(data)
    for first, second in itertools.pairwise(markers[:20]):  # rows of 16 pixels, 4 intervals each
        broken[first + 2 : second] = b"\1" * (second - first - 2)
    with pytest.raises(BadImage):
        jpeg.decode(bytes(broken), header)
    found = jpeg.decode_window(bytes(broken), header, (120, 70, 40, 60))
    np.testing.assert_array_equal(found, whole[120:160, 70:130])
    with pytest.raises(BadImage):
        jpeg.decode_window(bytes(broken), header, (20, 70, 40, 60))


@needs_compiled
@pytest.mark.parametrize("damage", ["lost", "out of order", "not a marker"])
def test_markers_that_are_amiss_are_errors_as_without_windows(damage):
    data = jpeg.sequential(FILES["4:2:0 sequential"], restart_markers=True)
    markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    at = markers[5]
    instead = {"lost": b"", "out of order": b"\xff\xd2", "not a marker": b"\xff\0"}[damage]
    broken = data[:at] + instead + data[at + 2 :]
    for decoder in (jpeg.decode, lambda *file: jpeg.decode_window(*file, (120, 70, 40, 60))):
        with pytest.raises(BadImage):
            decoder(broken, read_header(broken))


def test_large_files_are_not_rewritten(monkeypatch):
    data = FILES["4:2:0 sequential"]
    monkeypatch.setattr(jpeg, "_MOST_REWRITTEN", 173 * 251 - 1)
    assert jpeg.sequential(data, restart_markers=True) is data


@needs_compiled
def test_threads_share_nothing():
    files = list(FILES.values()) * 10
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda d: decode_box(d, CropBox(1, 2, 10, 6), size=6), files))
        rewritten = list(pool.map(jpeg.sequential, files))
    for data, pixels, again in zip(files, together, rewritten, strict=True):
        np.testing.assert_array_equal(pixels, decode_box(data, CropBox(1, 2, 10, 6), size=6))
        assert again == jpeg.sequential(data)


def _broken(draw: st.DataObject) -> bytes:
    broken = bytearray(FILES[draw.draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw.draw(st.integers(1, 4))):
        broken[draw.draw(st.integers(0, len(broken) - 1))] = draw.draw(st.integers(0, 255))
    del broken[draw.draw(st.integers(2, len(broken))) :]
    return bytes(broken)


def _says_what_decoding_says(draw: st.DataObject) -> None:
    """A broken file never crashes, and what the whole decoder takes is cut to the same pixels."""
    data = _broken(draw)
    try:
        header = read_header(data)
        hypothesis.assume(header.components != 4 and header.width * header.height < 2**20)
    except BadImage:
        return
    window = [draw.draw(st.integers(0, side - 1)) for side in (header.height, header.width)]
    window += [
        draw.draw(st.integers(1, side - first))
        for side, first in zip((header.height, header.width), window, strict=True)
    ]
    top, left, height, width = window
    try:
        whole = jpeg.decode(data, header)[top : top + height, left : left + width]
    except BadImage:
        whole = None
    try:
        found = jpeg.decode_window(data, header, (top, left, height, width))
    except BadImage:
        assert whole is None
    else:
        assert found.shape == (height, width, 3)
        assert whole is None or np.array_equal(found, whole)
    try:
        again = jpeg.sequential(data)
    except BadImage:
        return
    if whole is not None:
        np.testing.assert_array_equal(
            jpeg.decode(again, header)[top : top + height, left : left + width], whole
        )


@needs_compiled
@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(st.data())
def test_broken_files(data):
    _says_what_decoding_says(data)


@needs_compiled
@pytest.mark.slow
@hypothesis.settings(max_examples=fuzzing.fraction(10_000), deadline=None, derandomize=True)
@hypothesis.given(st.data())
def test_many_broken_files(data):
    _says_what_decoding_says(data)
