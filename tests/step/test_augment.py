# SPDX-License-Identifier: BSD-3-Clause
import colorsys
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mlimages_jax.step import augment

# Jitted, because one compilation is quicker than one for each primitive.
adjust_brightness = jax.jit(augment.adjust_brightness)
adjust_contrast = jax.jit(augment.adjust_contrast)
adjust_saturation = jax.jit(augment.adjust_saturation)
adjust_hue = jax.jit(augment.adjust_hue)
rotate = jax.jit(augment.rotate)
distort_colour = jax.jit(augment.distort_colour)
pretrain_augment = jax.jit(augment.pretrain_augment, static_argnames=["colour", "hue", "rotation"])

CASES = ["photo_0", "noise_0", "photo_1", "noise_1"]


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "preprocessing.npz") as arrays:
        yield arrays


def batch_of(*images):
    return jnp.asarray(images, dtype=jnp.float32)


def random_batch(examples, size, seed=0):
    shape = (examples, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# Single operations


def test_to_model_input():
    images = np.array([0, 51, 255], dtype=np.uint8)
    np.testing.assert_allclose(augment.to_model_input(jnp.asarray(images)), [-1, -0.6, 1])
    ready = jnp.array([-1.0, 0.25], dtype=jnp.bfloat16)
    assert augment.to_model_input(ready) is ready


def test_brightness_has_one_delta_an_example():
    x = jnp.full([2, 2, 2, 3], 0.9)
    result = adjust_brightness(x, jnp.array([0.2, -1.0]))
    np.testing.assert_allclose(result[:, 0, 0, 0], [1.1, -0.1], rtol=1e-6)  # not clipped


def test_contrast_by_hand():
    # Red 0, 1, 1, 0: mean 0.5. Green 0.2 everywhere. Blue 0, 0, 0, 0.4: mean 0.1.
    x = batch_of([[[0, 0.2, 0], [1, 0.2, 0]], [[1, 0.2, 0], [0, 0.2, 0.4]]])
    expected = [[[-0.5, 0.2, -0.1], [1.5, 0.2, -0.1]], [[1.5, 0.2, -0.1], [-0.5, 0.2, 0.7]]]
    result = adjust_contrast(x, jnp.array([2.0]))
    np.testing.assert_allclose(result[0], expected, atol=1e-7)


def test_contrast_one_changes_no_bit():
    x = jnp.asarray(random_batch(2, 16)) / 255
    np.testing.assert_array_equal(adjust_contrast(x, jnp.ones(2)), x)


def test_saturation_by_hand():
    # The maximum stays; distances to it scale, until the smallest channel is 0.
    x = batch_of([[[0.8, 0.6, 0.4], [0.5, 0.5, 0.5]], [[-0.1, -0.2, -0.3], [0, 0, 0]]])
    grey = [[-0.1] * 3, [0] * 3]  # without a positive channel there is no saturation
    less = adjust_saturation(x, jnp.array([0.5]))
    np.testing.assert_allclose(less[0], [[[0.8, 0.7, 0.6], [0.5] * 3], grey], atol=1e-6)
    more = adjust_saturation(x, jnp.array([3.0]))
    np.testing.assert_allclose(more[0], [[[0.8, 0.4, 0], [0.5] * 3], grey], atol=1e-6)


def test_hue_by_hand():
    x = batch_of([[[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]], [[0.1, 0.1, 0.9], [0.3, 0.3, 0.3]]])
    third = adjust_hue(x, jnp.array([1 / 3]))  # red to green to blue to red; grey stays
    np.testing.assert_allclose(
        third[0], [[[0.1, 0.9, 0.1], [0.1, 0.1, 0.9]], [[0.9, 0.1, 0.1], [0.3] * 3]], atol=1e-6
    )
    yellow = adjust_hue(x, jnp.array([1 / 6]))[0, 0, 0]
    np.testing.assert_allclose(yellow, [0.9, 0.9, 0.1], atol=1e-6)


@pytest.mark.parametrize("delta", [-0.2, 0.07, 0.2])
def test_hue_and_saturation_against_colorsys(delta):
    pixels = np.random.default_rng(0).random((1, 10, 10, 3))
    x = jnp.asarray(pixels, dtype=jnp.float32)
    turned = np.asarray(adjust_hue(x, jnp.array([delta])))
    faded = np.asarray(adjust_saturation(x, jnp.array([1.4])))
    for pixel, hue_result, saturation_result in zip(
        pixels.reshape(-1, 3), turned.reshape(-1, 3), faded.reshape(-1, 3), strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb((hue + delta) % 1, saturation, value)
        np.testing.assert_allclose(hue_result, expected, atol=2e-6)
        expected = colorsys.hsv_to_rgb(hue, min(1.4 * saturation, 1), value)
        np.testing.assert_allclose(saturation_result, expected, atol=2e-6)


def test_rotation_by_hand():
    quarter = jnp.array([jnp.pi / 2])
    x = batch_of([[[1], [2]], [[3], [4]]])
    result = rotate(x, quarter)
    np.testing.assert_array_equal(result[0, ..., 0], [[2, 4], [1, 3]])  # counter-clockwise
    # A row of three stands up: only its middle is inside.
    row = batch_of([[[1], [2], [3]]])
    np.testing.assert_array_equal(rotate(row, quarter)[0, ..., 0], [[0, 2, 0]])


def test_pixels_of_bytes_are_rotated_whole():
    """They travel as words: the same as their channels one by one, and as floats."""
    images = jnp.asarray(random_batch(3, 17))
    angles = jnp.array([0.3, -0.7, 2.0])
    result = rotate(images, angles)
    assert result.dtype == jnp.uint8
    assert len(np.unique(np.asarray(result))) > 200
    np.testing.assert_array_equal(result, rotate(images.astype(jnp.float32), angles))
    for channel in range(3):
        one = rotate(images[..., channel : channel + 1], angles)
        np.testing.assert_array_equal(result[..., channel : channel + 1], one)


def test_rotation_by_zero_changes_nothing_and_keeps_the_type():
    images = jnp.asarray(random_batch(2, 9))
    result = rotate(images, jnp.zeros(2))
    assert result.dtype == jnp.uint8
    np.testing.assert_array_equal(result, images)


# Against the original


@pytest.mark.parametrize("case", CASES)
def test_each_operation_is_the_originals(golden, case):
    x = golden[f"distort|{case}|input"][None]
    values = golden[f"distort|{case}|values_brightness_saturation_hue_contrast"]
    operations = {
        "brightness": adjust_brightness,
        "saturation": adjust_saturation,
        "hue": adjust_hue,
        "contrast": adjust_contrast,
    }
    for value, (name, operation) in zip(values, operations.items(), strict=True):
        result = operation(jnp.asarray(x), jnp.asarray([value], dtype=jnp.float32))
        expected = golden[f"distort|{case}|only_{name}"]
        np.testing.assert_allclose(result[0], expected, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_orders_of_operations_are_the_originals(golden, case):
    values = golden[f"distort|{case}|values_brightness_saturation_hue_contrast"]
    names = ["brightness", "saturation", "hue", "contrast"]
    parameters = {
        name: jnp.full([3], value, jnp.float32) for name, value in zip(names, values, strict=True)
    }
    x = jnp.asarray(golden[f"distort|{case}|input"])[None].repeat(3, axis=0)
    result = distort_colour(x, jnp.arange(3), **parameters)
    for way in range(3):
        expected = golden[f"distort|{case}|distort_color_thread{way}"]
        np.testing.assert_allclose(result[way], expected, atol=2e-6, err_msg=f"way {way}")


@pytest.mark.parametrize("case", ["photo", "odd33x48"])
def test_rotation_is_the_originals(golden, case):
    angles = np.radians(golden[f"rotate|{case}|angles_degrees"]).astype(np.float32)
    x = jnp.asarray(golden[f"rotate|{case}|input"])[None].repeat(len(angles), axis=0)
    np.testing.assert_array_equal(rotate(x, jnp.asarray(angles)), golden[f"rotate|{case}|outputs"])


# The whole


def ways_seen(key, **switches):
    """Which of 600 examples came out rotated (black corner) and which unchanged."""
    images = np.full((600, 8, 8, 3), [200, 120, 60], dtype=np.uint8)
    result = np.asarray(pretrain_augment(key, jnp.asarray(images), **switches))
    unchanged = np.abs(result - (images / 127.5 - 1)).max(axis=(1, 2, 3)) < 1e-6
    rotated = np.ptp(result, axis=(1, 2)).max(axis=-1) > 0
    return rotated, unchanged, result


def test_a_third_goes_each_way():
    rotated, unchanged, result = ways_seen(jax.random.key(0))
    assert result.dtype == np.float32 and result.min() >= -1 and result.max() <= 1
    # Standard deviation of a count of 600 thirds is 11.5; angles under 4 degrees cut no corner.
    assert abs(unchanged.sum() - 200) < 46
    assert abs(rotated.sum() - 185) < 46
    assert not (rotated & unchanged).any()


def test_switches():
    rotated, unchanged, _ = ways_seen(jax.random.key(0), rotation=False)
    assert not rotated.any() and abs(unchanged.sum() - 200) < 46
    rotated, unchanged, _ = ways_seen(jax.random.key(0), colour=False)
    assert (rotated != unchanged).all() and abs(rotated.sum() - 185) < 46


def test_without_hue_the_order_of_the_channels_stays():
    # Brightness, saturation and contrast move red, green and blue alike; a third of a turn swaps
    # them. Clipping may make them equal.
    *_, kept = ways_seen(jax.random.key(0), hue=0.0, rotation=False)
    assert (np.diff(kept[:, 0, 0]) <= 1e-6).all()
    *_, turned = ways_seen(jax.random.key(0), hue=0.5, rotation=False)
    assert 150 < (np.diff(turned[:, 0, 0]) > 1e-3).any(1).sum() < 400
    rotated, unchanged, _ = ways_seen(jax.random.key(0), hue=0.0)
    assert abs(unchanged.sum() - 200) < 46 and abs(rotated.sum() - 185) < 46


def test_brightness_range_shows_in_the_result():
    # White stays white unless brightness falls: then it is 1 - |delta| whatever the other three do.
    white = jnp.full([600, 8, 8, 3], 255, dtype=jnp.uint8)
    result = pretrain_augment(jax.random.key(1), white, rotation=False)
    drop = (1 - np.asarray(result)[:, 0, 0, 0]) / 2
    darker = drop[drop > 1e-6]
    assert abs(len(darker) - 200) < 46  # two thirds are distorted, half of those downwards
    assert darker.max() < 32 / 255 and abs(darker.mean() - 16 / 255) < 0.008


def test_keys_matter_and_repeat():
    *_, first = ways_seen(jax.random.key(0))
    np.testing.assert_array_equal(first, ways_seen(jax.random.key(0))[-1])
    assert (first != ways_seen(jax.random.key(1))[-1]).any()


def test_draws(monkeypatch):
    drawn = {}

    def record(x, way, **parameters):
        drawn.update(parameters, way=way)
        return x

    monkeypatch.setattr(augment, "distort_colour", record)
    monkeypatch.setattr(augment, "rotate", lambda x, radians: drawn.update(angle=radians) or x)
    augment.pretrain_augment(jax.random.key(0), jnp.zeros([1500, 1, 1, 3], jnp.uint8))
    way = np.asarray(drawn.pop("way"))
    assert set(way) == {0, 1, 2} and np.bincount(way).min() > 430
    assert (np.asarray(drawn["angle"])[way != 0] == 0).all()

    ranges = {
        "brightness": (-32 / 255, 32 / 255),
        "saturation": (0.5, 1.5),
        "hue": (-0.2, 0.2),
        "contrast": (0.5, 1.5),
        "angle": (-np.pi / 4, np.pi / 4),
    }
    assert drawn.keys() == ranges.keys()
    fractions = []  # uniform in [0, 1]
    for name, (low, high) in ranges.items():
        fraction = (np.asarray(drawn[name])[way == 0] - low) / (high - low)
        assert 0 <= fraction.min() < 0.02 and 0.98 < fraction.max() <= 1, name
        assert abs(fraction.mean() - 0.5) < 0.052, name  # four standard deviations
        fractions.append(fraction)
    assert np.abs(np.corrcoef(fractions) - np.eye(5)).max() < 0.18


@pytest.mark.parametrize(("colour", "tolerance"), [(False, 0), (True, 3e-6)])
def test_sharded_batch_gives_the_same_numbers_without_communication(colour, tolerance):
    images = random_batch(16, 16)
    key = jax.random.key(3)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def distort(key, images):
        return augment.pretrain_augment(key, images, colour=colour)

    step = jax.jit(distort, in_shardings=(everywhere, split), out_shardings=split)
    compiled = step.lower(key, images).compile()
    assert not re.findall(
        "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled.as_text()
    )
    assert "16,16,16,3" not in compiled.as_text()  # no device holds the whole batch
    result = compiled(jax.device_put(key, everywhere), jax.device_put(images, split))
    # Colours to rounding: the compiler may add the pixels for the mean in another order.
    np.testing.assert_allclose(result, jax.jit(distort)(key, images), atol=tolerance, rtol=0)
