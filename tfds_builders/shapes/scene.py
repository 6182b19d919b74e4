# SPDX-License-Identifier: BSD-3-Clause
"""Draws at random what is in an image, and derives its tags.

Lengths are in units of the image's side: (0, 0) is the top left corner and (1, 1) the bottom
right one. An image depends on (seed, split, index) alone, not on images drawn before it.
"""

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from tfds_builders.shapes.classes import parent

RGB = tuple[float, float, float]
Key = TypeVar("Key", str, int, str | None)

SPLITS = ("train", "val")

# In percent. The tail is longest among the colours, which can be learnt from few examples.
_COUNTS = {0: 4, 1: 52, 2: 33, 3: 11}
_SHAPES = {
    "disc": 14, "square": 13, "triangle": 12, "ring": 11, "star": 10,
    "cross": 9, "heart": 9, "crescent": 8, "arrow": 7, "hourglass": 7,
}  # fmt: skip
_COLORS = {
    "red": 26, "blue": 19, "yellow": 15, "green": 12, "white": 9,
    "orange": 8, "black": 5, "violet": 4, "turquoise": 2,
}  # fmt: skip
_SIZES = {"small": 52, "large": 44, "in between": 4}
_PATTERNS = {None: 42, "stripes": 25, "dots": 17, "checks": 10, "grid": 6}

_HUES = {
    "red": 0, "orange": 28, "yellow": 56, "green": 125,
    "turquoise": 178, "blue": 223, "violet": 282,
}  # fmt: skip
_HUE_JITTER = 5.0  # degrees; the closest two hues are 28 degrees apart

# Radius of the circle around an object. The gap between small and large leaves room for the
# enlargement by a crop of 70% of the area: 1.2 times.
_RADII = {"small": (0.165, 0.19), "in between": (0.21, 0.23), "large": (0.25, 0.3)}
_MARGIN = 0.08  # distance from the border, which crops remove
_CLOSEST = 0.82  # as a fraction of the sum of two radii: objects may touch and overlap a little
_THROWS = 60
_LEAN = math.radians(10)  # with arbitrary angles, learning shapes takes far more than a few epochs

_PALE_FRACTION = 0.10
_PALE = 0.35  # fraction of white in a pale colour

PALE_CONFIDENCE = 0.9
HIDDEN_CONFIDENCE = 0.8
HIDDEN_FRACTION = 0.03  # fraction of an object's area; its shape is less certain from here on
UNKNOWN = -1.0


@dataclass(frozen=True)
class Thing:
    """An object; `color` and `shape` are class keys, `angle` is in radians."""

    shape: str
    color: str
    size: str
    pale: bool
    rgb: RGB
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Background:
    """A muted ground with a pattern in a second tone; `period` is the distance of its repeats."""

    pattern: str | None
    ground: RGB
    tone: RGB
    period: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """A background and up to three objects, the nearest one last."""

    background: Background
    things: tuple[Thing, ...]


def compose(seed: int, split: str, index: int) -> Scene:
    """Draws the content of one image at random."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    count = _pick(rng, _COUNTS)
    things: list[Thing] = []
    for _ in range(count):
        thing = _place(rng, things)
        if thing is not None:  # a crowded image has fewer objects
            things.append(thing)
    return Scene(_background(rng, must_show=not things), tuple(things))


def tags(scene: Scene, hidden: Sequence[float]) -> dict[str, float]:
    """Returns the confidence of every class in the image, ancestors included.

    Args:
        scene: The content of the image.
        hidden: Fraction of each object's area that nearer objects hide, [len(scene.things)].

    Returns:
        Confidence by class key: 1 when clear, 0.9 for a pale colour, 0.8 for a partly hidden shape,
        and -1 (unknown) for a size that no object has if some object is between large and small.
        Several objects of a class give it their maximum confidence; a class has at least the
        confidence of its children.
    """
    found: dict[str, float] = {}
    for thing, fraction in zip(scene.things, hidden, strict=True):
        _raise(found, thing.shape, HIDDEN_CONFIDENCE if fraction >= HIDDEN_FRACTION else 1.0)
        _raise(found, thing.color, PALE_CONFIDENCE if thing.pale else 1.0)
        _raise(found, "size" if thing.size == "in between" else thing.size, 1.0)
    if any(thing.size == "in between" for thing in scene.things):
        for size in ("large", "small"):
            found.setdefault(size, UNKNOWN)
    if scene.background.pattern is not None:
        _raise(found, scene.background.pattern, 1.0)
    return found


def _raise(found: dict[str, float], key: str, confidence: float) -> None:
    """Raises the confidence of a class and its ancestors to at least this value."""
    above: str | None = key
    while above is not None:
        found[above] = max(confidence, found.get(above, confidence))
        above = parent(above)


def _place(rng: Generator, others: Sequence[Thing]) -> Thing | None:
    """Returns a random object that hardly covers the others, or None if it finds no place."""
    shape, color, size = _pick(rng, _SHAPES), _pick(rng, _COLORS), _pick(rng, _SIZES)
    pale = bool(rng.random() < _PALE_FRACTION) and color in _HUES
    rgb = _object_color(rng, color, pale=pale)
    radius = float(rng.uniform(*_RADII[size]))
    angle = float(rng.uniform(-_LEAN, _LEAN))
    # All throws at once, so that what is drawn next does not depend on how many were needed.
    for x, y in rng.uniform(_MARGIN + radius, 1 - _MARGIN - radius, (_THROWS, 2)).tolist():
        if all(
            math.hypot(x - other.x, y - other.y) >= _CLOSEST * (radius + other.radius)
            for other in others
        ):
            return Thing(shape, color, size, pale, rgb, x, y, radius, angle)
    return None


def _object_color(rng: Generator, color: str, *, pale: bool) -> RGB:
    """Returns a saturated colour, a pale variant, near-white or near-black; RGB in [0, 1]."""
    jitter, shade = float(rng.uniform(-_HUE_JITTER, _HUE_JITTER)), float(rng.uniform(0, 0.08))
    if color == "white":
        return (1 - shade / 2,) * 3
    if color == "black":
        return (shade,) * 3
    saturation = (0.96 - shade) * (1 - _PALE * pale)
    return colorsys.hsv_to_rgb((_HUES[color] + jitter) % 360 / 360, saturation, 0.98 - shade)


def _background(rng: Generator, *, must_show: bool) -> Background:
    """Returns two muted tones of one hue; medium brightness lets black, white and colours show."""
    fractions = {
        key: fraction for key, fraction in _PATTERNS.items() if key is not None or not must_show
    }
    hue, saturation = float(rng.uniform()), float(rng.uniform(0.05, 0.2))
    dark = float(rng.uniform(0.55, 0.68))
    tones = [dark, dark + float(rng.uniform(0.12, 0.16))]
    rng.shuffle(tones)
    ground, tone = (colorsys.hsv_to_rgb(hue, saturation, value) for value in tones)
    period, angle = float(rng.uniform(0.14, 0.2)), float(rng.uniform(0, math.tau))
    return Background(_pick(rng, fractions), ground, tone, period, angle)


def _pick(rng: Generator, fractions: Mapping[Key, float]) -> Key:
    keys = list(fractions)
    ends = np.cumsum([fractions[key] for key in keys])
    return keys[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]
