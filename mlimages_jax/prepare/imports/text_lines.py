# SPDX-License-Identifier: BSD-3-Clause
"""Text files that other programs wrote, as lines: their encoding, their line ends, compressed too.

`mlimages_jax.text_files` is for files in our own formats and refuses what is not UTF-8. Tables come
from spreadsheets: UTF-8 and UTF-16 are told apart by their bytes. What is neither could be any of a
dozen encodings, and a wrong guess gives wrong names of classes without a word; so those lines are
marked, and whoever reads them sets them aside with a hint at --encoding.
"""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.progress import progress

_GZIP = b"\x1f\x8b"
_NO_TEXT = {  # what is often given, or renamed, as if it were text
    b"PK\x03\x04": "is a workbook of Excel or LibreOffice, or another ZIP archive: save it as CSV "
    "in UTF-8 there, or unpack it",
    b"\xd0\xcf\x11\xe0": "is a workbook of an old Excel: save it as CSV in UTF-8 there",
    b"PAR1": "is a Parquet file: rename it to .parquet",
    b"SQLite format 3": "is an SQLite database: export the table as CSV",
    b"%PDF-": "is a PDF: save the table as CSV in UTF-8",
}
_LONGEST_LINE = 1 << 24  # characters; a line of JSON with many boxes has some 100,000
_MARK = "mark_undecodable"  # an error handler: a lone surrogate, as surrogateescape has for UTF-8
codecs.register_error(_MARK, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def open_text(path: Path, encoding: str | None = None) -> IO[str]:
    """Opens a text file; all kinds of line ends are one, undecodable bytes are lone surrogates.

    Args:
        path: of the file; compressed with gzip, it is read through.
        encoding: of the file; None: told by its first bytes.

    Raises:
        PrepareError: no such encoding, or the file is a workbook, say, and no text.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    raw = cast(IO[bytes], gzip.GzipFile(path)) if packed else path.open("rb")
    try:
        start = cast(io.BufferedReader, raw).peek(64)[:64]
        refuse_binary(path, start)
        encoding = encoding or _encoding_of(start)
        errors = "surrogateescape" if encoding.startswith("utf-8") else _MARK
        return io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline=None)
    except LookupError as error:
        raw.close()
        raise PrepareError(f"--encoding {encoding!r} is not known; try cp1252") from error


def refuse_binary(path: Path, start: bytes) -> None:
    """Refuses known files that are no text.

    Args:
        path: of the file.
        start: its first bytes.

    Raises:
        PrepareError: says what it is, and what to do.
    """
    for mark, advice in _NO_TEXT.items():
        if start.startswith(mark):
            raise PrepareError(f"{path}: {advice}")


def check_decoded(text: str) -> None:
    """Checks a line of `open_text`.

    Raises:
        ValueError: it holds bytes, or a NUL, that are no text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = text[error.start].encode("utf-8", "backslashreplace")[-2:].decode()
        raise ValueError(
            f"not UTF-8 (a byte {byte}); save the table as UTF-8, or say what it is: "
            "--encoding cp1252 for most files of Windows, latin-1, cp1251, shift_jis, ..."
        ) from error
    if "\0" in text:
        raise ValueError("holds a NUL, which is no text; save the table as UTF-8")


class Lines:
    """The lines of a file, with their ends.

    Args:
        path: of the file.
        encoding: as for `open_text`.
        limit: stop after so many lines; None: never.

    Attributes:
        number: of the latest line, from 1.
        recent: the lines since somebody last cleared this list.
    """

    def __init__(self, path: Path, *, encoding: str | None = None, limit: int | None = None):
        self.number = 0
        self.recent: list[str] = []
        self._path, self._encoding, self._limit = path, encoding, limit

    def __iter__(self) -> Iterator[str]:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_text(self._path, self._encoding))
            bar = None
            if self._limit is None:
                size = self._path.stat().st_size
                bar = stack.enter_context(progress(size, what=self._path.name, unit=" bytes"))
            while self.number != self._limit and (line := self._next(file)):
                self.number += 1
                self.recent.append(line)
                if bar is not None:
                    bar.update(len(line))
                yield line

    def _next(self, file: IO[str]) -> str:
        try:
            line = file.readline(_LONGEST_LINE)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise PrepareError(
                f"{self._path}: cannot be uncompressed after line {self.number} ({error}); "
                "get it anew"
            ) from error
        if len(line) == _LONGEST_LINE:
            raise PrepareError(
                f"{self._path}:{self.number + 1}: a line of more than {_LONGEST_LINE:,} "
                "characters; is this a table?"
            )
        return line


def _encoding_of(start: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) * 4 > len(start) and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"  # ASCII with zeros between, without a mark
    return "utf-8"
