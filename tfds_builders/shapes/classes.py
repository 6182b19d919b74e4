# SPDX-License-Identifier: BSD-3-Clause
"""The 40 classes of the drawn images, in four trees.

All classes but one kind survive the augmentation of pretraining: shapes and patterns keep their
class when rotated or mirrored, and the two sizes when a crop enlarges them, but a shift of the hue
turns one colour into another.
"""

import numpy as np

from mlimages_jax.labels.hierarchy import Hierarchy

# Stable id, key of the parent, synonyms (the first one is the key). Parents come before children;
# a class keeps its id when rows are moved or added.
_TABLE: tuple[tuple[str, str | None, str], ...] = (
    ("x00000001", None, "shape, form"),
    ("x00000002", None, "color, colour, hue"),
    ("x00000003", None, "size, magnitude"),
    ("x00000004", None, "pattern, texture"),
    ("x00000005", "shape", "curved figure"),
    ("x00000006", "shape", "polygon, polygonal shape"),
    ("x00000007", "color", "chromatic color, spectral colour"),
    ("x00000008", "color", "achromatic color, neutral colour"),
    ("x00000009", "size", "large, big"),
    ("x00000010", "size", "small, little"),
    ("x00000011", "pattern", "lined pattern"),
    ("x00000012", "pattern", "tiled pattern"),
    ("x00000013", "curved figure", "round figure, rotund shape"),
    ("x00000014", "curved figure", "crescent, moon, lune"),
    ("x00000015", "curved figure", "heart"),
    ("x00000016", "polygon", "convex polygon"),
    ("x00000017", "polygon", "concave polygon"),
    ("x00000018", "chromatic color", "warm color, warm colour"),
    ("x00000019", "chromatic color", "cool color, cool colour"),
    ("x00000020", "achromatic color", "white, whiteness"),
    ("x00000021", "achromatic color", "black, blackness"),
    ("x00000022", "lined pattern", "stripes, stripe, streak"),
    ("x00000023", "lined pattern", "grid, lattice"),
    ("x00000024", "tiled pattern", "checks, checkerboard, chequer"),
    ("x00000025", "tiled pattern", "dots, polka dots"),
    ("x00000026", "round figure", "disc, disk, circle"),
    ("x00000027", "round figure", "ring, annulus, doughnut"),
    ("x00000028", "convex polygon", "triangle, trigon"),
    ("x00000029", "convex polygon", "square, foursquare"),
    ("x00000030", "concave polygon", "star, pentagram"),
    ("x00000031", "concave polygon", "cross, plus sign"),
    ("x00000032", "concave polygon", "arrow, pointer"),
    ("x00000033", "concave polygon", "hourglass, bow tie"),
    ("x00000034", "warm color", "red, redness"),
    ("x00000035", "warm color", "orange, orangeness"),
    ("x00000036", "warm color", "yellow, yellowness"),
    ("x00000037", "cool color", "green, greenness"),
    ("x00000038", "cool color", "turquoise, cyan"),
    ("x00000039", "cool color", "blue, blueness"),
    ("x00000040", "cool color", "violet, purple"),
)

INDEX: dict[str, int] = {names.split(",")[0]: index for index, (_, _, names) in enumerate(_TABLE)}
"""Class index by key."""

HIERARCHY = Hierarchy(
    ids=tuple(identifier for identifier, _, _ in _TABLE),
    names=tuple(names for _, _, names in _TABLE),
    parents=np.array([-1 if above is None else INDEX[above] for _, above, _ in _TABLE], np.int32),
)


def parent(key: str) -> str | None:
    """Returns the key of the parent class, or None for a root."""
    return _TABLE[INDEX[key]][1]
