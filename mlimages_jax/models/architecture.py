# SPDX-License-Identifier: BSD-3-Clause
"""Which network a tree of parameters belongs to, read off its names and shapes."""

import re
from collections.abc import Mapping
from typing import Any

from mlimages_jax.models.resnet import ResNet

_BLOCK = re.compile(r"stage(\d+)_block(\d+)")


class UnknownArchitectureError(ValueError):
    """Parameters that are not those of a ResNet of this package."""


def stage_sizes(params: Mapping[str, Any]) -> tuple[int, ...]:
    """Blocks in every stage, by the names of the modules.

    Raises:
        UnknownArchitectureError: when stages or blocks are not numbered from 0 without holes.
    """
    blocks: dict[int, set[int]] = {}
    for name in params:
        if match := _BLOCK.fullmatch(name):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    sizes = tuple(len(blocks[stage]) for stage in sorted(blocks))
    expected = {stage: set(range(size)) for stage, size in enumerate(sizes)}
    if not sizes or blocks != expected:
        found = ", ".join(sorted(params)[:5])
        raise UnknownArchitectureError(
            f"these are not the parameters of a ResNet of this package: they need modules "
            f"stage0_block0, stage0_block1, ... without holes; found {found}, ..."
        )
    return sizes


def network_of(params: Mapping[str, Any], **settings: Any) -> ResNet:
    """The network that these parameters fit.

    Args:
        params: nested dict of arrays (or anything with a shape), as `ResNet.init` makes it.
        settings: attributes of `ResNet` that leave no trace in the parameters, such as dtype.

    Raises:
        UnknownArchitectureError: when a module is missing.
    """
    sizes = stage_sizes(params)
    try:
        stem = params["stem"]["kernel"].shape  # [K, K, 3, W]
        widths = [
            params[f"stage{stage}_block0"]["conv3"]["kernel"].shape[-1]
            for stage in range(len(sizes))
        ]
        num_classes = params["head"]["kernel"].shape[-1]
    except KeyError as error:
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
