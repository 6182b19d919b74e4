# SPDX-License-Identifier: BSD-3-Clause
"""Draws a PNG of images with their true tags and a model's predictions."""

import io
import math
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from mlimages_jax.files.escaping import one_line

_MIN_WIDTH = 180  # pixels; smaller images are enlarged to leave room for the tags below
_GAP = 12
_FONT_SIZE = 14
_LINE_HEIGHT = 18
_GREY, _BLACK, _GREEN, _RED = (130, 130, 130), (30, 30, 30), (0, 125, 60), (205, 30, 30)

_Line = tuple[str, str, tuple[int, int, int]]  # text that may be truncated, the rest, colour


def save_grid(
    path: epath.PathLike,
    images: np.ndarray,
    *,
    true_tags: Sequence[Sequence[str]],
    predicted_tags: Sequence[Sequence[tuple[str, float, bool]]],
    columns: int = 6,
) -> epath.Path:
    """Writes the grid.

    Args:
        path: Path of the PNG; missing folders are created.
        images: Array uint8 [n, H, W, 3], RGB.
        true_tags: Names of the true tags of each of the n images.
        predicted_tags: (name, score, is correct) of each image's predictions, in display order;
            correct ones are green, the others red.
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
    grid = Image.new("RGB", (_GAP + columns * (width + _GAP), _GAP + sum(row_heights)), "white")
    for start, top in zip(starts, _GAP + np.cumsum([0, *row_heights]), strict=False):
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
    lines: list[_Line] = [("true", "", _GREY)]
    lines += [(name, "", _BLACK) for name in true]
    lines += [("predicted", "", _GREY)]
    lines += [
        (name, f"  {score:.2f}", _GREEN if right else _RED) for name, score, right in predicted
    ]
    return lines


def _write(grid: Image.Image, lines: list[_Line], *, left: int, top: int, width: int) -> None:
    """Writes a caption; names too long for the width are truncated, scores never are."""
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(size=_FONT_SIZE)
    for number, (name, rest, color) in enumerate(lines):
        shown = text = one_line(name)
        while shown and draw.textlength(_with_ellipsis(shown, text) + rest, font=font) > width:
            shown = shown[:-1]
        corner = (left, top + number * _LINE_HEIGHT)
        draw.text(corner, _with_ellipsis(shown, text) + rest, fill=color, font=font)


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
