# SPDX-License-Identifier: BSD-3-Clause
"""Draws the two figures of a label list, as wide as a column of a paper."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

_SIZE = (3.4, 2.1)  # inches
_DOTS_PER_INCH = 400  # of the PNG
# Distinguishable with every kind of colour vision, and in greyscale.
_BLUE, _LIGHT_BLUE, _ORANGE = "#0072b2", "#56b4e9", "#d55e00"
_ROUND = [1, 2, 5, 10]  # tick spacings, times powers of ten
_WITH_COMMAS = StrMethodFormatter("{x:,.0f}")
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "ytick.minor.width": 0.4,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "svg.fonttype": "none",  # text stays text: searchable, and set in the paper's font
    "svg.hashsalt": "mlimages_jax",  # makes the file reproducible
}


def images_per_class(images: np.ndarray, *, trainable_above: int) -> Figure:
    """Plots images per class on a log scale, from the most to the least frequent class.

    A log scale cannot show classes without images: they are the gap at the right end.

    Args:
        images: int [C], images by class.
        trainable_above: Where to draw the threshold, 1 or more.
    """
    counts = np.sort(images[images > 0])[::-1]
    trainable = int((counts > trainable_above).sum())
    with matplotlib.rc_context(_STYLE):
        figure, axes = _start("Classes, most frequent first", "Images per class")
        axes.set_yscale("log")
        rank = np.arange(1, len(counts) + 1)
        axes.plot(rank, counts, color=_BLUE, linewidth=1.4, drawstyle="steps-mid")
        limit = f"have more than {trainable_above:,} images"
        label = f"{trainable:,} of {len(images):,} classes\n{limit}"
        axes.axhline(trainable_above, color=_ORANGE, linewidth=1, linestyle="--", label=label)
        axes.set_xlim(0, len(images) + 1)
        axes.set_ylim(0.7, 2 * max(trainable_above, counts.max(initial=1)))
        axes.legend(loc="upper right", borderaxespad=0)
    return figure


def tags_per_image(histogram: np.ndarray) -> Figure:
    """Plots a bar for each number of tags, and the mean.

    Args:
        histogram: int [n], images with 0, 1, ... n - 1 tags.
    """
    numbers = np.arange(np.flatnonzero(histogram)[-1] + 1)
    counts = histogram[: len(numbers)]
    mean = counts @ numbers / counts.sum()
    scale, unit = _scale(counts.max())
    with matplotlib.rc_context(_STYLE):
        figure, axes = _start("Tags per image", f"Images{unit}")
        axes.bar(numbers, counts / scale, width=0.8, color=_LIGHT_BLUE)
        axes.axvline(mean, color=_ORANGE, linewidth=1, linestyle="--", label=f"mean {mean:.1f}")
        axes.set_xlim(-0.8, len(numbers) - 0.2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=_ROUND))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=not unit, steps=_ROUND))
        if not unit:
            axes.yaxis.set_major_formatter(_WITH_COMMAS)
        axes.legend(loc="upper right", borderaxespad=0)
    return figure


def save(figure: Figure, path: Path, *, kind: str) -> None:
    """Writes a figure.

    Args:
        figure: A figure of this module.
        path: Path of the file; its suffix does not matter.
        kind: png or svg.
    """
    metadata = {"Date": None} if kind == "svg" else None  # a date would make every file differ
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)


def _start(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_formatter(_WITH_COMMAS)
    return figure, axes


def _scale(largest: int) -> tuple[int, str]:
    """Returns a divisor that keeps counts short, and the unit to put on the axis."""
    if largest >= 1_000_000:
        return 1_000_000, " (millions)"
    return (1000, " (thousands)") if largest >= 10_000 else (1, "")
