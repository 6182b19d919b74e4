# SPDX-License-Identifier: BSD-3-Clause
"""Large images are encoded in strips, to one JPEG of the same pixels."""

import numpy as np
import pytest
import simplejpeg

from mlimages_jax.data.images import jpeg_encoder
from mlimages_jax.data.images.decode import (
    BadImage,
    decode,
    stored_jpeg,
    verify,
)
from tests.support import image_files


@pytest.fixture
def small_strips(monkeypatch):
    monkeypatch.setattr(jpeg_encoder, "_LARGE", 1_000)
    monkeypatch.setattr(jpeg_encoder, "_STRIP", 2_000)


@pytest.mark.parametrize("chroma", ["444", "420"])
@pytest.mark.parametrize("shape", [(601, 83), (40, 1500), (333, 64), (17, 4001)])
def test_the_pixels_are_those_of_one_strip(small_strips, chroma, shape):
    pixels = image_files.noise(*shape)
    data = b"".join(jpeg_encoder.encode(pixels, quality=90, chroma=chroma))
    whole = simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling=chroma)
    assert data != whole and b"\xff\xd0" in data
    np.testing.assert_array_equal(decode(data), decode(whole))
    assert verify(data).height == shape[0]
    # What is stored is read by all readers: the window decoder and reduced sizes too.
    np.testing.assert_array_equal(
        decode(data, min_height=1, min_width=1), decode(whole, min_height=1, min_width=1)
    )


@pytest.mark.slow
def test_restart_intervals_fit_their_sixteen_bits():
    pixels = np.tile(image_files.noise(280, 650), (1, 100, 1))  # 8,125 blocks a row
    data = b"".join(jpeg_encoder.encode(pixels, quality=90, chroma="444"))
    whole = simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling="444")
    np.testing.assert_array_equal(decode(data), decode(whole))


def test_what_would_hold_too_much_is_too_large(small_strips, monkeypatch):
    data = image_files.noisy_png()
    assert stored_jpeg(data).height == 64
    monkeypatch.setattr(jpeg_encoder, "_MAX_BYTES", 2_000)
    with pytest.raises(BadImage, match="shrink it") as caught:
        stored_jpeg(data)
    assert caught.value.reason == "too_large"
