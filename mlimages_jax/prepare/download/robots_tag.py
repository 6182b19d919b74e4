# SPDX-License-Identifier: BSD-3-Clause
"""The X-Robots-Tag header, by which owners opt their images out of data sets.

Search engines defined it (noindex); artists' sites added noai and noimageai. img2dataset honours
the same directives. A directive may be limited to one robot by the robot's name and a colon.
"""

import re
from collections.abc import Collection, Iterable

_NO = {"noai", "noimageai", "noindex", "noimageindex", "none"}  # none: noindex and nofollow
# Directives with a value: here the word before the colon is not the name of a robot.
_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
_ROBOT = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z/-]+)\s*:(.*)", re.DOTALL)
# Site owners know programs that collect training images by this name.
_ALWAYS_OURS = ("*", "img2dataset")


def names_of(user_agent: str) -> frozenset[str]:
    """Returns the robot names we answer to: ours from the User-Agent, and `_ALWAYS_OURS`."""
    product = re.split(r"[/\s]", user_agent.strip(), maxsplit=1)[0].lower()
    return frozenset(name for name in (product, *_ALWAYS_OURS) if name)


def refusal(headers: Iterable[str], *, names: Collection[str]) -> str | None:
    """Returns the directive that opts an image out of data sets, or None.

    Args:
        headers: Values of X-Robots-Tag; a response may have several.
        names: Our robot names, from `names_of`.
    """
    for header in headers:
        for_us = True  # directives before any robot name apply to all robots
        for part in re.split("[,;]", header):
            match = _ROBOT.fullmatch(part)
            if match and match[1].lower() in _WITH_VALUE:
                continue
            if match:
                for_us, part = match[1].lower() in names, match[2]
            if for_us and (words := _NO.intersection(part.lower().split())):
                return min(words)
    return None
