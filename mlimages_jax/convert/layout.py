# SPDX-License-Identifier: BSD-3-Clause
"""The names and shapes of a network's arrays, worked out without making the network.

Written down a second time, beside `models.resnet`, so that files of others can be checked name by
name, and in the order in which the original's graph holds its variables.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mlimages_jax.convert import ConvertError
from mlimages_jax.models.resnet import STAGE_WIDTHS

Shape = tuple[int, ...]

STEM = "params/stem/kernel"
HEAD = "params/head/kernel"
MAX_LISTED = 40  # differences that an error lists
_BLOCK = re.compile(r"params/stage(\d+)_block(\d+)/.*")


class Architecture(NamedTuple):
    """What decides names and shapes; the arguments of `models.resnet.ResNet`."""

    num_classes: int
    stage_sizes: tuple[int, ...]
    stage_widths: tuple[int, ...]
    stem_width: int
    stem_kernel: int


def variables(architecture: Architecture) -> dict[str, Shape]:
    """Names and shapes of all arrays, in the order of the original's graph."""
    channels = architecture.stem_width
    kernel = architecture.stem_kernel
    shapes: dict[str, Shape] = {STEM: (kernel, kernel, 3, channels)}
    sizes = zip(architecture.stage_sizes, architecture.stage_widths, strict=True)
    for stage, (blocks, width) in enumerate(sizes):
        for block in range(blocks):
            name = f"stage{stage}_block{block}"
            shapes |= _block(name, channels, width, project=block == 0)
            channels = width
    shapes |= _norm("final_norm", channels)
    shapes[HEAD] = (channels, architecture.num_classes)
    shapes["params/head/bias"] = (architecture.num_classes,)
    return shapes


def architecture_of(shapes: Mapping[str, Shape]) -> Architecture:
    """The architecture that these arrays come closest to, also when some are missing or odd.

    Args:
        shapes: of arrays by name; names that are not of this layout are passed over.

    Raises:
        ConvertError: when there is no block, or neither kernel nor bias of the classifier.
    """
    blocks: dict[int, int] = {}
    for name in shapes:
        if match := _BLOCK.fullmatch(name):
            stage, block = int(match[1]), int(match[2])
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    if not blocks:
        raise ConvertError("it holds no block of a residual network")
    stages = range(max(blocks) + 1)
    head = shapes.get(HEAD) or shapes.get("params/head/bias")
    if not head:
        raise ConvertError("its classifier is missing, hence its number of classes is not known")
    stem = shapes.get(STEM, ())
    kernel, width = (stem[0], stem[3]) if len(stem) == 4 else (7, 64)
    return Architecture(
        num_classes=head[-1],
        stage_sizes=tuple(blocks.get(stage, 1) for stage in stages),
        stage_widths=tuple(_width(shapes, stage) for stage in stages),
        stem_width=width,
        stem_kernel=kernel,
    )


def check(arrays: Mapping[str, np.ndarray], *, where: str) -> Architecture:
    """The architecture of arrays that are complete and fit each other.

    Args:
        arrays: by the names of this layout.
        where: the file, for the message.

    Raises:
        ConvertError: lists every array that is missing, misshapen or no part of the network.
    """
    try:
        architecture = architecture_of({name: array.shape for name, array in arrays.items()})
    except ConvertError as error:
        raise ConvertError(f"{where}: {error}") from error
    found = {name: describe(array.dtype, array.shape) for name, array in arrays.items()}
    expected = {name: describe("float32", shape) for name, shape in variables(architecture).items()}
    if lines := differences(found, expected):
        raise ConvertError(unfit(where, architecture, lines))
    return architecture


def describe(dtype: object, shape: Shape) -> str:
    """Such as "float32[7, 7, 3, 64]"."""
    return f"{dtype}{list(shape)}"


def differences(
    found: Mapping[str, str], expected: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> list[str]:
    """A line for every array that is missing, of another shape or dtype, or unexpected.

    Args:
        found: descriptions by name.
        expected: what has to be there.
        optional: what may be there.
    """
    known = {**expected, **(optional or {})}
    lines = [f"  {name}: missing" for name in expected.keys() - found.keys()]
    lines += [f"  {name}: no part of the network" for name in found.keys() - known.keys()]
    lines += [
        f"  {name}: {found[name]} instead of {known[name]}"
        for name in found.keys() & known.keys()
        if found[name] != known[name]
    ]
    return sorted(lines)


def unfit(where: str, architecture: Architecture, lines: list[str]) -> str:
    """The message for differences."""
    more = [f"  and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "\n".join([
        f"{where} does not hold a network with {architecture.stage_sizes} blocks in its stages and "
        f"{architecture.num_classes} classes, which it comes closest to:",
        *lines[:MAX_LISTED],
        *more,
    ])  # fmt: skip


def _block(name: str, channels: int, width: int, *, project: bool) -> dict[str, Shape]:
    inner = width // 4
    shapes: dict[str, Shape] = {}
    if project:
        shapes |= _norm(f"{name}/shortcut_norm", channels)
        shapes[f"params/{name}/shortcut_conv/kernel"] = (1, 1, channels, width)
    for number, (side, before, after) in enumerate(
        [(1, channels, inner), (3, inner, inner), (1, inner, width)], start=1
    ):
        shapes |= _norm(f"{name}/norm{number}", before)
        shapes[f"params/{name}/conv{number}/kernel"] = (side, side, before, after)
    return shapes


def _norm(name: str, channels: int) -> dict[str, Shape]:
    return {
        f"params/{name}/scale": (channels,),
        f"params/{name}/bias": (channels,),
        f"batch_stats/{name}/mean": (channels,),
        f"batch_stats/{name}/var": (channels,),
    }


def _width(shapes: Mapping[str, Shape], stage: int) -> int:
    """The channels that most arrays of a stage speak for; the original's where none does."""
    speaks = re.compile(
        rf"params/stage{stage}_block"
        r"(\d+/conv3/kernel|0/shortcut_conv/kernel|[1-9]\d*/norm1/(scale|bias))"
    )
    widths = [shape[-1] for name, shape in shapes.items() if speaks.fullmatch(name) and shape]
    if widths:
        return max(sorted(set(widths)), key=widths.count)
    return STAGE_WIDTHS[min(stage, len(STAGE_WIDTHS) - 1)]
