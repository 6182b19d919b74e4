# SPDX-License-Identifier: BSD-3-Clause
"""Draws a PNG of images with what a model predicts: hits, false alarms and misses."""

import functools
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from mlimages_jax.evaluation import examples_file
from mlimages_jax.evaluation.evaluate import Evaluation, Weights
from mlimages_jax.evaluation.example_images import predicted_images
from mlimages_jax.evaluation.shown_classes import specific_classes as specific_classes
from mlimages_jax.evaluation.thumbnails import spaced
from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels.hierarchy import Hierarchy

_MORE_EXAMPLES = 72  # of examples.json; with those of the grid they fit into one usual batch
_MIN_WIDTH = 180  # pixels; smaller images are enlarged to leave room for the tags below
_GAP = 12
_FONT_SIZE = 12
_LINE_HEIGHT = 18
# The signs distinguish them too, for readers who cannot see the colours.
_HIT, _FALSE_ALARM, _MISS = (
    ("\N{CHECK MARK}", (0, 125, 60)), ("\N{BALLOT X}", (205, 30, 30)), ("?", (176, 96, 0)),
)  # fmt: skip

_Line = tuple[str, str, tuple[int, int, int]]  # text that may be truncated, the rest, colour


class Legend(NamedTuple):
    """What the signs mean; "" leaves one out of the legend.

    Attributes:
        hit: Predicted and true.
        false_alarm: Predicted, not true.
        miss: True, not predicted.
    """

    hit: str = ""
    false_alarm: str = ""
    miss: str = ""

    def lines(self) -> list[_Line]:
        """Returns a line for every sign that has a meaning."""
        marks = zip((_HIT, _FALSE_ALARM, _MISS), self, strict=True)
        return [(f"{sign} {text}", "", colour) for (sign, colour), text in marks if text]


_TRUE_AND_PREDICTED = Legend(
    "hit: predicted and true", "false alarm: predicted, not true", "miss: true, not predicted"
)


def write_grid(
    path: epath.Path,
    evaluation: Evaluation,
    weights: Weights,
    hierarchy: Hierarchy,
    *,
    probabilities: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    limits: np.ndarray | None,
    count: int = 24,
) -> None:
    """Draws images spaced evenly over the data set, with true and predicted tags.

    Beside the PNG it writes examples.json, with more images, for reports.

    Args:
        path: Path of the PNG.
        evaluation: Supplies the records, the view and the model.
        weights: Parameters and running statistics.
        hierarchy: Names and ancestors of the classes.
        probabilities: Converts logits [n, C] to probabilities [n, C].
        threshold: Minimum confidence of a true label.
        limits: Floats [C], minimum probability of a predicted class; None to predict only the most
            probable class.
        count: Number of images in the grid.
    """
    drawn = spaced(len(evaluation.records), count)
    found = predicted_images(
        evaluation,
        weights,
        hierarchy,
        probabilities=probabilities,
        threshold=threshold,
        limits=limits,
        positions=sorted({*drawn, *spaced(len(evaluation.records), _MORE_EXAMPLES)}),
    )
    if not found:
        return
    examples_file.write(
        path.with_name(examples_file.FILE_NAME), [image.example for image in found.values()]
    )
    in_grid = [found[position] for position in drawn if position in found]
    if in_grid:
        names = hierarchy.names
        save_grid(
            path,
            np.stack([image.pixels for image in in_grid]),
            true_tags=[[names[i] for i in image.example.true] for image in in_grid],
            predicted_tags=[
                [(names[i], score, right) for i, score, right in image.example.predicted]
                for image in in_grid
            ],
        )


