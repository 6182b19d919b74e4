# SPDX-License-Identifier: BSD-3-Clause
"""Names and shapes of a network's arrays, derived without creating the network.

This duplicates `models.resnet` on purpose: files from elsewhere can be checked name by name, and in
the order of the variables in the original's graph.
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
MAX_LISTED = 40  # differences shown in an error
_BLOCK = re.compile(r"params/stage(\d{1,4})_block(\d{1,4})/.*")


class Architecture(NamedTuple):
    """The arguments of `models.resnet.ResNet` that determine names and shapes."""

    num_classes: int
    stage_sizes: tuple[int, ...]
    stage_widths: tuple[int, ...]
    stem_width: int
    stem_kernel: int


def variables(architecture: Architecture) -> dict[str, Shape]:
    """Returns names and shapes of all arrays, in the order of the original's graph."""
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
    """Returns the architecture closest to these arrays, even if some are missing or wrong.

    Args:
        shapes: Shapes by name; names that do not belong to this layout are ignored.

    Raises:
        ConvertError: If there is no block, more blocks than arrays, or neither kernel nor bias of
            the classifier.
    """
    blocks: dict[int, int] = {}
    for name in shapes:
        if match := _BLOCK.fullmatch(name):
            stage, block = int(match[1]), int(match[2])
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    if not blocks:
        raise ConvertError("it has no block of a residual network")
    stages = range(max(blocks) + 1)
    if max(blocks) + sum(blocks.values()) > len(shapes):  # else a name could make a list too long
        raise ConvertError(f"its blocks are numbered beyond its {len(shapes):,} arrays")
    # With the bias alone the number of classes is known, and only the kernel reported as missing.
    head = shapes.get(HEAD) or shapes.get("params/head/bias")
    if not head:
        raise ConvertError("its classifier is missing, so its number of classes is unknown")
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
    """Checks that arrays are complete and consistent; returns their architecture.

    Args:
        arrays: Arrays by the names of this layout.
        where: Path of the file, for messages.

    Raises:
        ConvertError: If arrays are missing, misshapen or not part of the network; lists them.
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
    """Formats dtype and shape, such as "float32[7, 7, 3, 64]"."""
    return f"{dtype}{list(shape)}"


def differences(
    found: Mapping[str, str], expected: Mapping[str, str], optional: Mapping[str, str] | None = None
) -> list[str]:
    """Returns a line for every array that is missing, unexpected, or has another shape or dtype.

    Args:
        found: Descriptions by name.
        expected: Arrays that must exist.
        optional: Arrays that may exist.
    """
    known = {**expected, **(optional or {})}
    lines = [f"  {name}: missing" for name in expected.keys() - found.keys()]
    lines += [f"  {name}: not part of the network" for name in found.keys() - known.keys()]
    lines += [
        f"  {name}: {found[name]} instead of {known[name]}"
        for name in found.keys() & known.keys()
        if found[name] != known[name]
    ]
    return sorted(lines)


def unfit(where: str, architecture: Architecture, lines: list[str]) -> str:
    """Formats the error message for differences."""
    more = [f"  and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    return "\n".join([
        f"{where} is not a complete network; the closest one has {architecture.stage_sizes} blocks "
        f"in its stages and {architecture.num_classes} classes:",
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
    """Returns the width that most arrays of a stage have; the original's if there are none."""
    indicative = re.compile(
        rf"params/stage{stage}_block"
        r"(\d+/conv3/kernel|0/shortcut_conv/kernel|[1-9]\d*/norm1/(scale|bias))"
    )
    widths = [shape[-1] for name, shape in shapes.items() if indicative.fullmatch(name) and shape]
    if widths:  # by majority, so that one misshapen array is reported rather than all others
        return max(sorted(set(widths)), key=widths.count)
    return STAGE_WIDTHS[min(stage, len(STAGE_WIDTHS) - 1)]
