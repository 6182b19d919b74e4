# SPDX-License-Identifier: BSD-3-Clause
"""Infers the network from the names and shapes of its parameters."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlimages_jax.models.depths import STAGE_SIZES, STAGE_WIDTHS
from mlimages_jax.models.resnet import ResNet

# Attributes of `ResNet` that determine all shapes but the classifier's, with text for messages.
WORDS = {
    "stage_sizes": "its stages have {} blocks",
    "stage_widths": "its stages are {} wide",
    "stem_width": "its stem is {} wide",
    "stem_kernel": "the side of its stem's kernel is {}",
}
_BLOCK = re.compile(r"stage(\d{1,9})_block(\d{1,9})")


class UnknownArchitectureError(ValueError):
    """The parameters do not belong to a ResNet of this package."""


def stage_sizes(params: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the number of blocks in every stage, from the module names.

    Raises:
        UnknownArchitectureError: Stages or blocks are not numbered consecutively from 0.
    """
    blocks: dict[int, set[int]] = {}
    for name in params:
        if match := _BLOCK.fullmatch(name):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    sizes = tuple(len(blocks[stage]) for stage in sorted(blocks))
    # With a gap in the numbers these are parameters of another network, or not all of them.
    expected = {stage: set(range(size)) for stage, size in enumerate(sizes)}
    if not sizes or blocks != expected:
        found = ", ".join(sorted(params)[:5])
        raise UnknownArchitectureError(
            f"these are not the parameters of a ResNet of this package: they need modules "
            f"stage0_block0, stage0_block1, ... without gaps; found {found}, ..."
        )
    return sizes


def body_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes listed in `WORDS`; None for those whose module is missing.

    Raises:
        UnknownArchitectureError: Stages or blocks are not numbered consecutively from 0.
    """
    sizes = stage_sizes(params)

    def shape(*path: str) -> tuple[int, ...] | None:
        node: Any = params
        for name in path:
            node = node.get(name, {})
        return tuple(node.shape) if hasattr(node, "shape") else None

    # All blocks of a stage have the same width, so its first block tells it.
    widths = [shape(f"stage{stage}_block0", "conv3", "kernel") for stage in range(len(sizes))]
    stem = shape("stem", "kernel")  # [K, K, 3, W]
    return {
        "stage_sizes": sizes,
        "stage_widths": tuple(width[-1] for width in widths if width) or None,
        "stem_width": stem[-1] if stem else None,
        "stem_kernel": stem[0] if stem else None,
    }


def network_of(params: Mapping[str, Any], **settings: Any) -> ResNet:
    """Returns the network that fits these parameters.

    Args:
        params: Nested dict of arrays (or anything with a shape), as returned by `ResNet.init`.
        **settings: Attributes of `ResNet` that do not affect parameter shapes, such as dtype.

    Raises:
        UnknownArchitectureError: A module is missing or misnumbered.
    """
    sizes = stage_sizes(params)
    try:
        stem = params["stem"]["kernel"].shape  # [K, K, 3, W]
        widths = [
            params[f"stage{stage}_block0"]["conv3"]["kernel"].shape[-1]
            for stage in range(len(sizes))
        ]
        num_classes = params["head"]["kernel"].shape[-1]
    except (KeyError, AttributeError, IndexError, TypeError) as error:  # or not an array
        raise UnknownArchitectureError(
            f"these are not the parameters of a ResNet of this package: {error} is missing"
        ) from error
    return ResNet(
        num_classes,
        stage_sizes=sizes,
        stage_widths=tuple(widths),
        stem_width=stem[-1],
        stem_kernel=stem[0],
        **settings,
    )


def described(network: ResNet) -> str:
    """Returns a description such as "ResNet-101, stem 7 x 7 x 64".

    Networks without a standard name are described by their blocks and widths.
    """
    sizes = tuple(network.stage_sizes)
    depth = next((depth for depth, known in STAGE_SIZES.items() if tuple(known) == sizes), None)
    name = f"ResNet-{depth}" if depth else f"ResNet of {_numbers(sizes)} blocks"
    if not depth or tuple(network.stage_widths) != tuple(STAGE_WIDTHS):
        name += f", widths {_numbers(network.stage_widths)}"
    return f"{name}, stem {network.stem_kernel} x {network.stem_kernel} x {network.stem_width}"


def _numbers(values: Sequence[int]) -> str:
    return "-".join(map(str, values))
