# SPDX-License-Identifier: BSD-3-Clause
"""The cost of each layer for one image: arithmetic, and activations kept for the backward pass.

The sizes duplicate the structure of `models.resnet`, so that a plan needs neither data nor a
compiler. The tests compare them with the network itself and with XLA.
"""

from collections.abc import Iterator
from typing import NamedTuple

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


def layers(network: ResNet, side: int) -> list[Layer]:
    """The layers in order, for one image of `side` x `side` pixels."""
    return list(_walk(network, side))


def forward_macs(network: ResNet, side: int) -> int:
    """Multiply-accumulates of the forward pass of one image: convolutions and classifier."""
    return sum(layer.macs for layer in layers(network, side))


def kept_elements(network: ResNet, side: int) -> int:
    """Number of activations of one image kept from the forward to the backward pass.

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


def _walk(network: ResNet, side: int) -> Iterator[Layer]:
    kernel, width = network.stem_kernel, network.stem_width
    area = side * side
    side = -(-side // 2)
    yield Layer("", "stem", side**2 * width * kernel**2 * 3, 0, area * 3)
    for stage, (size, wide) in enumerate(
        zip(network.stage_sizes, network.stage_widths, strict=True)
    ):
        for number in range(size):
            stride = 2 if number == 0 else 1
            yield from _bottleneck(f"stage{stage}_block{number}", side, width, wide, stride)
            side, width = -(-side // stride), wide
    pooled = side**2 * width
    yield Layer("", "head", width * network.num_classes, pooled, pooled)


def _bottleneck(block: str, side: int, width: int, wide: int, stride: int) -> Iterator[Layer]:
    """The convolutions of a block with input [side, side, width] and `wide` output channels."""
    inner, before, after = wide // 4, side**2, (-(-side // stride)) ** 2
    entry = before * width
    if stride == 2:
        yield Layer(block, "shortcut_conv", after * width * wide, 0, entry)
    yield Layer(block, "conv1", before * width * inner, entry, entry)
    yield Layer(block, "conv2", after * inner * inner * 9, before * inner, before * inner)
    yield Layer(block, "conv3", after * inner * wide, after * inner, after * inner)
