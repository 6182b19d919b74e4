# SPDX-License-Identifier: BSD-3-Clause
"""Images that lie on their side, also those of which two copies would take too much memory."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from mlimages_jax.data.images import jpeg, whole_images
from mlimages_jax.data.images.budget import BYTES_BESIDE, BYTES_PER_PIXEL
from mlimages_jax.data.images.decode import (
    BadImage,
    decode,
    read_header,
    stored_jpeg,
)
from mlimages_jax.data.images.image_types import ImageHeader
from mlimages_jax.data.images.orientation import as_stored, upright, with_orientation
from tests.support import image_files

needs_compiled = pytest.mark.skipif(
    not jpeg.is_compiled(), reason="built without a C compiler or libjpeg-turbo's headers"
)


def _sideways(pixels: np.ndarray, orientation: int, **options: object) -> bytes:
    encoded = simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", **options)
    return with_orientation(encoded, orientation)


def _phone_photograph(orientation: int = 6) -> bytes:
    """48 megapixels, as phones store them."""
    line = np.linspace(0, 255, 8064).astype(np.uint8)
    pixels = np.empty((6048, 8064, 3), np.uint8)
    pixels[:] = line[None, :, None]
    pixels[:3000, :, 0] = 200
    return _sideways(pixels, orientation, colorsubsampling="420")


@pytest.fixture
def small_strips(monkeypatch):
    """Turns all that lie on their side in strips of a few rows."""
    monkeypatch.setattr(jpeg, "STRIP_BYTES", 3 * 200 * 7)
    monkeypatch.setattr(whole_images, "_turns_in_strips", lambda header, factor: True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_view_as_stored_undoes_the_turning(orientation):
    pixels = image_files.noise(20, 30)
    turned = upright(pixels.copy(), orientation)
    with Image.fromarray(pixels) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        image.save(file, "PNG", exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    np.testing.assert_array_equal(turned, expected)
    if orientation >= 5:
        np.testing.assert_array_equal(as_stored(turned, orientation), pixels)


@needs_compiled
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("colours", ["444", "420", "Gray"])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_strips_give_the_pixels_of_the_whole_image(orientation, colours, factor, monkeypatch):
    data = _sideways(image_files.noise(91, 133), orientation, colorsubsampling=colours)
    header = read_header(data)
    expected = upright(jpeg.decode(data, header, factor=factor), orientation)
    for rows in (1, 7, 40, 200):
        monkeypatch.setattr(jpeg, "STRIP_BYTES", 3 * 200 * rows)
        found = jpeg.decode_turned(data, header, orientation=orientation, factor=factor)
        np.testing.assert_array_equal(found, expected)


@needs_compiled
def test_damage_shows_in_strips_as_well(small_strips):
    data = _sideways(image_files.noise(91, 133), 6)
    decode(data, exif_orientation=True)
    with pytest.raises(BadImage) as caught:
        decode(image_files.truncated(data), exif_orientation=True)
    assert caught.value.reason == "truncated"
    cut = data[:-2]  # all rows are there
    np.testing.assert_array_equal(
        decode(cut, exif_orientation=True), decode(data, exif_orientation=True)
    )


@pytest.mark.parametrize("megapixels", [1, 30, 33, 34, 48, 67])
@pytest.mark.parametrize("held_per_pixel", [0, 1, 2])
@pytest.mark.parametrize("compiled", [True, False])
def test_what_lies_on_its_side_is_not_refused_for_it(
    megapixels, held_per_pixel, compiled, monkeypatch
):
    monkeypatch.setattr(jpeg, "is_compiled", lambda: compiled)
    size = megapixels * 10**6
    header = ImageHeader("jpeg", 1000, size // 1000, 3, 8, held=held_per_pixel * size)
    allowed = BYTES_PER_PIXEL * size + BYTES_BESIDE
    try:
        standing = whole_images.needed(header)
    except BadImage as bad:
        with pytest.raises(BadImage, match="would take"):
            whole_images.needed(header, orientation=6)
        assert bad.reason == "too_large"
        return
    lying = whole_images.needed(header, orientation=6)
    assert lying >= standing
    if compiled and header.held <= BYTES_BESIDE // 2:
        assert lying <= allowed
    else:
        assert lying <= max(allowed, 6 * size)


def test_other_formats_on_their_side_take_two_copies():
    header = ImageHeader("png", 8064, 6048, 3, 8, held=8064 * 6048)
    assert whole_images.needed(header, orientation=8) == 6 * 8064 * 6048


def test_small_images_are_turned_in_one_piece(monkeypatch):
    monkeypatch.setattr(jpeg, "decode_turned", lambda *_, **__: pytest.fail("in strips"))
    data = _sideways(image_files.noise(91, 133), 8)
    assert decode(data, exif_orientation=True).shape == (133, 91, 3)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [True, False])
def test_a_large_phone_photograph_is_read(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(jpeg, "_jpeg", None)
    elif not jpeg.is_compiled():
        pytest.skip("built without a C compiler or libjpeg-turbo's headers")
    data = _phone_photograph()
    pixels = decode(data, exif_orientation=True)
    assert pixels.shape == (8064, 6048, 3)
    stored = simplejpeg.decode_jpeg(data)
    np.testing.assert_array_equal(pixels[::97], np.rot90(stored, -1)[::97])


_PEAK = """
import sys
from pathlib import Path
import cv2
from mlimages_jax.data.images.decode import decode, stored_jpeg
cv2.setNumThreads(1)

