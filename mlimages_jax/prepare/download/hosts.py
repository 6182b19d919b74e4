# SPDX-License-Identifier: BSD-3-Clause
"""Divides URLs into parts by their host: no host is then asked by two workers."""

import functools
import re
import zlib

from mlimages_jax.prepare.download.web_urls import BadUrlError, parse_url

# Hosts that are in their canonical form already, and no IP addresses: nearly all of a list.
_PLAIN = re.compile(
    r"https?://([a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,})(?:[/?#]|:[0-9]+(?=[/?#]|$)|$)"
)


def part_of(url: str, parts: int) -> int:
    """Returns the part (from 0) that a URL belongs to: by its host, as requests spell it.

    What is no URL, so that no host is asked, is divided by its text.
    """
    if match := _PLAIN.match(url):
        return _part_of_text(match[1], parts)
    try:
        return _part_of_text(parse_url(url).raw_host or url, parts)
    except BadUrlError:
        return _part_of_text(url, parts)


@functools.lru_cache(4096)
def _part_of_text(text: str, parts: int) -> int:
    return zlib.crc32(text.encode("utf-8", "backslashreplace")) % parts
