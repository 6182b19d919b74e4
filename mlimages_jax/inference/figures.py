# SPDX-License-Identifier: BSD-3-Clause
"""Figures that the notebooks show: images with captions or tags, filters, tables of classes.

Each function returns a figure of its own, which a notebook shows as the last value of a cell and a
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
# Told apart in every kind of colour vision, and in grey.
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
_PATH_WIDTH = 84  # letters
_SIDE = 192  # pixels of an image that is shown, more than there is room for


def tagged_images(images: Sequence[np.ndarray], tags: Sequence[Sequence[Tag]]) -> Figure:
    """Each image with its tags to the right: score as a bar, name, path through the hierarchy.

    Args:
        images: uint8 [H, W, 3], RGB, of any sizes.
        tags: of each image, best first.

    Raises:
        ValueError: there are no images, or not as many as lists of tags.
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
            for place, tag in enumerate(row):
                _write_tag(right, tag, place)
    return figure


def image_grid(
    images: Sequence[np.ndarray], captions: Sequence[str], *, columns: int = 6, width: float = 8.5
) -> Figure:
    """Images side by side, each with a caption below, which may have several lines.

    Args:
        images: uint8 [H, W, 3], RGB, of any sizes.
        captions: of each image.
        columns: images in a row.
        width: of the figure in inches.

    Raises:
        ValueError: there are no images, or not as many as captions.
    """
    _check_lengths(images, captions)
    letters = int(13 * width / columns)
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
            axes.set_title(caption, y=0, pad=-5, va="top", fontsize=8, parse_math=False)
    return figure


def filter_grid(kernel: np.ndarray, *, columns: int = 16) -> Figure:
    """The filters of a first convolution as small images, grey where they are 0.

    Each is scaled by itself, so that its largest weight is black, white or a full colour.

    Args:
        kernel: [K, K, 3, N], as in `params["stem"]["kernel"]`.
        columns: filters in a row.

    Raises:
        ValueError: another shape.
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
    """Cosines between the features of images, with the images along both sides.

    Args:
        features: [n, F].
        images: uint8 [H, W, 3], RGB, one for each row.

    Raises:
        ValueError: there are no images, or not as many as features.
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
        for place, image in enumerate(images):
            square = _square(image)
            for x, y in ((place, -1), (-1, place)):
                axes.imshow(square, extent=(x - 0.45, x + 0.45, y + 0.45, y - 0.45))
        axes.set(xlim=(-1.5, count - 0.5), ylim=(count - 0.5, -1.5))
    return figure


def confusion_table(counts: np.ndarray, names: Sequence[str], *, most: int = 12) -> Figure:
    """How many images of a class (row) were taken for which class (column).

    Args:
        counts: int [C, C].
        names: of the C classes.
        most: classes to show; of more, those with the most mistakes in row and column.

    Raises:
        ValueError: counts are not [C, C].
    """
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"counts {counts.shape} must be [{len(names)}, {len(names)}]")
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:most])
    part = counts[np.ix_(shown, shown)]
    shares = part / np.maximum(counts[shown].sum(axis=1, keepdims=True), 1)
    labels = [_first_name(names[i]) for i in shown]
    side = 0.4 * len(shown) + 1.6
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot(xlabel="predicted", ylabel="true")
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        _write_cells(axes, shares, [[f"{value:,}" if value else "" for value in r] for r in part])
        axes.set_xticks(range(len(shown)), labels, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(shown)), labels, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        edges = np.arange(len(shown) - 1) + 0.5
        axes.hlines(edges, -0.5, len(shown) - 0.5, color="#dddddd", linewidth=0.5)
        axes.vlines(edges, -0.5, len(shown) - 0.5, color="#dddddd", linewidth=0.5)
    return figure


def bars(values: Mapping[str, float], *, label: str, most: int = 20) -> Figure:
    """A horizontal bar for each name, in the given order, with its number.

    Args:
        values: numbers from 0 on, by name.
        label: of the axis, with the unit.
        most: bars to show, the first ones.

    Raises:
        ValueError: there are no values.
    """
    names = list(values)[:most]
    if not names:
        raise ValueError("there are no values to draw")
    numbers = [values[name] for name in names]
    if rest := len(values) - len(names):
        label = f"{label} ({rest:,} more rows are left out)"
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
    """Lines of the hierarchy as an indented list, with a number for each class.

    Args:
        hierarchy: of C classes.
        numbers: [C]; of the classes below one, those with the largest numbers come first.
        depth: levels below the roots.
        most: classes to show below each, and roots.
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
            f"{len(images)} images and {len(others)} of what belongs to them: give one for each "
            "image, and at least one image"
        )


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.set_axis_off()
    axes.imshow(_square(image))


def _square(image: np.ndarray) -> np.ndarray:
    """The image in the middle of a white square of _SIDE, so that all take the same room."""
    scale = _SIDE / max(image.shape[:2])
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=kind
    )
    return square


def _write_tag(axes: Axes, tag: Tag, place: int) -> None:
    """A bar from 0 to 1, the score, the name, and below it the path where there is one."""
    axes.barh(place, 1, color="#eeeeee", height=0.6)
    axes.barh(place, tag.score, color=_BLUE, height=0.6)
    axes.text(0.5, place, f"{tag.score:.2f}", ha="center", va="center", fontsize=8)
    name = textwrap.shorten(one_line(tag.name), 60, placeholder=" ...")
    if len(tag.path) == 1:
        axes.text(1.12, place, name, va="center", parse_math=False)
        return
    axes.text(1.12, place + 0.02, name, va="bottom", parse_math=False)
    path = _shortened([_first_name(step) for step in tag.path])
    axes.text(1.12, place + 0.06, path, va="top", fontsize=7, color=_GREY, parse_math=False)


def _shortened(path: list[str]) -> str:
    """The steps of a path; of a long one the first and the last ones."""
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
    """Each line of the caption in as many lines as it needs."""
    lines = map(one_line, caption.split("\n"))
    return "\n".join("\n".join(textwrap.wrap(line, letters)) for line in lines)


def _write_cells(axes: Axes, values: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """Writes into each cell of a table, white on dark ones."""
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value > 0.6 else "black"
        axes.text(column, row, texts[row][column], ha="center", va="center", color=color)
