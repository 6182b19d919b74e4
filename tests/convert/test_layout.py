# SPDX-License-Identifier: BSD-3-Clause
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mlimages_jax.convert import ConvertError, layout, tensorflow_names
from mlimages_jax.models.resnet import STAGE_SIZES, STAGE_WIDTHS, ResNet
from tests.support import original_checkpoint, reference

SMALL = layout.Architecture(5, (1, 2), (8, 16), stem_width=4, stem_kernel=3)


def _arrays() -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in layout.variables(SMALL).items()}


@pytest.mark.parametrize("size", [50, 101, 152])
def test_names_shapes_and_order_are_the_originals(golden_dir, size):
    networks = json.loads((golden_dir / "variables.json").read_text())["networks"]
    rows = networks[str(size)]["variables_class_num_1000"]
    architecture = layout.Architecture(1000, STAGE_SIZES[size], STAGE_WIDTHS, 64, 7)
    ours = layout.variables(architecture)
    assert [list(shape) for shape in ours.values()] == [shape for _, shape, *_ in rows]
    names = [name for name, *_ in rows]
    assert [tensorflow_names.tensorflow_name(name) for name in ours] == names
    assert [tensorflow_names.our_name(name) for name in names] == list(ours)
    assert ["/".join(reference.our_path(name)) for name in names] == list(ours)
    assert layout.architecture_of(ours) == architecture


def test_a_small_network_has_the_same_names_and_order():
    names = original_checkpoint.network()
    ours = layout.variables(SMALL)
    assert [tensorflow_names.tensorflow_name(name) for name in ours] == list(names)
    assert list(ours.values()) == list(names.values())
    assert layout.architecture_of(ours) == SMALL


@pytest.mark.parametrize("architecture", [SMALL, layout.Architecture(3, (2,), (4,), 8, 5)])
def test_the_layout_is_that_of_the_network(architecture):
    model = ResNet(**architecture._asdict())
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    flat = traverse_util.flatten_dict(shapes, sep="/")
    assert {name: leaf.shape for name, leaf in flat.items()} == layout.variables(architecture)


@pytest.mark.parametrize(
    "name",
    [
        "", "global_step", "Variable", "a/b", "logits/dense/kernel/Momentum", "dense/kernel",
        "stages_0_block_1/conv9/conv2d/kernel", "stages_0_block_1/conv1_b2/dense/kernel",
        "stages_00_block_1/conv1_b2/conv2d/kernel_", "logits/conv2d/kernel",
        "init/init_conv/conv2d/bias", "None/dense/kernel", "tower_0/init/init_conv/conv2d/kernel",
    ],
)  # fmt: skip
def test_other_variables_have_no_name_here(name):
    assert tensorflow_names.our_name(name) is None


def test_every_difference_is_listed():
    arrays = _arrays()
    assert layout.check(arrays, where="x") == SMALL
    del arrays["params/stage1_block1/conv2/kernel"], arrays["params/stem/kernel"]
    arrays["batch_stats/final_norm/mean"] = np.zeros(17, np.float32)
    arrays["params/head/bias"] = np.zeros(5, np.float64)
    arrays["params/stage1_block1/shortcut_conv/kernel"] = np.zeros((1, 1, 16, 16), np.float32)
    with pytest.raises(ConvertError) as error:
        layout.check(arrays, where="file")
    first, *lines = str(error.value).splitlines()
    assert first.startswith(
        "file is not a complete network; the closest one has (1, 2) blocks in its stages and 5 "
    )
    # Without the stem its width is unknown, so the first block is expected as in the original.
    wrong = [line.strip() for line in lines if "stage0_block0" not in line]
    assert wrong == [
        "batch_stats/final_norm/mean: float32[17] instead of float32[16]",
        "params/head/bias: float64[5] instead of float32[5]",
        "params/stage1_block1/conv2/kernel: missing",
        "params/stage1_block1/shortcut_conv/kernel: not part of the network",
        "params/stem/kernel: missing",
    ]


def test_a_block_that_is_missing_is_listed_with_all_that_it_has():
    arrays = {name: x for name, x in _arrays().items() if "stage1_block0" not in name}
    with pytest.raises(ConvertError) as error:
        layout.check(arrays, where="file")
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 20
    assert all("stage1_block0" in line and line.endswith(": missing") for line in lines)


@pytest.mark.parametrize(("module", "inner"), [("conv3", 4), ("shortcut_conv", 8)])
def test_a_misshapen_kernel_does_not_make_the_others_look_wrong(module, inner):
    arrays = _arrays()
    name = f"params/stage1_block0/{module}/kernel"
    arrays[name] = np.zeros((1, 1, inner, 12), np.float32)
    with pytest.raises(ConvertError) as error:
        layout.check(arrays, where="file")
    assert str(error.value).splitlines()[1:] == [
        f"  {name}: float32[1, 1, {inner}, 12] instead of float32[1, 1, {inner}, 16]"
    ]


def test_long_lists_are_cut():
    arrays = {name: np.zeros(1, np.float32) for name in _arrays()}
    with pytest.raises(ConvertError, match=r"\n  and \d+ more$"):
        layout.check(arrays, where="file")


@pytest.mark.parametrize(
    ("gone", "message"), [("stage", "no block"), ("head", "its number of classes is unknown")]
)
def test_without_blocks_or_classifier_it_is_no_network(gone, message):
    arrays = {name: array for name, array in _arrays().items() if gone not in name}
    with pytest.raises(ConvertError, match=f"file: .*{message}"):
        layout.check(arrays, where="file")
