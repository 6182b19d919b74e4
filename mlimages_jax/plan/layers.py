# SPDX-License-Identifier: BSD-3-Clause
"""The cost of each layer for one image: arithmetic, and activations kept for the backward pass.

The network is traced for its shapes alone, so a plan needs neither data nor a compiler. The tests
compare the numbers with XLA's.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mlimages_jax.models.batch_norm import GroupBatchNorm
from mlimages_jax.models.resnet import ResNet


class Layer(NamedTuple):
    """A convolution or the classifier, with the BatchNorm and ReLU before it.

    Attributes:
        block: Block it belongs to; "" outside blocks.
        name: Name of the module, as in the parameters.
        macs: Multiply-accumulates of the forward pass.
        normalised: Number of input elements of its BatchNorm, kept for the backward pass; 0 if it
            has none or shares its input with another BatchNorm of the block.
        convolved: Number of its own input elements, also kept for the backward pass.
    """

    block: str
    name: str
    macs: int
    normalised: int
    convolved: int


def layers(network: ResNet, side: int) -> tuple[Layer, ...]:
    """Returns the layers in order, for one image of `side` x `side` pixels."""
    return _traced(network.clone(remat=False), side)  # remat would hide what is in the blocks


@functools.lru_cache(maxsize=64)
def _traced(network: ResNet, side: int) -> tuple[Layer, ...]:
    found: list[Layer] = []
    normalised = 0

    def record(
        call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> Any:
        nonlocal normalised
        result = call(*arguments, **keywords)
        module = context.module
        if isinstance(module, GroupBatchNorm):
            # norm1 reads the same input, which is kept once.
            normalised = 0 if module.name == "shortcut_norm" else arguments[0].size
        elif isinstance(module, nn.Conv | nn.Dense):
            inputs, kernel = arguments[0], module.variables["params"]["kernel"]
            macs = result.size * math.prod(kernel.shape[:-1])
            # The classifier reads pooled features; what is kept for it is the pooling's input.
            convolved = normalised if isinstance(module, nn.Dense) else inputs.size
            *block, name = module.path
            found.append(Layer("/".join(block), name, macs, normalised, convolved))
            normalised = 0
        return result

    def init(key: jax.Array, image: jax.Array) -> Any:
        return network.init(key, image)  # a new function: jax would reuse an earlier trace

    with nn.intercept_methods(record):
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        jax.eval_shape(init, jax.random.key(0), image)
    return tuple(found)


def forward_macs(network: ResNet, side: int) -> int:
    """Multiply-accumulates of the forward pass of one image: convolutions and classifier."""
    return sum(layer.macs for layer in layers(network, side))


def kept_elements(network: ResNet, side: int) -> int:
    """Counts activations of one image kept from the forward to the backward pass.

    Without remat these are the inputs of every BatchNorm and every convolution. With remat they are
    the inputs of the blocks, plus the largest amount that a single block recomputes.
    """
    found = layers(network, side)
    if not network.remat:
        return sum(layer.normalised + layer.convolved for layer in found)
    blocks: dict[str, int] = {}
    outside = inputs = 0
    for layer in found:
        size = layer.normalised + layer.convolved
        if not layer.block:
            outside += size
            continue
        inputs += layer.normalised if layer.name == "conv1" else 0
        blocks[layer.block] = blocks.get(layer.block, 0) + size
    return outside + inputs + max(blocks.values())
