# SPDX-License-Identifier: BSD-3-Clause
"""Figures for the notebooks: images with captions or tags, filters, and tables of classes.

Each function returns a new figure, which a notebook shows as the last value of a cell and a
script saves with `figure.savefig(path)`.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlimages_jax.files.escaping import one_line
from mlimages_jax.inference.tagging import Tag
from mlimages_jax.labels.hierarchy import Hierarchy

_DOTS_PER_INCH = 110
# Distinguishable with any kind of colour vision, and in greyscale.
_BLUE, _GREY = "#56b4e9", "#666666"
_STYLE: dict[Any, Any] = {
    "figure.dpi": _DOTS_PER_INCH,
    "font.size": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}
_PATH_WIDTH = 84  # characters
_SIDE = 192  # pixels; more than any figure here gives an image


def tagged_images(images: Sequence[np.ndarray], tags: Sequence[Sequence[Tag]]) -> Figure:
    """Shows each image with its tags on the right: score as a bar, name, and path to the root.

    Args:
        images: Arrays uint8 [H, W, 3], RGB, of any size.
        tags: The tags of each image, best first.

    Raises:
        ValueError: If there are no images, or `tags` has another length than `images`.
    """
    _check_lengths(images, tags)
    most = max(4, *map(len, tags), 0)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.5, (0.29 * most + 0.1) * len(images)), layout="constrained")
        grid = figure.subplots(len(images), 2, squeeze=False, width_ratios=(0.29 * most, 7.1))
        for (left, right), image, row in zip(grid, images, tags, strict=True):
            _show(left, image)
            right.set_axis_off()
            right.set(xlim=(0, 6), ylim=(most - 0.45, -0.55))
            for y, tag in enumerate(row):
                _write_tag(right, tag, y)
    return figure


def image_grid(
    images: Sequence[np.ndarray], captions: Sequence[str], *, columns: int = 6, width: float = 8.5
) -> Figure:
    """Shows images in a grid, each with a caption below, which may have several lines.

    Args:
        images: Arrays uint8 [H, W, 3], RGB, of any size.
        captions: One caption per image.
        columns: Number of images per row.
        width: Width of the figure in inches.

    Raises:
        ValueError: If there are no images, or `captions` has another length than `images`.
    """
    _check_lengths(images, captions)
    letters = int(13 * width / columns)  # 13 letters of 8 points fit into an inch
    wrapped = [_wrap(caption, letters) for caption in captions]
    lines = 1 + max(caption.count("\n") for caption in wrapped)
    rows = math.ceil(len(images) / columns)
    with matplotlib.rc_context({**_STYLE, "font.size": 8}):
        height = rows * (width / columns + 0.14 * lines)
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, caption in zip(grid.flat, images, wrapped, strict=False):
            _show(axes, image)
            # parse_math, because a pair of dollar signs in a name would be taken for a formula.
            axes.set_title(caption, y=0, pad=-5, va="top", fontsize=8, parse_math=False)
    return figure


def filter_grid(kernel: np.ndarray, *, columns: int = 16) -> Figure:
    """Shows the filters of a first convolution as small images, grey where a weight is 0.

    Each filter is scaled on its own, so that its largest weight is black, white or a full colour.

    Args:
        kernel: Array [K, K, 3, N], as in `params["stem"]["kernel"]`.
        columns: Number of filters per row.

    Raises:
        ValueError: If the kernel has another shape.
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.ndim != 4 or kernel.shape[2] != 3 or not kernel.size:
        raise ValueError(f"kernel {kernel.shape} must be [K, K, 3, N]")
    side, count = kernel.shape[0], kernel.shape[-1]
    columns = min(columns, count)
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    filters = 0.5 + 0.5 * kernel / np.maximum(largest, 1e-12)
    with matplotlib.rc_context(_STYLE):
        rows = math.ceil(count / columns)
        figure = Figure(figsize=(0.52 * columns, 0.52 * rows))
        figure.subplots_adjust(0, 0, 1, 1, wspace=0.1, hspace=0.1)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for number, axes in zip(range(count), grid.flat, strict=False):
            axes.imshow(filters[..., number], interpolation="nearest", extent=(0, side, 0, side))
    return figure


def similarity_table(features: np.ndarray, images: Sequence[np.ndarray]) -> Figure:
    """Shows the cosine similarities of features, with the images along both axes.

    Args:
        features: Array [n, F].
        images: Arrays uint8 [H, W, 3], RGB, one per row of `features`.

    Raises:
        ValueError: If there are no images, or `features` has another length than `images`.
    """
    _check_lengths(images, features)
    count = len(images)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.maximum(lengths, 1e-12)
    cosines = directions @ directions.T
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(0.75 * count + 0.75,) * 2)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(cosines, cmap="Blues", vmin=min(0.0, cosines.min()), vmax=1)
        _write_cells(axes, cosines, [[f"{value:.2f}" for value in row] for row in cosines])
        for index, image in enumerate(images):
            square = _square(image)
            for x, y in ((index, -1), (-1, index)):
                axes.imshow(square, extent=(x - 0.45, x + 0.45, y + 0.45, y - 0.45))
        axes.set(xlim=(-1.5, count - 0.5), ylim=(count - 0.5, -1.5))
    return figure


