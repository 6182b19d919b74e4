# SPDX-License-Identifier: BSD-3-Clause
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mlimages_jax.models.resnet import STAGE_SIZES, ResNet, matrix_product
from tests.support import reference

SMALL = {"stage_sizes": (1, 2), "stage_widths": (16, 32), "stem_width": 8}
TWO_BLOCKS = SMALL | {"stage_sizes": (1, 1)}


def _forward(golden, name: str, **kwargs):
    numbers = np.load(golden / f"forward_{name}.npz")
    size, classes = int(numbers["resnet_size"]), int(numbers["class_num"])
    model = ResNet(classes, stage_sizes=STAGE_SIZES[size], **kwargs)
    images = reference.input_images(
        *(int(numbers[key]) for key in ("seed", "n", "height", "width"))
    )
    np.testing.assert_allclose(images.sum(dtype=np.float64), numbers["input_sum"], rtol=1e-6)
    variables = reference.variables(golden, size, classes)
    return numbers, jax.jit(model.apply)(variables, images)


@pytest.mark.parametrize(
    "name",
    [
        "resnet50_c1000_64_seed0",
        pytest.param("resnet50_c11166_64_seed0", marks=pytest.mark.slow),
        pytest.param("resnet101_c1000_64_seed0", marks=pytest.mark.slow),
        pytest.param("resnet50_c1000_224_seed0", marks=pytest.mark.slow),
        pytest.param("resnet50_c1000_299_seed0", marks=pytest.mark.slow),
        pytest.param("resnet101_c1000_224_seed0", marks=pytest.mark.slow),
        pytest.param("resnet101_c11166_224_seed0", marks=pytest.mark.slow),
    ],
)
def test_forward_equals_the_original(golden_dir, name):
    numbers, (logits, features) = _forward(golden_dir, name)
    np.testing.assert_allclose(features, numbers["feat"], atol=1e-4)
    shown = numbers["logits"]
    np.testing.assert_allclose(logits[:, : shown.shape[1]], shown, atol=3e-5)
    np.testing.assert_array_equal(logits.argmax(1), numbers["logits_argmax"])
    np.testing.assert_allclose(np.linalg.norm(logits, axis=1), numbers["logits_norm"], rtol=1e-5)


@pytest.mark.slow
def test_training_statistics_equal_the_original(golden_dir):
    numbers = np.load(golden_dir / "bn_training_resnet50_c1000_64_seed0.npz")
    variables = reference.variables(golden_dir, 50, 1000)
    images = reference.input_images(0, int(numbers["n"]), 64, 64)
    model = ResNet(1000, stage_sizes=STAGE_SIZES[50])
    (logits, features), updates = jax.jit(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"])
    )(variables, images)
    np.testing.assert_allclose(logits, numbers["logits"], atol=3e-5)
    np.testing.assert_allclose(features, numbers["feat"], atol=1e-4)
    names = [key for key in numbers if key.startswith("var:")]
    assert len(names) == 106
    for name in names:
        ours = reference.look_up(updates, reference.our_path(name.removeprefix("var:")))
        np.testing.assert_allclose(ours, numbers[name], atol=2e-6, rtol=2e-6, err_msg=name)


@pytest.mark.parametrize("size", [50, 101, pytest.param(152, marks=pytest.mark.slow)])
def test_parameter_names_and_shapes_are_the_originals(golden_dir, size):
    model = ResNet(1000, stage_sizes=STAGE_SIZES[size])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    ours = {path: list(leaf.shape) for path, leaf in traverse_util.flatten_dict(shapes).items()}
    theirs = {
        reference.our_path(name): shape
        for name, shape in reference.variable_names(golden_dir, size, 1000)
    }
    assert ours == theirs


def test_the_pretraining_network_has_65375326_parameters():
    shapes = jax.eval_shape(ResNet(11166).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 65_375_326


def test_every_stage_halves_the_image():
    model = ResNet(5, **SMALL)
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    capture = partial(model.apply, capture_intermediates=True, mutable=["intermediates"])
    _, captured = jax.eval_shape(capture, variables, images)
    sides = {
        name: captured["intermediates"][name]["__call__"][0].shape[1]
        for name in ("stem", "stage0_block0", "stage1_block0", "stage1_block1")
    }
    assert sides == {"stem": 32, "stage0_block0": 16, "stage1_block0": 8, "stage1_block1": 8}


@pytest.mark.slow
def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32():
    model = ResNet(5, dtype=jnp.bfloat16, **TWO_BLOCKS)
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def apply(model):
        run = partial(model.apply, train=True, mutable="batch_stats")
        return jax.jit(run)(variables, images)

    (logits, features), updates = apply(model)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updates))} == {jnp.dtype("float32")}
    assert logits.dtype == features.dtype == jnp.float32
    exact, _ = apply(ResNet(5, **TWO_BLOCKS))
    np.testing.assert_allclose(logits, exact[0], atol=0.05)


@pytest.mark.slow
def test_remat_changes_neither_names_nor_gradients():
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    plain, remat = ResNet(5, **TWO_BLOCKS), ResNet(5, remat=True, **TWO_BLOCKS)
    variables = jax.jit(plain.init)(jax.random.key(0), images)
    names = jax.tree.structure(jax.eval_shape(remat.init, jax.random.key(0), images))
    assert jax.tree.structure(variables) == names

    def gradient(model):
        def loss(params):
            outputs, _ = model.apply(
                {**variables, "params": params}, images, train=True, mutable="batch_stats"
            )
            return jnp.square(outputs[0]).sum()

        return jax.jit(jax.grad(loss))(variables["params"])

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4),
        gradient(plain),
        gradient(remat),
    )


@pytest.mark.parametrize(("stride", "side"), [(1, 6), (2, 6), (2, 7)])
def test_a_one_by_one_convolution_is_a_matrix_product(stride, side):
    x = jax.random.normal(jax.random.key(1), (3, side, side, 8))
    kernel = jax.random.normal(jax.random.key(2), (1, 1, 8, 5))

    def convolution(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        padding = [(0, 0), (0, 0)]
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=dimensions
        )

    expected, pull = jax.vjp(convolution, x, kernel)
    found, our_pull = jax.vjp(partial(matrix_product, strides=(stride, stride)), x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    cotangent = jax.random.normal(jax.random.key(3), expected.shape)
    for ours, theirs in zip(our_pull(cotangent), pull(cotangent), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_only_cpus_compute_one_by_one_convolutions_as_products():
    """A bottleneck and its shortcut: three kernels of one pixel, one of 3x3, and the stem's."""
    model = ResNet(5, stage_sizes=(1,), stage_widths=(16,), stem_width=8)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    traced = jax.jit(model.apply).trace(variables, images)

    def convolutions(platform):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        return program.count("stablehlo.convolution(")

    assert {name: convolutions(name) for name in ("cpu", "cuda", "tpu")} == {
        "cpu": 2, "cuda": 5, "tpu": 5,
    }  # fmt: skip


def test_unequal_stage_lists_are_refused():
    with pytest.raises(ValueError, match="2 stage_sizes but 4 stage_widths"):
        ResNet(5, stage_sizes=(1, 1)).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
