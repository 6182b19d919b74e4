# SPDX-License-Identifier: BSD-3-Clause
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlimages_jax.data.images import transforms
from mlimages_jax.data.images.transforms import CropBox

SYNTHETIC = ["97x131", "64x64", "300x40", "21x350"]


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "preprocessing.npz") as arrays:
        yield arrays


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photograph(tencent_dir, number):
    return cv2.imread(str(tencent_dir / "images" / f"im_{number}.jpg"))[..., ::-1]


def sub32(views):
    """The rows and columns the golden file keeps of [..., S, S, 3]."""
    kept = np.linspace(0, views.shape[-2] - 1, 32).round().astype(int)
    return views[..., kept, :, :][..., kept, :]


# Crops


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32), st.sampled_from([0.05, 0.7])
)
def test_crop_lies_inside_and_keeps_its_ranges(height, width, seed, smallest):
    box = transforms.sample_crop(np.random.default_rng(seed), height, width, area=(smallest, 1.0))
    assert box.top >= 0 and box.top + box.height <= height
    assert box.left >= 0 and box.left + box.width <= width
    assert box.height * box.width >= smallest * height * width
    whole = box == CropBox(0, 0, height, width)
    # The width is height * ratio rounded to a pixel.
    assert whole or 0.75 - 0.5 / box.height <= box.width / box.height <= 1.33 + 0.5 / box.height


def test_crop_of_an_elongated_image_is_the_whole():
    # 70% of 10x100 with a width of at most 1.33 times the height is impossible.
    box = transforms.sample_crop(np.random.default_rng(0), 10, 100)
    assert box == CropBox(0, 0, 10, 100)


def test_crop_of_fixed_area_and_aspect():
    rng = np.random.default_rng(0)
    boxes = [
        transforms.sample_crop(rng, 100, 200, area=(0.125, 0.125), aspect=(1.0, 1.0))
        for _ in range(2000)
    ]
    assert {(box.height, box.width) for box in boxes} == {(50, 50)}  # an eighth of 20,000 pixels
    assert {box.top for box in boxes} == set(range(50))  # 50 would be possible: as the original
    assert {box.left for box in boxes} == set(range(150))


@pytest.mark.parametrize(
    ("height", "width", "ranges"),
    [
        (0, 5, {}),
        (5, 5, {"area": (0.0, 1.0)}),
        (5, 5, {"area": (0.9, 0.7)}),
        (5, 5, {"aspect": (0, 1)}),
    ],
)
def test_crop_refuses(height, width, ranges):
    with pytest.raises(ValueError, match=r"empty image of 0x5|area=.*aspect="):
        transforms.sample_crop(np.random.default_rng(0), height, width, **ranges)


@pytest.mark.parametrize(("script", "smallest"), [("train.py", 0.7), ("finetune.py", 0.05)])
def test_crop_distribution_is_the_originals(golden_dir, script, smallest):
    info = json.loads((golden_dir / "preprocessing_info.json").read_text())
    original = info["sample_distorted_bounding_box"][script]["empirical_300x400_4000_draws"]
    rng = np.random.default_rng(1)
    draws = [
        transforms.sample_crop(rng, 300, 400, area=(smallest, 1.0), attempts=100)
        for _ in range(24_000)
    ]
    boxes = np.array(draws, dtype=np.float64)
    ours = {
        "area": boxes[:, 2] * boxes[:, 3] / 120_000,
        "aspect": boxes[:, 3] / boxes[:, 2],
    }
    levels = [0.1, 0.25, 0.5, 0.75, 0.9]
    for name, values in ours.items():
        # Noise of a quantile of 4,000 draws, from six samples of that size (and a floor for it).
        noise = np.quantile(values.reshape(6, 4000), levels, axis=1).std(axis=1)
        expected = original[f"{name}_quantiles_10_25_50_75_90"]
        error = np.abs(np.quantile(values, levels) - expected)
        assert (error < 4 * np.maximum(noise, 1e-3)).all(), (name, error, noise)
    assert abs(ours["area"].mean() - original["area_min_mean_max"][1]) < 0.012
    assert ours["area"].min() >= smallest


# Resizing


def test_resize_by_hand():
    # Two by two to four: source positions 0, 0.5, 1, 1.5; beyond the last pixel it repeats.
    image = np.array([[0, 10], [20, 50]], dtype=np.uint8)[..., None].repeat(3, axis=-1)
    expected = [[0, 5, 10, 10], [10, 20, 30, 30], [20, 35, 50, 50], [20, 35, 50, 50]]
    resized = transforms.resize_bilinear(image, 4, 4)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[..., 1], expected)


def test_resize_shrinks_without_averaging():
    image = np.arange(8, dtype=np.float32)[:, None, None].repeat(3, axis=2)  # 8 rows, 1 column
    np.testing.assert_array_equal(transforms.resize_bilinear(image, 4, 1)[:, 0, 0], [0, 2, 4, 6])


@pytest.mark.parametrize("case", ["80x57", "40x200"])
def test_resize_is_the_originals(golden, case):
    image = golden[f"resize|{case}|input_u8"].astype(np.float32) / 255
    resized = transforms.resize_bilinear(image, 48, 48)
    np.testing.assert_allclose(resized, golden[f"resize|{case}|to48"], atol=1e-6)


@pytest.mark.parametrize("interpolation", ["linear", "area", "reference"])
def test_a_part_of_an_image_is_resized_alone(interpolation):
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[4:10, 7:16] = [10, 20, 30]
    crop = transforms.resize_to_square(image[4:10, 7:16], 5, interpolation=interpolation)
    assert crop.dtype == np.uint8 and crop.shape == (5, 5, 3)
    assert (crop == [10, 20, 30]).all()