def status(key):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(key + ":")[1].split()[0])

ways = dict(
    decode=lambda data: decode(data, exif_orientation=True),
    stored_jpeg=lambda data: stored_jpeg(data, orientation="exif"),
)
way, data = ways[sys.argv[2]], Path(sys.argv[1]).read_bytes()
way(Path(sys.argv[1] + ".small").read_bytes())  # what a first image loads stays
before = status("VmRSS")
way(data)
print(status("VmHWM") - before)
"""


@needs_compiled
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
@pytest.mark.slow
def test_a_large_phone_photograph_takes_what_is_promised(tmp_path):
    path = tmp_path / "photograph.jpg"
    path.write_bytes(_phone_photograph(8))
    (tmp_path / "photograph.jpg.small").write_bytes(_sideways(image_files.noise(), 8))
    for way in ("decode", "stored_jpeg"):
        command = [sys.executable, "-c", _PEAK, str(path), way]
        peak = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        assert peak < BYTES_PER_PIXEL * 8064 * 6048 + BYTES_BESIDE, way


@pytest.mark.slow
def test_a_large_phone_photograph_is_stored_upright():
    stored = stored_jpeg(_phone_photograph(), orientation="exif")
    assert (stored.height, stored.width) == (8064, 6048)
    assert read_header(stored.jpeg)[1:3] == (6048, 8064)


def test_heic_of_phones_passes_the_header():
    """24 megapixels of 8 bits pass, 33 of 10 bits do not; no decoder is needed to tell."""
    for width, height, depth, passes in ((5712, 4284, 0, True), (7008, 4672, 2, False)):
        config = b"hvcC\x01" + bytes(15) + bytes([0xFC | 1, 0xF8 | depth])
        size = b"ispe\0\0\0\0" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
        header = read_header(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + size + config)
        assert (header.format, header.bits) == ("heif", 10 if depth else 8)
        if passes:
            whole_images.needed(header)
            continue
        with pytest.raises(BadImage, match="would take"):
            whole_images.needed(header)


def test_heic_gives_the_pixels_of_its_reader():
    reader = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    for mode in ("RGB", "RGBA", "L"):
        file = io.BytesIO()
        with Image.fromarray(image_files.quadrants()) as image:
            reader.from_pillow(image.convert(mode)).save(file, quality=95)
        found = decode(file.getvalue())
        expected = np.asarray(reader.open_heif(file.getvalue()).to_pillow().convert("RGB"))
        np.testing.assert_array_equal(found, expected)
