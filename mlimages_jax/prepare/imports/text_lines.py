# SPDX-License-Identifier: BSD-3-Clause
"""Reads text files of other programs as lines: detects encodings and line ends, decompresses.

`files.text_files` is for files in our own formats and rejects everything but UTF-8. Tables come
from spreadsheets: UTF-8, UTF-16 and UTF-32 are recognised by their bytes. Other bytes could be any
of a dozen encodings, and a wrong guess would silently give wrong class names; so such lines are
marked, and callers set them aside with a hint at --encoding.
"""

import codecs
import contextlib
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from mlimages_jax.files.text_files import binary_format
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError

_GZIP = b"\x1f\x8b"
_LONGEST_LINE = 1 << 24  # characters; a line of JSON with many boxes has about 100,000
_START_BYTES = 64  # enough to detect the encoding
_BLOCK = 1 << 16  # characters read and checked at once
_MARK = "mark_undecodable"  # error handler: gives a lone surrogate, as surrogateescape for UTF-8
codecs.register_error(_MARK, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))
# UTF-32 first: its little-endian byte order mark starts with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def open_text(path: Path, encoding: str | None = None) -> IO[str]:
    """Opens a text file; all kinds of line ends are accepted, undecodable bytes are surrogates.

    Args:
        path: Path of the file; it may be compressed with gzip.
        encoding: Encoding of the file; None: detect it from the first bytes.

    Raises:
        PrepareError: The encoding is unknown, or the file is not text, e.g. a spreadsheet.
        OSError: The file cannot be read.
    """
    packed, detected = detect(path)
    raw = cast(IO[bytes], gzip.GzipFile(path)) if packed else path.open("rb")
    encoding = encoding or detected
    errors = "surrogateescape" if encoding.startswith("utf-8") else _MARK
    try:
        return io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline=None)
    except LookupError as error:
        raw.close()
        raise PrepareError(f"--encoding {encoding!r} is unknown; try cp1252") from error


def detect(path: Path) -> tuple[bool, str]:
    """Judges a text file by its first bytes, not by its name.

    Returns:
        Whether it is compressed with gzip, and the encoding: "utf-8", "utf-8-sig", "utf-16",
        "utf-32", or, without a byte order mark, "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be".

    Raises:
        PrepareError: The file is not text, e.g. a spreadsheet, or cannot be decompressed.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    try:
        with cast(IO[bytes], gzip.GzipFile(path)) if packed else path.open("rb") as raw:
            start = raw.read(_START_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PrepareError(
            f"{path}:1: cannot be decompressed ({error}); download it again"
        ) from error
    refuse_binary(path, start)
    return packed, _encoding_of(start)


def refuse_binary(path: Path, start: bytes) -> None:
    """Rejects known kinds of binary files.

    Args:
        path: Path of the file.
        start: Its first bytes.

    Raises:
        PrepareError: The file is not text; the message says what it is, and what to do.
    """
    if start and not start.strip(b"\0"):
        raise PrepareError(
            f"{path}: starts with NUL bytes only: the file is damaged; copy or download it again"
        )
    if binary := binary_format(start):
        raise PrepareError(f"{path}: {binary}")


def check_decoded(text: str) -> None:
    """Checks a line of `open_text`.

    Raises:
        ValueError: It contains undecodable bytes or a NUL.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # surrogateescape decodes a byte 0xNN as U+DCNN.
        byte = text[error.start].encode("utf-8", "backslashreplace")[-2:].decode()
        raise ValueError(
            f"not UTF-8 (a byte {byte}); save the table as UTF-8, or give its encoding: "
            "--encoding cp1252 for most files of Windows, latin-1, cp1251, shift_jis, ..."
        ) from error
    if "\0" in text:
        raise ValueError("contains a NUL, so it is not text; save the table as UTF-8")


class Lines:
    """The lines of a file, with their ends; can be read once.

    Files have millions of lines, so most work is done for blocks of them: only lines in a block
    marked `not_text` need `check_decoded`.

    Args:
        path: Path of the file.
        encoding: As for `open_text`.
        limit: Stop after this many lines; None: never.

    Attributes:
        needed: Number of the first line that `between` will be asked for, from 1; set by the
            caller.
        not_text: Number of the last line that may not pass `check_decoded`; 0: none so far.
    """

    def __init__(self, path: Path, *, encoding: str | None = None, limit: int | None = None):
        self.needed = 1
        self.not_text = 0
        self._path, self._encoding, self._limit = path, encoding, limit
        self._held: list[list[str]] = []  # the latest blocks
        self._first, self._end = 1, 1  # numbers of the first line kept and of the next one to read

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._blocks())

    def between(self, first: int, last: int) -> list[str]:
        """Returns lines by number: not before `needed`, and already read."""
        held = itertools.chain.from_iterable(self._held)
        return list(itertools.islice(held, first - self._first, last + 1 - self._first))

    def _blocks(self) -> Iterator[list[str]]:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_text(self._path, self._encoding))
            bar = None
            if self._limit is None:
                size = self._path.stat().st_size
                bar = stack.enter_context(progress(size, what=self._path.name, unit=" bytes"))
            while text := self._next(file):
                if bar is not None:
                    bar.update(len(text))
                yield self._hold(text)
                if self._limit is not None and self._end > self._limit:
                    return

    def _hold(self, text: str) -> list[str]:
        block = list(io.StringIO(text))  # str.splitlines would also split at U+2028 and others
        if self._limit is not None:
            block = block[: self._limit + 1 - self._end]
        while self._held and self._first + len(self._held[0]) <= self.needed:
            self._first += len(self._held.pop(0))
        self._held.append(block)
        self._end += len(block)
        try:
            check_decoded(text)
        except ValueError:
            self.not_text = self._end - 1
        return block

    def _next(self, file: IO[str]) -> str:
        """Returns some complete lines."""
        try:
            text = file.read(_BLOCK)
            rest = "" if text.endswith("\n") else file.readline(_LONGEST_LINE)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise PrepareError(
                f"{self._path}:{self._end}: cannot be decompressed from here on ({error}); "
                "download it again"
            ) from error
        if len(rest) == _LONGEST_LINE:
            raise PrepareError(
                f"{self._path}:{self._end + text.count(chr(10))}: the line has more than "
                f"{_LONGEST_LINE:,} characters; is this a table?"
            )
        return text + rest


def _encoding_of(start: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    # Without a mark, ASCII in UTF-16 and UTF-32 has one or three zeros around each character.
    empty = [not any(start[place::4]) for place in range(4)] if len(start) >= 4 else []
    if empty in ([False, True, True, True], [True, True, True, False]):
        return "utf-32-be" if empty[0] else "utf-32-le"
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) * 4 > len(start) and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return "utf-8"