def test_interpolations_by_hand():
    # Every fourth column is 240, and four columns become one.
    columns = np.tile(np.array([0, 0, 0, 240], dtype=np.uint8), 4)
    image = columns[None, :, None].repeat(16, axis=0).repeat(3, axis=-1)
    mean = transforms.resize_to_square(image, 4, interpolation="area")
    middle = transforms.resize_to_square(image, 4, interpolation="linear")
    assert (mean == 60).all()
    assert (middle == 0).all()  # sees only the two columns in the middle of each four
    first = transforms.resize_to_square(image[:, 3:], 4, interpolation="reference")
    # Thirteen columns are left: source columns 0, 3.25, 6.5, 9.75 of 240, 0, 0, 0, 240, ...
    assert first[0, :, 0].tolist() == [240, 60, 0, 0]


def test_area_enlarges_linearly():
    pixels = image(8, 8)
    area = transforms.resize_to_square(pixels, 12, interpolation="area")
    linear = transforms.resize_to_square(pixels, 12, interpolation="linear")
    np.testing.assert_array_equal(area, linear)


def test_unknown_interpolation():
    with pytest.raises(ValueError, match="'cubic'"):
        transforms.resize_to_square(image(4, 4), 2, interpolation="cubic")


def test_flip():
    pixels = image(3, 5)
    np.testing.assert_array_equal(transforms.flip(pixels), pixels[:, ::-1])


# Evaluation views


def test_central_view_by_hand():
    image = np.zeros((20, 39, 3), dtype=np.uint8)
    image[2:18, 3:36] = 255  # a tenth off each end: 2 of 20 rows, 3 of 39 columns
    assert (transforms.central_view(image, 8) == 1).all()
    assert (transforms.central_view(255 - image, 8) == -1).all()
    image[2, 3] = 0
    assert transforms.central_view(image, 8)[0, 0, 0] == -1


@pytest.mark.parametrize("case", SYNTHETIC)
def test_central_view_is_the_originals(golden, case):
    image = golden[f"synthetic|{case}|input_u8"]
    view = transforms.central_view(image, 32)
    assert view.dtype == np.float32
    np.testing.assert_allclose(view, golden[f"synthetic|{case}|eval32"], atol=3e-6)
    large = sub32(transforms.central_view(image, 224))
    np.testing.assert_allclose(large, golden[f"synthetic|{case}|eval224_sub32"], atol=3e-6)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("size", [224, 299])
def test_central_view_of_photographs(golden, tencent_dir, number, size):
    view = sub32(transforms.central_view(photograph(tencent_dir, number), size))
    error = np.abs(view - golden[f"eval|im_{number}|{size}|sub32"])
    assert error.mean() < 0.015  # TensorFlow decodes JPEG with another DCT


def test_short_side_view_by_hand():
    # At 7 pixels the short side becomes 8: no scaling here, and the centre starts at (0, 2).
    pixels = image(8, 12)
    view = transforms.short_side_view(pixels, 7)
    assert view.dtype == np.uint8
    np.testing.assert_array_equal(view, pixels[:7, 2:9])


def test_short_side_view_of_a_standing_image():
    # 8 / 7 * 11 = 12.57 rows become 12, as lying images' columns do in the golden numbers.
    pixels = image(11, 7)
    standing = transforms.short_side_view(pixels, 7).astype(int)
    lying = transforms.short_side_view(pixels.transpose(1, 0, 2), 7).astype(int)
    assert np.abs(standing - lying.transpose(1, 0, 2)).max() <= 1  # OpenCV rounds rows and columns


@pytest.mark.parametrize("number", [0, 2])
def test_short_side_view_is_the_originals(golden, tencent_dir, number):
    view = transforms.short_side_view(photograph(tencent_dir, number), 224)
    np.testing.assert_array_equal(view, golden[f"cv|im_{number}|center_u8"])


def test_ten_crop_views_by_hand():
    pixels = image(8, 12)
    views = transforms.ten_crop_views(pixels, 7)
    windows = [(0, 0), (0, 5), (1, 0), (1, 5), (0, 2)]
    for sides, source in ((views[:5], pixels), (views[5:], pixels[:, ::-1])):
        for view, (top, left) in zip(sides, windows, strict=True):
            np.testing.assert_array_equal(view, source[top : top + 7, left : left + 7])


@pytest.mark.parametrize("number", [0, 2])
def test_ten_crop_views_of_photographs(golden, tencent_dir, number):
    views = transforms.ten_crop_views(photograph(tencent_dir, number), 224)
    np.testing.assert_array_equal(sub32(views), golden[f"cv|im_{number}|10crop_sub32_u8"])


@pytest.mark.parametrize("case", SYNTHETIC)
def test_ten_crop_views_of_made_up_images(golden, case):
    # The original reads BGR and turns the channels round at the end; its input here was not BGR.
    image = np.ascontiguousarray(golden[f"synthetic|{case}|input_u8"][..., ::-1])
    views = transforms.ten_crop_views(image, 224)
    np.testing.assert_array_equal(sub32(views), golden[f"synthetic|{case}|cv_10crop_sub32_u8"])


@pytest.mark.parametrize("view", [transforms.short_side_view, transforms.ten_crop_views])
def test_needles_are_refused(view):
    with pytest.raises(ValueError, match="1x501"):
        view(image(1, 501), 8)
