# SPDX-License-Identifier: BSD-3-Clause
"""Finds classes that are colours, by their English names."""

import re
from collections.abc import Iterable

# The basic colour terms of English that have a hue (Berlin and Kay, 1969), and a few more.
_COLOURS = {
    "red", "green", "yellow", "blue", "brown", "purple", "pink", "orange",
    "cyan", "magenta", "turquoise", "violet",
}  # fmt: skip
_BESIDE = {"color", "colour", "colored", "coloured", "dark", "light", "pale"}
_WORD = re.compile(r"[^\W\d_]+")


def colours_among(names: Iterable[str]) -> list[str]:
    """Returns the names that mean a colour: "red", "yellow, yellowness", "color: dark blue".

    Not "red wine" or "blue jay", where the colour tells little of what else there is.

    Args:
        names: Names of classes, each with its synonyms, separated by commas.
    """
    return [name for name in names if any(map(_is_colour, name.split(",")))]


def _is_colour(synonym: str) -> bool:
    words = set(_WORD.findall(synonym.casefold())) - _BESIDE
    return bool(words) and words <= _COLOURS
