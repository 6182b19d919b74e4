# SPDX-License-Identifier: BSD-3-Clause
"""The header X-Robots-Tag: owners of images who do not want them in a set say so there.

Search engines defined it (noindex); artists' sites add noai and noimageai. img2dataset honours the
same words. A word may be meant for one robot only, whose name and a colon stand before it.
"""

import re
from collections.abc import Collection, Iterable

_NO = {"noai", "noimageai", "noindex", "noimageindex", "none"}  # none: noindex and nofollow
# Directives that have a value, so that what stands before the colon is no robot.
_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
_ROBOT = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z/-]+)\s*:(.*)", re.DOTALL)
# Who collects images for training is known by this name to the owners of sites.
_ALWAYS_OURS = ("*", "img2dataset")


def names_of(user_agent: str) -> frozenset[str]:
    """The robots that we are: by the first word of our User-Agent, and by what we do."""
    product = re.split(r"[/\s]", user_agent.strip(), maxsplit=1)[0].lower()
    return frozenset(name for name in (product, *_ALWAYS_OURS) if name)


def refusal(headers: Iterable[str], *, names: Collection[str]) -> str | None:
    """The word by which the owner of an image keeps it out of sets, or None.

    Args:
        headers: values of X-Robots-Tag; there may be several.
        names: from `names_of`.
    """
    for header in headers:
        for_us = True  # until a robot is named
        for part in re.split("[,;]", header):
            match = _ROBOT.fullmatch(part)
            if match and match[1].lower() in _WITH_VALUE:
                continue
            if match:
                for_us, part = match[1].lower() in names, match[2]
            if for_us and (words := _NO.intersection(part.lower().split())):
                return min(words)
    return None
