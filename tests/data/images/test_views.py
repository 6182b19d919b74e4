# SPDX-License-Identifier: BSD-3-Clause
import cv2
import numpy as np
import pytest
import simplejpeg

from mlimages_jax.data.images import transforms, views
from mlimages_jax.data.images.decode import BadImage, decode
from tests.support import image_files


def test_views_by_hand():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 255
    jpeg = simplejpeg.encode_jpeg(image, quality=100, colorsubsampling="444")
    whole = views.EvaluationView(20, "whole")(jpeg)
    assert whole.dtype == np.uint8
    assert whole[:, :9].max() < 10 < 245 < whole[:, 11:].min()
    central = views.EvaluationView(16, "central")(jpeg)
    assert central.dtype == np.float32
    assert (central[:, :7] < -0.9).all() and (central[:, 9:] > 0.9).all()
    short = views.EvaluationView(14, "short_side")(jpeg)
    assert short.dtype == np.uint8 and short.shape == (14, 14, 3)


@pytest.mark.parametrize("interpolation", ["linear", "area"])
def test_decoding_at_a_fraction_shows_the_same_crop(tencent_dir, interpolation):
    """A large photograph is decoded at 1/2 or less; the crop must not move."""
    jpeg = (tencent_dir / "images" / "im_0.jpg").read_bytes()
    view = views.TrainingView(128, interpolation=interpolation, flip=False)
    quick = view(jpeg, np.random.default_rng(3))
    full = cv2.imdecode(
        np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    full = np.ascontiguousarray(full[..., ::-1])
    box = transforms.sample_crop(np.random.default_rng(3), *full.shape[:2])
    crop = full[box.top : box.top + box.height, box.left : box.left + box.width]
    slow = transforms.resize_to_square(crop, 128, interpolation="area")
    error = np.abs(quick.astype(float) - slow).mean()
    moved = np.abs(np.roll(slow, 2, axis=1).astype(float) - slow).mean()
    assert error < 0.5 * moved


def test_ten_crops_are_corners_centre_and_their_mirror_images():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    jpeg = simplejpeg.encode_jpeg(image, quality=95)
    view = views.EvaluationView(14, "ten_crop")
    crops = view(jpeg)
    assert crops.shape == view.empty.shape == (10, 14, 14, 3)
    np.testing.assert_array_equal(crops[4], views.EvaluationView(14, "short_side")(jpeg))


def test_a_distortion_comes_last_and_draws_from_the_same_generator():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    jpeg = simplejpeg.encode_jpeg(pixels, quality=95)
    drawn = []

    def distort(image, rng):
        drawn.append(rng.random())
        return 255 - image

    plain = views.TrainingView(16)(jpeg, np.random.default_rng(5))
    distorted = views.TrainingView(16, distort=distort)(jpeg, np.random.default_rng(5))
    np.testing.assert_array_equal(distorted, 255 - plain)
    views.TrainingView(16, distort=distort)(jpeg, np.random.default_rng(5))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", views.VIEW_NAMES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_views_are_views_of_the_upright_image(name, orientation):
    """Against the plain view of a file that holds the upright pixels, without loss."""
    turned = image_files.exif_jpeg(orientation)
    upright = image_files._saved(
        image_files.Image.fromarray(decode(turned, exif_orientation=True)), "PNG"
    )
    view = views.EvaluationView(14, name, exif_orientation=True)
    expected = views.EvaluationView(14, name)(upright)
    np.testing.assert_array_equal(view(turned), expected)
    assert view(turned).shape == view.empty.shape
    if orientation > 1:
        assert not np.array_equal(views.EvaluationView(14, name)(turned), expected)


def test_an_image_too_elongated_to_be_scaled_is_refused():
    long = image_files.jpeg(np.zeros((2, 1_200, 3), np.uint8))
    for name in ("short_side", "ten_crop"):
        with pytest.raises(BadImage, match="2x1200 pixels") as error:
            views.EvaluationView(8, name)(long)
        assert error.value.reason == "elongated"
