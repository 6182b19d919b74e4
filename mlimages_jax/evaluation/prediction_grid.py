# SPDX-License-Identifier: BSD-3-Clause
"""Draws a PNG of images with what a model predicts: hits, false alarms and misses."""

import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.records import (
    DamagedRecordError,
    RandomAccess,
    Record,
    parse_record,
    record_at,
)
from mlimages_jax.distributed.sharding import local_rows
from mlimages_jax.evaluation.evaluate import Evaluation, Weights
from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels.hierarchy import Hierarchy

_TAGS = 5  # shown per image
_IMAGE_SIZE = 128
_LIKELY = 0.5
_MIN_WIDTH = 180  # pixels; smaller images are enlarged to leave room for the tags below
_GAP = 12
_FONT_SIZE = 12
_LINE_HEIGHT = 18
# The signs distinguish them too, for readers who cannot see the colours.
_HIT, _FALSE_ALARM, _MISS = (
    ("\N{CHECK MARK}", (0, 125, 60)), ("\N{BALLOT X}", (205, 30, 30)), ("?", (176, 96, 0)),
)  # fmt: skip
_LEGEND = (
    (_HIT, "hit: predicted and true"), (_FALSE_ALARM, "false alarm: predicted, not true"),
    (_MISS, "miss: true, not predicted"),
)  # fmt: skip

_Line = tuple[str, str, tuple[int, int, int]]  # text that may be truncated, the rest, colour


def write_grid(
    path: epath.Path,
    evaluation: Evaluation,
    weights: Weights,
    hierarchy: Hierarchy,
    *,
    probabilities: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    count: int = 24,
) -> None:
    """Draws images spaced evenly over the data set, with true and predicted tags.

    Args:
        path: Path of the PNG.
        evaluation: Supplies the records, the view and the model.
        weights: Parameters and running statistics.
        hierarchy: Names and ancestors of the classes.
        probabilities: Converts logits [n, C] to probabilities [n, C].
        threshold: Minimum confidence of a true label.
        count: Number of images in the grid.
    """
    # Evenly spaced: neighbouring records often come from one folder or class.
    positions = np.linspace(0, len(evaluation.records) - 1, count).round().astype(int)
    serialised = list(_readable(evaluation.records, sorted(set(positions.tolist()))))
    if not serialised:
        return
    logits = np.concatenate(
        [local_rows(outputs["logits"]) for outputs in evaluation.outputs(weights, serialised)]
    )
    view = EvaluationView(_IMAGE_SIZE, "whole")
    images, true_tags, predicted_tags = [], [], []
    # Not strict: the last batch is padded, so there may be more rows than records.
    for data, row in zip(serialised, probabilities(logits), strict=False):
        record = parse_record(data)
        try:
            images.append(view(record.jpeg))
        except BadImage:
            continue
        true_tags.append(_true_names(record, hierarchy, threshold=threshold))
        # Any positive confidence: a doubtful label must not make its prediction a false alarm.
        true = set(record.labels[record.confidences > 0].tolist())
        predicted_tags.append(
            [
                (hierarchy.names[i], float(row[i]), i in true)
                for rank, i in enumerate(specific_classes(row, hierarchy, count=_TAGS))
                if rank == 0 or row[i] >= _LIKELY
            ]
        )
    if images:
        save_grid(path, np.stack(images), true_tags=true_tags, predicted_tags=predicted_tags)


def _readable(records: RandomAccess, positions: Sequence[int]) -> Iterator[bytes]:
    """Yields the records that are not damaged; the evaluation has already counted the others."""
    for position in positions:
        try:
            record_at(records, position)
        except DamagedRecordError:
            continue
        yield records[position]


def specific_classes(probabilities: np.ndarray, hierarchy: Hierarchy, *, count: int) -> list[int]:
    """Returns the most probable classes, best first, without ancestors of a probable class.

    Args:
        probabilities: Floats [C].
        hierarchy: A hierarchy of the C classes.
        count: Maximum number of classes to return.
    """
    implied = {
        int(ancestor)
        for i in np.flatnonzero(probabilities >= _LIKELY)
        for ancestor in hierarchy.ancestors(int(i))
    }
    # Stable, so that ties go to the lower index and a figure can be reproduced.
    ranked = np.argsort(-probabilities, kind="stable").tolist()
    return [i for i in ranked if i not in implied][:count]


def _true_names(record: Record, hierarchy: Hierarchy, *, threshold: float) -> list[str]:
    """Returns the names of the true labels, without ancestors of a true label."""
    confidences = np.zeros(len(hierarchy))
    confidences[record.labels] = record.confidences
    specific = specific_classes(confidences, hierarchy, count=_TAGS)
    return [hierarchy.names[i] for i in specific if confidences[i] >= threshold]


def save_grid(
    path: epath.PathLike,
    images: np.ndarray,
    *,
    true_tags: Sequence[Sequence[str]],
    predicted_tags: Sequence[Sequence[tuple[str, float, bool]]],
    columns: int = 6,
) -> epath.Path:
    """Writes the grid, below a legend.

    Args:
        path: Path of the PNG; missing folders are created.
        images: Array uint8 [n, H, W, 3], RGB.
        true_tags: Names of the true tags of each of the n images.
        predicted_tags: (name, score, is correct) of each image's predictions, in display order.
            True tags that are not among them are misses.
        columns: Number of images per row.

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
    legend = [(f"{sign} {text}", "", colour) for (sign, colour), text in _LEGEND]
    side_by_side = columns > 2  # wide enough for one line
    first = 2 * _GAP + _LINE_HEIGHT * (1 if side_by_side else len(legend))
    grid = Image.new("RGB", (total_width, first + sum(row_heights)), "white")
    for number, line in enumerate(legend):
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