def confusion_table(counts: np.ndarray, names: Sequence[str], *, most: int = 12) -> Figure:
    """Shows how many images of each class (row) were predicted as each class (column).

    Args:
        counts: Integers [C, C].
        names: Names of the C classes.
        most: Number of classes to show; if there are more, those with the most mistakes in their
            row and column.

    Raises:
        ValueError: If the shape of `counts` is not [C, C].
    """
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"counts {counts.shape} must be [{len(names)}, {len(names)}]")
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:most])
    part = counts[np.ix_(shown, shown)]
    fractions = part / np.maximum(counts[shown].sum(axis=1, keepdims=True), 1)
    labels = [_first_name(names[i]) for i in shown]
    side = 0.4 * len(shown) + 1.6
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot(xlabel="predicted", ylabel="true")
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        _write_cells(
            axes, fractions, [[f"{value:,}" if value else "" for value in r] for r in part]
        )
        axes.set_xticks(range(len(shown)), labels, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(shown)), labels, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        edges = np.arange(len(shown) - 1) + 0.5
        axes.hlines(edges, -0.5, len(shown) - 0.5, color="#dddddd", linewidth=0.5)
        axes.vlines(edges, -0.5, len(shown) - 0.5, color="#dddddd", linewidth=0.5)
    return figure


def bars(values: Mapping[str, float], *, label: str, most: int = 20) -> Figure:
    """Draws a horizontal bar with its value for each name, in the given order.

    Args:
        values: Non-negative numbers by name.
        label: Label of the axis, with the unit.
        most: Number of bars to show, from the first.

    Raises:
        ValueError: If `values` is empty.
    """
    names = list(values)[:most]
    if not names:
        raise ValueError("there are no values to draw")
    numbers = [values[name] for name in names]
    if rest := len(values) - len(names):
        label = f"{label} ({rest:,} more rows not shown)"
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.5, 0.25 * len(names) + 0.6), layout="constrained")
        axes = figure.add_subplot(xlabel=label)
        drawn = axes.barh(range(len(names)), numbers, color=_BLUE, height=0.75)
        axes.bar_label(drawn, [f"{number:,}" for number in numbers], padding=3, fontsize=8)
        axes.set_yticks(range(len(names)), [_first_name(name) for name in names], parse_math=False)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.15 * max(*numbers, 1e-12)))
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def outline(
    hierarchy: Hierarchy, numbers: np.ndarray, *, depth: int = 3, most: int = 4
) -> list[str]:
    """Formats the hierarchy as an indented list, with a number for each class.

    Args:
        hierarchy: A hierarchy of C classes.
        numbers: Array [C]; siblings are listed by descending number.
        depth: Number of levels to show below the roots.
        most: Number of roots to show, and of children of each class.
    """
    lines: list[str] = []

    def write(classes: np.ndarray, level: int) -> None:
        ranked = classes[np.argsort(-numbers[classes], kind="stable")]
        for index in ranked[:most].tolist():
            name = "   " * level + _first_name(hierarchy.names[index])
            lines.append(f"{name:<40}{numbers[index]:>12,}")
            if level < depth:
                write(hierarchy.children(index), level + 1)
        if len(ranked) > most:
            lines.append("   " * level + f"... {len(ranked) - most:,} more")

    write(hierarchy.roots, 0)
    return lines


def _check_lengths(images: Sequence[np.ndarray], others: Sequence[Any] | np.ndarray) -> None:
    if not len(images) or len(images) != len(others):
        raise ValueError(
            f"{len(images)} images but {len(others)} entries to show with them: give one entry per "
            "image, and at least one image"
        )


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.set_axis_off()
    axes.imshow(_square(image))


def _square(image: np.ndarray) -> np.ndarray:
    """Centres the image on a white square of _SIDE, so that all images take the same space."""
    scale = _SIDE / max(image.shape[:2])
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=kind
    )
    return square


def _write_tag(axes: Axes, tag: Tag, y: int) -> None:
    """Draws the score as a bar from 0 to 1, the name, and below it the path if there is one."""
    axes.barh(y, 1, color="#eeeeee", height=0.6)
    axes.barh(y, tag.score, color=_BLUE, height=0.6)
    axes.text(0.5, y, f"{tag.score:.2f}", ha="center", va="center", fontsize=8)
    name = textwrap.shorten(one_line(tag.name), 60, placeholder=" ...")
    if len(tag.path) == 1:
        axes.text(1.12, y, name, va="center", parse_math=False)
        return
    axes.text(1.12, y + 0.02, name, va="bottom", parse_math=False)
    path = _shortened([_first_name(step) for step in tag.path])
    axes.text(1.12, y + 0.06, path, va="top", fontsize=7, color=_GREY, parse_math=False)


def _shortened(path: list[str]) -> str:
    """Joins the steps of a path; a long path loses steps from its middle."""
    text = " > ".join(path)
    left_out = 0
    while len(text) > _PATH_WIDTH and left_out < len(path) - 2:
        left_out += 1
        middle = (len(path) - left_out) // 2
        text = " > ".join([*path[:middle], "...", *path[middle + left_out :]])
    return textwrap.shorten(text, _PATH_WIDTH + 6, placeholder=" ...")


def _first_name(name: str) -> str:
    return textwrap.shorten(one_line(name.split(",")[0]), 32, placeholder=" ...")


def _wrap(caption: str, letters: int) -> str:
    """Wraps each line of the caption on its own, so that its line breaks are kept."""
    lines = map(one_line, caption.split("\n"))
    return "\n".join("\n".join(textwrap.wrap(line, letters)) for line in lines)


def _write_cells(axes: Axes, values: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """Writes a text into each cell of a table, in white on dark cells."""
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value > 0.6 else "black"  # Blues is darker than mid-grey from here on
        axes.text(column, row, texts[row][column], ha="center", va="center", color=color)
