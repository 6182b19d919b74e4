# SPDX-License-Identifier: BSD-3-Clause
"""Text files that people bring: UTF-8, with or without a byte order mark, with any line ends.

Everything that reads such a file reads it here, so that all of them forgive, and refuse, the same.
"""

import codecs
import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO, cast

from etils import epath

# The mark of UTF-32 begins with that of UTF-16.
_MARKS_OF_OTHERS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# ASCII text without a mark: zeros beside its first characters.
_ZEROS_OF_OTHERS = {
    re.compile(rb"([\t\n\r -~]\0|\0[\t\n\r -~]){2}"): "UTF-16",
    re.compile(rb"[\t\n\r -~]\0{3}|\0{3}[\t\n\r -~]"): "UTF-32",
}
_START_BYTES = 4
_BUFFER_BYTES = 1 << 16


class TextFileError(ValueError):
    """A file that is no UTF-8 text; the message names it and says what to do."""


def read_text(path: epath.PathLike) -> str:
    r"""Returns what a text file holds, with `\n` as its line ends and without a mark.

    Raises:
        TextFileError: it is not UTF-8.
        OSError: it cannot be read.
    """
    return decode(epath.Path(path).read_bytes(), where=os.fspath(path))


def decode(data: bytes, *, where: str) -> str:
    """`read_text` of bytes that are there already; `where` they come from, for errors."""
    data = unix_line_ends(without_mark(data, where=where))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{where}:{line}", error) from error


@contextlib.contextmanager
def open_text(path: epath.PathLike, *, newline: str | None = None) -> Iterator[TextIO]:
    r"""Opens a text file for reading piece by piece.

    Args:
        path: of the file.
        newline: None: every kind of line end is read as `\n`; "": they stay, as `csv` wants it.

    Raises:
        TextFileError: it is not UTF-8; also within the block, when the place is reached.
        OSError: it cannot be read.
    """
    with epath.Path(path).open("rb") as file:
        # A file of Cloud Storage need not have `peek`.
        without_mark(file.read(_START_BYTES), where=os.fspath(path))
        file.seek(0)
        with io.TextIOWrapper(cast(BinaryIO, file), "utf-8-sig", newline=newline) as text:
            try:
                yield text
            except UnicodeDecodeError as error:
                raise _not_utf8(os.fspath(path), error) from error


def open_lines(path: epath.PathLike) -> BinaryIO:
    """Opens a text file of any encoding whose line ends are those of ASCII, as bytes.

    Returns:
        The file from behind its byte order mark on; all its line ends are those of Unix.

    Raises:
        TextFileError: it is UTF-16 or UTF-32.
        OSError: it cannot be read.
    """
    file = cast(BinaryIO, epath.Path(path).open("rb"))
    try:
        start = file.read(_START_BYTES)
        file.seek(len(start) - len(without_mark(start, where=os.fspath(path))))
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, io.BufferedReader(_UnixLineEnds(file), buffer_size=_BUFFER_BYTES))


class _UnixLineEnds(io.RawIOBase):
    """A file opened for reading, with every line end as LF."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        """How many bytes came out of it."""
        return self._read

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(len(buffer) - 1)
        if data.endswith(b"\r"):  # its LF may be the next byte
            data += self._file.read(1)
        data = unix_line_ends(data)
        buffer[: len(data)] = data
        self._read += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def without_mark(data: bytes, *, where: str) -> bytes:
    """Returns the bytes of a text file, or its first ones, without a mark of UTF-8.

    Raises:
        TextFileError: they are UTF-16 or UTF-32, by their mark or by zeros in the first characters.
    """
    for mark, encoding in _MARKS_OF_OTHERS.items():
        if data.startswith(mark):
            raise _other_encoding(where, encoding)
    for zeros, encoding in _ZEROS_OF_OTHERS.items():
        if zeros.match(data):
            raise _other_encoding(where, encoding)
    return data.removeprefix(codecs.BOM_UTF8)


def unix_line_ends(data: bytes) -> bytes:
    """Makes line ends of Windows (CR LF) and of old Macs (CR) those of Unix (LF)."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _other_encoding(where: str, encoding: str) -> TextFileError:
    return TextFileError(
        f"{where}: the file is {encoding} text: save it as UTF-8 (`iconv -f {encoding} -t UTF-8`)"
    )


def _not_utf8(where: str, error: UnicodeDecodeError) -> TextFileError:
    bad = error.object[error.start : error.start + 1]
    return TextFileError(
        f"{where}: not UTF-8: the byte {bad!r}; save the file as UTF-8 "
        "(`iconv -f WINDOWS-1252 -t UTF-8`, if it comes from Windows)"
    )
