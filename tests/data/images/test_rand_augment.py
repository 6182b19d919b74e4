# SPDX-License-Identifier: BSD-3-Clause
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mlimages_jax.data.images import rand_augment as module
from mlimages_jax.data.images.rand_augment import OPERATIONS, apply, rand_augment
from tests.support import image_files

GREY = (128, 128, 128)
WITHOUT_MAGNITUDE = {"identity", "auto_contrast", "equalise"}
BLENDS = {"colour", "contrast", "brightness", "sharpness"}


def grainy(height, width):
    """Soft blobs with grain, as in a photograph; each channel has its own range of levels."""
    grain = np.random.default_rng(1).normal(0, 6, (height, width, 3))
    image = image_files.noise(height, width) * [1.0, 0.8, 0.6] + [30, 10, 0] + grain
    return np.clip(image, 0, 255).astype(np.uint8)


IMAGES = {
    "soft": image_files.noise(224, 224),
    "grainy": grainy(224, 224),
    "every level": np.random.default_rng(0).integers(0, 256, (60, 200, 3), dtype=np.uint8),
    "few pixels": grainy(17, 16),  # 272: a step of the equalisation is a single pixel
    "flat": np.full((32, 24, 3), [255, 90, 0], np.uint8),
    "two rows": grainy(2, 40),
    "a pixel": grainy(1, 1),
}


def by_pillow(operation, pixels, strength):
    image = Image.fromarray(pixels)
    width, height = image.size
    size, signless = image.size, abs(strength)

    def affine(*matrix):
        return image.transform(size, Image.Transform.AFFINE, matrix, fillcolor=GREY)

    result = {
        "identity": lambda: image,
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalise": lambda: ImageOps.equalize(image),
        "rotate": lambda: image.rotate(30 * strength, fillcolor=GREY),
        "solarise": lambda: ImageOps.solarize(image, 256 - 256 * signless),
        "posterise": lambda: ImageOps.posterize(image, 8 - round(4 * signless)),
        "colour": lambda: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
        "shear_x": lambda: affine(1, 0.3 * strength, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, 0.3 * strength, 1, 0),
        "translate_x": lambda: affine(1, 0, 150 / 331 * width * strength, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, 150 / 331 * height * strength),
    }[operation]()
    return np.asarray(result)


def check_equals_pillow(operation, image, strength):
    ours, expected = (
        apply(operation, image, strength=strength),
        by_pillow(operation, image, strength),
    )
    assert ours.dtype == np.uint8 and ours.shape == image.shape
    difference = np.abs(ours.astype(int) - expected)
    # Where the processor fuses multiply and add, a blend may fall to the next level.
    allowed = 1 if operation in BLENDS else 0
    assert difference.max() <= allowed and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_are_pillows(operation, name):
    for strength in (-1.0, -0.63, -0.1, 0.0, 0.25, 0.5, 0.9, 1.0):
        check_equals_pillow(operation, IMAGES[name], strength)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_on_a_photograph_are_pillows(tencent_dir, operation):
    image = cv2.imread(str(tencent_dir / "images" / "im_1.jpg"))[..., ::-1]
    image = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    for strength in (-0.9, 0.3, 0.9):
        check_equals_pillow(operation, image, strength)


def test_the_fourteen_operations_of_the_paper():
    assert len(set(OPERATIONS)) == len(OPERATIONS) == 14


def row(*levels):
    """An image of one row, grey."""
    return np.array(levels, np.uint8)[None, :, None].repeat(3, axis=-1)


def test_levels_by_hand():
    image = row(0, 60, 100, 128, 200)

    def levels(operation, strength):
        result = apply(operation, image, strength=strength)
        assert (result == result[..., :1]).all()
        return result[0, :, 0].tolist()

    assert levels("solarise", 0.5) == [0, 60, 100, 127, 55]  # from 128 on
    assert levels("solarise", -1.0) == [255, 195, 155, 127, 55]
    assert levels("posterise", 1.0) == [0, 48, 96, 128, 192]  # whole sixteens
    assert levels("brightness", 0.5) == [0, 87, 145, 185, 255]  # 1.45 times, cut
    assert levels("brightness", -1.0) == [0, 6, 10, 12, 20]
    assert levels("auto_contrast", 0.3) == [0, 76, 127, 163, 254]  # 255 / 200 times, less a hair
    assert levels("contrast", -1.0) == [
        88,
        94,
        98,
        101,
        108,
    ]  # to a tenth from 98; the mean is 97.6
    assert levels("colour", 1.0) == levels("identity", 1.0) == [0, 60, 100, 128, 200]


