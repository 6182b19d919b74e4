# SPDX-License-Identifier: BSD-3-Clause
"""Paints a scene: outlines are filled at four times the size and shrunk for smooth edges."""

import math
from collections.abc import Iterable

import cv2
import numpy as np

from tfds_builders.shapes.scene import RGB, Background, Scene, Thing

Points = np.ndarray  # float64 [..., 2], x to the right and y down
Mask = np.ndarray  # uint8 [4 size, 4 size], 0 or 255
Cover = np.ndarray  # float32 [size, size] in [0, 1]

_HALVINGS = 2
_OVERSAMPLING = 2**_HALVINGS
_SUBPIXEL_BITS = 4  # OpenCV takes fixed-point coordinates
_RIM = 0.013  # half the width of an object's outline, as a fraction of the image's side
_RIM_COLOR = (0.06, 0.06, 0.06)  # the same for all: shapes are learnt from outlines


def paint(scene: Scene, *, size: int) -> tuple[np.ndarray, list[float]]:
    """Paints the image and measures how much of each object is hidden.

    Args:
        scene: The scene to paint.
        size: Side of the image in pixels.

    Returns:
        RGB pixels, uint8 [size, size, 3], and for every object the fraction of its area that nearer
        objects hide, in [0, 1].
    """
    background = scene.background
    canvas = np.empty((3, size, size), np.float32)  # planes: NumPy is slow on short last axes
    canvas[:] = np.reshape(background.ground, (3, 1, 1))
    if background.pattern is not None:
        _blend(canvas, _pattern(background, size=size), background.tone)
    covers: list[Cover] = []
    for thing in scene.things:
        fill, rim = _object(thing, size=size)
        _blend(canvas, fill, thing.rgb)
        _blend(canvas, rim, _RIM_COLOR)
        covers.append(np.maximum(fill, rim))
    pixels = cv2.merge([np.rint(plane * 255).astype(np.uint8) for plane in canvas])
    return pixels, _hidden_fractions(covers)


def _hidden_fractions(covers: list[Cover]) -> list[float]:
    """Returns the fraction of each cover that is under later ones."""
    fractions = []
    above: Cover | np.float32 = np.float32(0)
    for cover in reversed(covers):
        fractions.append(float((cover * above).sum() / cover.sum()))
        above = np.maximum(above, cover)
    return fractions[::-1]


def _blend(canvas: np.ndarray, cover: Cover, color: RGB) -> None:
    """Blends a colour into the canvas [3, size, size], in place."""
    for plane, level in zip(canvas, color, strict=True):
        plane += cover * (np.float32(level) - plane)


def _object(thing: Thing, *, size: int) -> tuple[Cover, Cover]:
    """Returns the covers of the object and of its outline."""
    place = np.array([thing.x, thing.y])
    outline = [
        place + thing.radius * _rotated(points, thing.angle) for points in _OUTLINES[thing.shape]
    ]
    rim = _empty(size)
    width = max(1, round(2 * _RIM * size * _OVERSAMPLING))
    contours = [_fixed_point(points, size=size) for points in outline]
    cv2.polylines(rim, contours, True, 255, width, shift=_SUBPIXEL_BITS)
    return _filled(outline, size=size), _shrink(rim)


def _pattern(background: Background, *, size: int) -> Cover:
    """Returns the cover of a background's second tone; patterns extend beyond the border."""
    period, angle = background.period, background.angle
    if background.pattern == "dots":
        return _filled(_dots(period, angle), size=size)
    width = (0.2 if background.pattern == "grid" else 0.5) * period
    along = _bands(period, width, angle)
    across = _bands(period, width, angle + math.pi / 2)
    if background.pattern == "stripes":
        return _filled(along, size=size)
    if background.pattern == "checks":  # even-odd rule: the crossing of two bands is outside again
        return _filled([*along, *across], size=size)
    return np.maximum(_filled(along, size=size), _filled(across, size=size))


def _bands(period: float, width: float, angle: float) -> Iterable[Points]:
    """Returns parallel rectangles that cross the unit square, [n, 4, 2]."""
    end = 0.75  # the corners are 0.71 from the centre
    band = np.array([[-width / 2, -end], [width / 2, -end], [width / 2, end], [-width / 2, end]])
    steps = _steps(period)
    moved = band + np.stack([steps, np.zeros_like(steps)], axis=-1)[:, None]
    return 0.5 + _rotated(moved, angle)


