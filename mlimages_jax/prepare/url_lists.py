# SPDX-License-Identifier: BSD-3-Clause
"""The URLs of a list, row by row: the first column of `labels.list_rows`, whatever follows it.

A download must not end at row 12,345,678 because of a typing error, so a row that cannot be used
comes back with its error instead of raising.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mlimages_jax.files.text_files import open_lines
from mlimages_jax.labels.list_rows import SPACED_NAME, WORD

_LONGEST_LINE = 1 << 16


class UrlRow(NamedTuple):
    """A row of a URL list.

    Attributes:
        url: as the list has it; what cannot be decoded stands there escaped.
        error: bad_row or bad_url, or None if it can be fetched.
        message: what is wrong, with file and line.
    """

    url: str
    error: str | None = None
    message: str | None = None


class Shard(NamedTuple):
    """Part `part` (from 0) of `parts` of all URLs, by their hash: the same in whatever list."""

    part: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads "2/8": part 2 of the parts 0 to 7; ValueError if there is no such part."""
        part, _, parts = text.partition("/")
        if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            raise ValueError(f"shard {text!r}: write i/n with i from 0 to n - 1, such as 0/8")
        return cls(int(part), int(parts))

    def has(self, url: str) -> bool:
        """Whether a URL belongs to this part."""
        return zlib.crc32(url.encode()) % self.parts == self.part


def iter_urls(paths: Sequence[Path]) -> Iterator[UrlRow]:
    """The rows of several lists, one list after the other; blank lines are no rows.

    Raises:
        TextFileError: a list as a whole is UTF-16, say.
    """
    for path in paths:
        with open_lines(path) as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if not line.endswith(b"\n") and len(line) >= _LONGEST_LINE - 3:
                    while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
                    message = f"{path}:{number}: a line of more than {_LONGEST_LINE} bytes"
                    yield UrlRow(f"{path.name}:{number}", "bad_row", message)
                elif WORD.search(line):
                    yield _parse(line, f"{path}:{number}")


def count_rows(paths: Sequence[Path]) -> int:
    """Lines of the lists, for the time left; blank ones count."""
    total = 0
    for path in paths:
        with open_lines(path) as file:
            while block := file.read(1 << 20):
                total += block.count(b"\n")
                last = block
            total += bool(file.tell()) and not last.endswith(b"\n")
    return total


def _parse(line: bytes, where: str) -> UrlRow:
    match = (SPACED_NAME if b"\t" in line else WORD).match(line)
    if match is None:
        text = line.strip().decode(errors="backslashreplace")
        message = f"{where}: the row begins with white space; put the URL first"
        return UrlRow(text, "bad_row", message)
    url = match.group().decode(errors="backslashreplace")
    try:
        match.group().decode()
        parts = urlsplit(url)
        parts.port  # noqa: B018 raises where the port is no number
    except ValueError as error:
        return UrlRow(url, "bad_url", f"{where}: {url!r} is no URL ({error})")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return UrlRow(url, "bad_url", f"{where}: {url!r} is not an http or https URL")
    return UrlRow(url)