def test_translation_brings_grey_in():
    image = grainy(331, 331)
    left = apply("translate_x", image, strength=1.0)
    np.testing.assert_array_equal(left[:, :181], image[:, 150:])
    assert (left[:, 181:] == 128).all()
    down = apply("translate_y", image, strength=-0.5)
    np.testing.assert_array_equal(down[75:], image[:256])
    assert (down[:75] == 128).all()


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - WITHOUT_MAGNITUDE))
def test_operations_grow_with_the_magnitude(operation):
    geometric = operation == "rotate" or operation.endswith(("_x", "_y"))
    image = IMAGES["grainy"] // (4 if geometric else 1)  # dark: what comes in stands out

    def change(strength):
        return np.abs(apply(operation, image, strength=strength).astype(int) - image).mean()

    assert 0 == change(0.0) < change(0.3) < change(0.6) < change(1.0)
    assert change(-1.0) > change(-0.3)


def test_operations_without_magnitude_ignore_it():
    for operation in WITHOUT_MAGNITUDE:
        weak, strong = (apply(operation, IMAGES["soft"], strength=s) for s in (0.0, -1.0))
        np.testing.assert_array_equal(weak, strong)


# What is drawn


def drawn(monkeypatch, *, num_ops, magnitude, images=1):
    """The operations and strengths of some images, in their order."""
    calls = []

    def record(operation, image, *, strength):
        calls.append((operation, strength))
        return image

    with monkeypatch.context() as patch:
        patch.setattr(module, "apply", record)
        rng = np.random.default_rng(0)
        for _ in range(images):
            rand_augment(row(0), rng, num_ops=num_ops, magnitude=magnitude)
    return calls


def test_draws_are_uniform_and_independent(monkeypatch):
    calls = drawn(monkeypatch, num_ops=2, magnitude=7, images=4200)
    assert len(calls) == 8400
    for column in (calls, calls[::2], calls[1::2]):
        counts = np.array([sum(name == chosen for chosen, _ in column) for name in OPERATIONS])
        # Counts of a share of 1/14 of 8,400 or 4,200 draws deviate by 24 or 17.
        assert np.abs(counts - len(column) / 14).max() < 3.5 * np.sqrt(len(column) / 14)
        ups = np.array([strength > 0 for _, strength in column])
        assert abs(ups.mean() - 0.5) < 2 / np.sqrt(len(column))
    assert {abs(strength) for _, strength in calls} == {0.7}
    twice = np.mean([a[0] == b[0] for a, b in zip(calls[::2], calls[1::2], strict=True)])
    assert abs(twice - 1 / 14) < 0.014  # with replacement; the deviation is 0.004
    same_way = np.mean([a[1] == b[1] for a, b in zip(calls[::2], calls[1::2], strict=True)])
    assert abs(same_way - 0.5) < 0.03
    for name in OPERATIONS:
        ways = [strength > 0 for chosen, strength in calls if chosen == name]
        assert 0.4 < np.mean(ways) < 0.6


def test_operations_follow_each_other(monkeypatch):
    expected = IMAGES["soft"]
    calls = drawn(monkeypatch, num_ops=3, magnitude=9.5)
    assert len(calls) == 3
    for operation, strength in calls:
        expected = apply(operation, expected, strength=strength)
    rng = np.random.default_rng(0)
    result = rand_augment(IMAGES["soft"], rng, num_ops=3, magnitude=9.5)
    np.testing.assert_array_equal(result, expected)


def augmented(seed, image=IMAGES["grainy"]):
    return rand_augment(image, np.random.default_rng(seed), num_ops=2, magnitude=9)


def test_the_generator_decides_alone_in_any_thread():
    alone = [augmented(seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(augmented, range(24)))
    np.testing.assert_array_equal(together, alone)
    assert len({image.tobytes() for image in alone}) > 20


def test_no_operations_and_none_of_the_input_is_written():
    image = IMAGES["grainy"].copy()
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(rand_augment(image, rng, num_ops=0, magnitude=9), image)
    image.flags.writeable = False
    for operation in OPERATIONS:
        apply(operation, image, strength=0.8)
    augmented(0, image)
    np.testing.assert_array_equal(image, IMAGES["grainy"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_views_are_images_too(operation):
    view = np.random.default_rng(0).integers(0, 256, (40, 90, 4), dtype=np.uint8)[:, ::-2, 2::-1]
    np.testing.assert_array_equal(
        apply(operation, view, strength=0.7), apply(operation, view.copy(), strength=0.7)
    )


@pytest.mark.parametrize("magnitude", [-0.1, 10.5, float("nan")])
def test_impossible_magnitudes_are_refused(magnitude):
    with pytest.raises(ValueError, match=f"magnitude={magnitude} must lie between 0 and 10"):
        rand_augment(row(0), np.random.default_rng(0), num_ops=1, magnitude=magnitude)


@pytest.mark.parametrize("num_ops", [-1, 1.5])
def test_impossible_numbers_of_operations_are_refused(num_ops):
    with pytest.raises(ValueError, match=f"num_ops={num_ops} must be a whole number"):
        rand_augment(row(0), np.random.default_rng(0), num_ops=num_ops, magnitude=5)


def test_unknown_operations_are_refused():
    with pytest.raises(ValueError, match="operation='invert' is none of identity"):
        apply("invert", row(0), strength=0.5)