def save_grid(
    path: epath.PathLike,
    images: np.ndarray,
    *,
    true_tags: Sequence[Sequence[str]],
    predicted_tags: Sequence[Sequence[tuple[str, float, bool]]],
    columns: int = 6,
    legend: Legend = _TRUE_AND_PREDICTED,
) -> epath.Path:
    """Writes the grid, below a legend.

    Args:
        path: Path of the PNG; missing folders are created.
        images: Array uint8 [n, H, W, 3], RGB.
        true_tags: Names of the true tags of each of the n images.
        predicted_tags: (name, score, is correct) of each image's predictions, in display order.
            True tags that are not among them are misses.
        columns: Number of images per row.
        legend: What the signs mean.

    Returns:
        `path`.

    Raises:
        ValueError: If images have another shape or dtype, there are none, lengths differ, or
            `columns` is below 1.
    """
    _check(images, true_tags=true_tags, predicted_tags=predicted_tags, columns=columns)
    captions = [
        _caption(true, predicted) for true, predicted in zip(true_tags, predicted_tags, strict=True)
    ]
    tiles = [_enlarge(Image.fromarray(image)) for image in images]
    columns = min(columns, len(tiles))
    width, height = tiles[0].size
    starts = range(0, len(tiles), columns)
    row_heights = [
        height + 2 * _GAP + _LINE_HEIGHT * max(map(len, captions[start : start + columns]))
        for start in starts
    ]
    total_width = _GAP + columns * (width + _GAP)
    meanings = legend.lines()
    side_by_side = columns > 2  # wide enough for one line
    first = 2 * _GAP + _LINE_HEIGHT * (1 if side_by_side else len(meanings))
    grid = Image.new("RGB", (total_width, first + sum(row_heights)), "white")
    for number, line in enumerate(meanings):
        left, top = (number * total_width // 3, 0) if side_by_side else (0, number * _LINE_HEIGHT)
        _write(grid, [line], left=_GAP + left, top=_GAP + top, width=total_width - 2 * _GAP)
    for start, top in zip(starts, first + np.cumsum([0, *row_heights]), strict=False):
        for column, index in enumerate(range(start, min(start + columns, len(tiles)))):
            left = _GAP + column * (width + _GAP)
            grid.paste(tiles[index], (left, int(top)))
            _write(grid, captions[index], left=left, top=int(top) + height + 4, width=width)
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    grid.save(file, format="PNG")
    path.write_bytes(file.getvalue())
    return path


def _caption(true: Sequence[str], predicted: Sequence[tuple[str, float, bool]]) -> list[_Line]:
    """Returns hits and false alarms in the order of their scores, then misses."""
    lines: list[_Line] = []
    for name, score, right in predicted:
        sign, colour = _HIT if right else _FALSE_ALARM
        lines.append((f"{sign} {name}", f"  {score:.2f}", colour))
    found = {name for name, _, right in predicted if right}
    sign, colour = _MISS
    return lines + [(f"{sign} {name}", "", colour) for name in true if name not in found]


def _write(grid: Image.Image, lines: list[_Line], *, left: int, top: int, width: int) -> None:
    """Writes a caption; names too long for the width are truncated, scores never are."""
    draw = ImageDraw.Draw(grid)
    font = _font()
    for number, (name, rest, color) in enumerate(lines):
        shown = text = one_line(name)
        # One character at a time, because the widths of a proportional font are not additive.
        while shown and draw.textlength(_with_ellipsis(shown, text) + rest, font=font) > width:
            shown = shown[:-1]
        corner = (left, top + number * _LINE_HEIGHT)
        draw.text(corner, _with_ellipsis(shown, text) + rest, fill=color, font=font)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans of matplotlib: Pillow's own font lacks Cyrillic, Greek and signs."""
    import matplotlib  # a slow import, which most tasks do not need

    file = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    return ImageFont.truetype(file, _FONT_SIZE)


def _with_ellipsis(shown: str, text: str) -> str:
    return shown if shown == text else shown.rstrip(" ,") + "…"


def _enlarge(image: Image.Image) -> Image.Image:
    factor = max(1, math.ceil(_MIN_WIDTH / image.width))
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.BICUBIC)


def _check(
    images: np.ndarray,
    *,
    true_tags: Sequence[Sequence[str]],
    predicted_tags: Sequence[Sequence[tuple[str, float, bool]]],
    columns: int,
) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size:
        raise ValueError(
            f"images are {images.dtype} {images.shape}: give uint8 [n, H, W, 3], n > 0"
        )
    if not len(images) == len(true_tags) == len(predicted_tags):
        raise ValueError(
            f"{len(images)} images, {len(true_tags)} true_tags and {len(predicted_tags)} "
            "predicted_tags: give one of each for every image"
        )
    if columns < 1:
        raise ValueError(f"columns={columns}: must be at least 1")
