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
    """Returns the part (from 0) that a URL belongs to, by its host."""
    return part_of_host(host_of(url), parts)


def host_of(url: str) -> str:
    """Returns the host of a URL, as requests spell it; what is no URL, so that none is asked."""
    if match := _PLAIN.match(url):
        return match[1]
    try:
        return parse_url(url).raw_host or url
    except BadUrlError:
        return url


@functools.lru_cache(4096)
def part_of_host(host: str, parts: int) -> int:
    """Returns the part (from 0) that a host belongs to, given as `host_of` returns it."""
    return zlib.crc32(host.encode("utf-8", "backslashreplace")) % parts
