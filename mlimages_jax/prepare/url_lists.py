# SPDX-License-Identifier: BSD-3-Clause
"""Reads the URLs of a list, row by row: the first column of `labels.list_rows`.

A typing error must not stop a download at row 12,345,678, so an unusable row is returned with its
error instead of raising.
"""

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mlimages_jax.files.text_files import open_lines
from mlimages_jax.labels.list_rows import NUL_FOUND, SPACED_NAME, WORD

_LONGEST_LINE = 1 << 16


class UrlRow(NamedTuple):
    """A row of a URL list.

    Attributes:
        url: The URL as listed; bytes that cannot be decoded are escaped.
        error: bad_row or bad_url, or None if the URL can be fetched.
        message: What is wrong, with file and line.
    """

    url: str
    error: str | None = None
    message: str | None = None


class UrlPart(NamedTuple):
    """Part `part` (from 0) of `parts` of all URLs, by their hash.

    A URL belongs to the same part in every list.
    """

    part: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> "UrlPart":
        """Parses "2/8": part 2 of the parts 0 to 7; raises ValueError if there is no such part."""
        part, _, parts = text.partition("/")
        if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            raise ValueError(f"shard {text!r}: write i/n with i from 0 to n - 1, such as 0/8")
        return cls(int(part), int(parts))

    def has(self, url: str) -> bool:
        """Returns whether a URL belongs to this part."""
        return zlib.crc32(url.encode()) % self.parts == self.part


def iter_urls(
    paths: Sequence[Path], has: Callable[[str], bool] = lambda url: True
) -> Iterator[UrlRow]:
    """Yields the rows of several lists, one list after the other, without blank lines.

    Args:
        paths: The lists.
        has: Returns whether to yield the row of a URL; asked before the URL is checked, which takes
            most of the time.

    Raises:
        TextFileError: A list as a whole cannot be read, such as a UTF-16 file.
    """
    for path in paths:
        with open_lines(path) as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if not line.endswith(b"\n") and len(line) == _LONGEST_LINE:
                    while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
                    message = f"{path}:{number}: the line has more than {_LONGEST_LINE} bytes"
                    if has(name := f"{path.name}:{number}"):
                        yield UrlRow(name, "bad_row", message)
                elif b"\0" in line or WORD.search(line):
                    text, is_url = _first(line)
                    url = text.decode(errors="backslashreplace")
                    if has(url):
                        yield _parse(url, text, line, is_url=is_url, where=f"{path}:{number}")


def sample_urls(paths: Sequence[Path], count: int) -> Iterator[str]:
    """Yields what rows begin with, unchecked: of up to `count` rows all, else evenly spread ones.

    Raises:
        TextFileError: A list as a whole cannot be read.
    """
    step = max(1, math.ceil(count_rows(paths) / count))
    for path in paths:
        with open_lines(path) as file:
            lines = iter(functools.partial(file.readline, _LONGEST_LINE), b"")
            for line in itertools.islice(lines, 0, None, step):
                if not line.isspace():
                    yield _first(line)[0].decode(errors="backslashreplace")


def count_rows(paths: Sequence[Path]) -> int:
    """Counts the lines of the lists, blank ones included, to estimate the remaining time."""
    total = 0
    for path in paths:
        with open_lines(path) as file:
            while block := file.read(1 << 20):
                total += block.count(b"\n")
                last = block
            total += bool(file.tell()) and not last.endswith(b"\n")
    return total


def _first(line: bytes) -> tuple[bytes, bool]:
    """Returns what a line begins with, and whether it may be a URL; else the line itself."""
    match = (SPACED_NAME if b"\t" in line else WORD).match(line)
    if match is None or b"\0" in line:
        return line.strip(), False
    return match.group(), True


def _parse(url: str, text: bytes, line: bytes, *, is_url: bool, where: str) -> UrlRow:
    """Returns a row, with what is wrong with it.

    Args:
        url: The URL, or the line if that begins with none.
        text: The bytes that it was decoded from.
        line: The complete line.
        is_url: Whether the line begins with something that may be a URL.
        where: File and line.
    """
    if b"\0" in line:  # it would end the URL, as white space does: another URL than was meant
        return UrlRow(url, "bad_row", f"{where}: {NUL_FOUND}")
    if not is_url:
        message = f"{where}: the row begins with white space; put the URL first"
        return UrlRow(url, "bad_row", message)
    try:
        text.decode()
        parts = urlsplit(url)
        parts.port  # noqa: B018 raises ValueError if the port is not a number
    except ValueError as error:
        return UrlRow(url, "bad_url", f"{where}: {url!r} is not a valid URL ({error})")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return UrlRow(url, "bad_url", f"{where}: {url!r} is not an http or https URL")
    return UrlRow(url)
