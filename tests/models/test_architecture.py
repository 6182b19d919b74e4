# SPDX-License-Identifier: BSD-3-Clause
import jax
import jax.numpy as jnp
import pytest

from mlimages_jax.models import architecture
from mlimages_jax.models.resnet import STAGE_SIZES, ResNet


@pytest.mark.parametrize(
    "model",
    [
        ResNet(1000, stage_sizes=STAGE_SIZES[50]),
        ResNet(7, stage_sizes=(1, 2), stage_widths=(16, 32), stem_width=8, stem_kernel=3),
    ],
    ids=["resnet50", "small"],
)
def test_the_network_is_read_off_its_parameters(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    found = architecture.network_of(shapes["params"])
    for name in ("num_classes", "stem_width", "stem_kernel"):
        assert getattr(found, name) == getattr(model, name)
    assert tuple(found.stage_sizes) == tuple(model.stage_sizes)
    assert tuple(found.stage_widths) == tuple(model.stage_widths)
    again = jax.eval_shape(found.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, shapes)
    assert architecture.network_of(shapes["params"], dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_other_parameters_are_refused():
    block = {"conv3": {"kernel": jnp.zeros((1, 1, 4, 16))}}
    with pytest.raises(architecture.UnknownArchitectureError, match="found conv1, fc"):
        architecture.network_of({"conv1": {}, "fc": {}})
    with pytest.raises(architecture.UnknownArchitectureError, match="without gaps"):
        architecture.network_of({"stage0_block0": block, "stage0_block2": block})
    with pytest.raises(architecture.UnknownArchitectureError, match="'stem' is missing"):
        architecture.network_of({"stage0_block0": block})
