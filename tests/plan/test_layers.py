# SPDX-License-Identifier: BSD-3-Clause
import math

import jax
import jax.numpy as jnp
import pytest

from mlimages_jax.models.resnet import STAGE_SIZES, ResNet
from mlimages_jax.plan import layers

SMALL = ResNet(10, stage_sizes=(1, 2), stage_widths=(16, 32), stem_width=8, stem_kernel=3)


def _traced_macs(network: ResNet, side: int) -> int:
    """Multiply-accumulates of the convolutions and the classifier in the network's own trace."""
    image = jnp.zeros((1, side, side, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    return _macs_of(jax.make_jaxpr(network.apply)(variables, image).jaxpr)


def _macs_of(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":  # a form for CPUs, and one for the others
            form, other = (_macs_of(branch.jaxpr) for branch in equation.params["branches"])
            assert form == other
            total += form
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            kernel, result = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
            total += math.prod(result) * math.prod(kernel[:-1])
    return total


@pytest.mark.parametrize("side", [32, 33, 47])
@pytest.mark.parametrize(
    "network",
    [SMALL, pytest.param(ResNet(100, stage_sizes=STAGE_SIZES[50]), marks=pytest.mark.slow)],
)
def test_arithmetic_is_that_of_the_network(network, side):
    assert layers.forward_macs(network, side) == _traced_macs(network, side)


def test_arithmetic_of_the_paper_network():
    assert layers.forward_macs(ResNet(11_166), 224) == 7_860_760_576


def test_every_layer_has_the_name_of_its_parameters():
    params = jax.eval_shape(SMALL.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    for layer in layers.layers(SMALL, 32):
        assert "kernel" in (params[layer.block] if layer.block else params)[layer.name]


def test_kept_activations_by_hand():
    """Side 8: stem 4x4x8, then one block 4x4x8 -> 2x2x16, then the head."""
    network = ResNet(10, stage_sizes=(1,), stage_widths=(16,), stem_width=8, stem_kernel=3)
    stem = 8 * 8 * 3
    norms = 4 * 4 * 8 + 4 * 4 * 4 + 2 * 2 * 4  # inputs of norm1 (and shortcut_norm), norm2, norm3
    convolutions = 2 * 4 * 4 * 8 + 4 * 4 * 4 + 2 * 2 * 4  # shortcut_conv and conv1, conv2, conv3
    end = 2 * (2 * 2 * 16)  # inputs of final_norm and of the pooling
    assert layers.kept_elements(network, 8) == stem + norms + convolutions + end
    block_input = 4 * 4 * 8
    assert (
        layers.kept_elements(network.clone(remat=True), 8)
        == stem + block_input + norms + convolutions + end
    )


@pytest.mark.slow
def test_remat_keeps_less_where_there_are_many_blocks():
    network = ResNet(1000)
    assert layers.kept_elements(network.clone(remat=True), 224) < 0.5 * layers.kept_elements(
        network, 224
    )