def _dots(period: float, angle: float) -> Iterable[Points]:
    """Returns dots on a square lattice that covers the unit square, [n, 16, 2]."""
    steps = _steps(period)
    centres = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 1, 2)
    return 0.5 + _rotated(centres, angle) + _arc(0.29 * period, 0, math.tau, steps=16)


def _steps(period: float) -> np.ndarray:
    reach = math.ceil(0.75 / period)
    return period * np.arange(-reach, reach + 1)


def _filled(outline: Iterable[Points], *, size: int) -> Cover:
    """Fills the inside of contours by the even-odd rule."""
    mask = _empty(size)
    contours = [_fixed_point(points, size=size) for points in outline]
    cv2.fillPoly(mask, contours, 255, shift=_SUBPIXEL_BITS)
    return _shrink(mask)


def _empty(size: int) -> Mask:
    return np.zeros((size * _OVERSAMPLING, size * _OVERSAMPLING), np.uint8)


def _shrink(mask: Mask) -> Cover:
    """Halves twice, which is six times as fast in OpenCV as a single step by four."""
    for _ in range(_HALVINGS):
        side = mask.shape[0] // 2
        mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    return mask.astype(np.float32) * np.float32(1 / 255)


def _fixed_point(lengths: Points, *, size: int) -> np.ndarray:
    return np.rint(lengths * (size * _OVERSAMPLING * 2**_SUBPIXEL_BITS)).astype(np.int32)


def _rotated(points: Points, angle: float) -> Points:
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _arc(radius: float, start: float, end: float, *, steps: int = 64) -> Points:
    angles = np.linspace(start, end, steps, endpoint=False)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _disc() -> list[Points]:
    return [_arc(0.95, 0, math.tau)]


def _ring() -> list[Points]:
    return [_arc(1, 0, math.tau), _arc(0.52, 0, math.tau)]


def _crescent() -> list[Points]:
    """Returns the unit circle minus another circle, moved to the right by `shift`."""
    shift, bite = 0.5, 0.8
    x = (1 + shift**2 - bite**2) / (2 * shift)  # the circles cross at this x
    horn, inner_horn = math.acos(x), math.acos((x - shift) / bite)
    # Along the outer circle, then back along the inner one, so that the outline is one contour.
    outside = _arc(1, horn, math.tau - horn)
    inside = _arc(bite, math.tau - inner_horn, inner_horn) + [shift, 0]
    return [np.concatenate([outside, inside])]


def _heart() -> list[Points]:
    """Returns the well-known curve x = sin^3 t with four cosines for y, turned upright."""
    t = np.linspace(0, math.tau, 64, endpoint=False)
    x = np.sin(t) ** 3
    y = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return [np.stack([x, -y - 0.1], axis=-1)]


def _triangle() -> list[Points]:
    return [_arc(1, -math.pi / 2, 1.5 * math.pi, steps=3)]


def _square() -> list[Points]:
    return [_arc(1, -math.pi / 4, 1.75 * math.pi, steps=4)]


def _star() -> list[Points]:
    points = _arc(1, -math.pi / 2, 1.5 * math.pi, steps=10)
    points[1::2] *= 0.42
    return [points]


def _cross() -> list[Points]:
    half, tip = 0.3, 0.95
    corner = np.array([[tip, -half], [tip, half], [half, half]])
    return [np.concatenate([_rotated(corner, turn * math.pi / 2) for turn in range(4)])]


def _arrow() -> list[Points]:
    upper = np.array([[-1, -0.24], [0.05, -0.24], [0.05, -0.72]])
    return [np.concatenate([upper, [[1, 0]], upper[::-1] * [1, -1]])]


def _hourglass() -> list[Points]:
    upper = np.array([[-0.66, -0.75], [0.66, -0.75], [0.12, 0]])
    return [np.concatenate([upper, -upper])]


_OUTLINES: dict[str, list[Points]] = {
    "disc": _disc(),
    "ring": _ring(),
    "crescent": _crescent(),
    "heart": _heart(),
    "triangle": _triangle(),
    "square": _square(),
    "star": _star(),
    "cross": _cross(),
    "arrow": _arrow(),
    "hourglass": _hourglass(),
}
