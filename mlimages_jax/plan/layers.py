# SPDX-License-Identifier: BSD-3-Clause
"""What each layer costs for one image: arithmetic, and what the backward pass keeps.

Sizes follow `models.resnet` by hand, so that a plan needs neither data nor a compiler; the tests
hold them against the network itself and against XLA.
"""

from collections.abc import Iterator
from typing import NamedTuple

from mlimages_jax.models.resnet import ResNet


class Layer(NamedTuple):
    """A convolution or the classifier, with the BatchNorm and ReLU before it.

    Attributes:
        block: the block it belongs to; "" outside blocks.
        name: as in the parameters.
        macs: multiply-accumulates of the forward pass.
        normalised: elements that its BatchNorm reads, which the backward pass needs; 0 where there
            is none, or where another BatchNorm of the block reads the same.
        convolved: elements that it reads itself, which the backward pass needs as well.
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
    """Multiply-accumulates of a forward pass of one image: convolutions and classifier."""
    return sum(layer.macs for layer in layers(network, side))


def kept_elements(network: ResNet, side: int) -> int:
    """Activations of one image that live from the forward to the backward pass.

    Without remat these are the inputs of every BatchNorm and of every convolution; with it only
    the inputs of the blocks, and the most that a single block recomputes.
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
    """The convolutions of a block whose input is [side, side, width] and output has `wide`."""
    inner, before, after = wide // 4, side**2, (-(-side // stride)) ** 2
    entry = before * width
    if stride == 2:
        yield Layer(block, "shortcut_conv", after * width * wide, 0, entry)
    yield Layer(block, "conv1", before * width * inner, entry, entry)
    yield Layer(block, "conv2", after * inner * inner * 9, before * inner, before * inner)
    yield Layer(block, "conv3", after * inner * wide, after * inner, after * inner)
