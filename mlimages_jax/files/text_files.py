# SPDX-License-Identifier: BSD-3-Clause
"""Reads text files from users: UTF-8, with or without a byte order mark, with any line endings.

All such files are read through this module, so that all commands accept and reject the same files.
"""

import codecs
import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO, cast

from etils import epath

# UTF-32 first: its little-endian byte order mark starts with that of UTF-16.
_MARKS_OF_OTHERS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# ASCII text in UTF-16 or UTF-32 without a byte order mark has zeros next to its characters.
_ZEROS_OF_OTHERS = {
    re.compile(rb"([\t\n\r -~]\0|\0[\t\n\r -~]){2}"): "UTF-16",
    re.compile(rb"[\t\n\r -~]\0{3}|\0{3}[\t\n\r -~]"): "UTF-32",
}
# Starts of files that users pass, or rename, as if they were text. Where a signature consists of
# letters, with which the first name of a list may begin, what follows it is part of the pattern.
_BINARY_FORMATS = {
    re.compile(rb"\x1f\x8b"): "is a gzip file: decompress it (`gzip -dk`)",
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P)"): "is a bzip2 file: decompress it (`bzip2 -dk`)",
    re.compile(rb"\xfd7zXZ\0"): "is an xz file: decompress it (`xz -dk`)",
    re.compile(rb"\x28\xb5\x2f\xfd"): "is a Zstandard file: decompress it (`zstd -d`)",
    re.compile(
        rb"PK(\x03\x04|\x05\x06)"
    ): "is a spreadsheet of Excel or LibreOffice, or a ZIP archive: save it "
    "as CSV in UTF-8 there, or unpack it",
    re.compile(rb"\xd0\xcf\x11\xe0"): "is a spreadsheet of an old Excel: save it as CSV in "
    "UTF-8 there",
    re.compile(rb"PAR1[\0-\x08\x0e-\x1f]"): "is a Parquet file: rename it to .parquet, or save the "
    "table as text",
    re.compile(rb"SQLite format 3\0"): "is an SQLite database: export the table as CSV",
    re.compile(rb"%PDF-\d"): "is a PDF: save the table as CSV in UTF-8",
}
_START_BYTES = 16
_BUFFER_BYTES = 1 << 16


class TextFileError(ValueError):
    """A file is not UTF-8 text; the message names it and says what to do."""


def read_text(path: epath.PathLike) -> str:
    r"""Returns the text of a file with `\n` line endings and without a byte order mark.

    Raises:
        TextFileError: The file is not UTF-8, or contains a NUL.
        OSError: The file cannot be read.
    """
    return decode(epath.Path(path).read_bytes(), where=os.fspath(path))


def decode(data: bytes, *, where: str) -> str:
    """Decodes like `read_text` the content of a file; `where` is its name for error messages."""
    data = unix_line_ends(without_mark(data, where=where))
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise TextFileError(
            f"{where}:{line}: a NUL byte: the file is damaged, or not text; make or copy it again"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{where}:{line}", error) from error


def check_start(path: epath.PathLike) -> None:
    """Checks the first bytes of a file that another library will read as UTF-8 text.

    Raises:
        TextFileError: The file is UTF-16, UTF-32 or binary.
        OSError: The file cannot be read.
    """
    with epath.Path(path).open("rb") as file:
        without_mark(file.read(_START_BYTES), where=os.fspath(path))


@contextlib.contextmanager
def open_text(path: epath.PathLike, *, newline: str | None = None) -> Iterator[TextIO]:
    r"""Opens a text file for reading it in pieces.

    Args:
        path: Path of the file.
        newline: None to read all line endings as `\n`; "" to keep them, as `csv` requires.

    Raises:
        TextFileError: The file is not UTF-8; raised inside the block when the bad byte is reached.
        OSError: The file cannot be read.
    """
    with epath.Path(path).open("rb") as file:
        # Not `peek`, which files on Cloud Storage may lack.
        without_mark(file.read(_START_BYTES), where=os.fspath(path))
        file.seek(0)
        with io.TextIOWrapper(cast(BinaryIO, file), "utf-8-sig", newline=newline) as text:
            try:
                yield text
            except UnicodeDecodeError as error:
                raise _not_utf8(os.fspath(path), error) from error


def open_lines(path: epath.PathLike) -> BinaryIO:
    """Opens a text file in any ASCII-compatible encoding as bytes.

    Returns:
        The file, positioned after a byte order mark, with all line endings converted to LF.

    Raises:
        TextFileError: The file is UTF-16, UTF-32 or binary.
        OSError: The file cannot be read.
    """
    file = cast(BinaryIO, epath.Path(path).open("rb"))
    try:
        start = file.read(_START_BYTES)
        file.seek(len(start) - len(without_mark(start, where=os.fspath(path))))
    except BaseException:  # also Ctrl-C
        file.close()
        raise
    return cast(BinaryIO, io.BufferedReader(_UnixLineEnds(file), buffer_size=_BUFFER_BYTES))


class _UnixLineEnds(io.RawIOBase):
    """A readable file with all line endings converted to LF."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        """Returns the number of converted bytes read so far."""
        return self._read

    def readinto(self, buffer: Any, /) -> int:
        # `buffer` belongs to BufferedReader and has 64 KiB, so one byte less is never none.
        data = self._file.read(len(buffer) - 1)
        if data.endswith(b"\r"):  # the LF of a CR LF may be the next byte
            data += self._file.read(1)
        data = unix_line_ends(data)
        buffer[: len(data)] = data
        self._read += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def without_mark(data: bytes, *, where: str) -> bytes:
    """Removes a UTF-8 byte order mark from the bytes, or first bytes, of a text file.

    Raises:
        TextFileError: They are UTF-16 or UTF-32, judging by a byte order mark or by zeros among the
            first characters, or the start of a binary file.
    """
    if binary := binary_format(data):
        raise TextFileError(f"{where}: {binary}")
    for mark, encoding in _MARKS_OF_OTHERS.items():
        if data.startswith(mark):
            raise _other_encoding(where, encoding)
    for zeros, encoding in _ZEROS_OF_OTHERS.items():
        if zeros.match(data):
            raise _other_encoding(where, encoding)
    return data.removeprefix(codecs.BOM_UTF8)


def binary_format(start: bytes) -> str | None:
    """Says what a binary file is, judging by its first bytes, and what to do with it.

    Returns:
        A predicate, such as "is a PDF: save ..."; None if this is not a known binary file.
    """
    for signature, text in _BINARY_FORMATS.items():
        if signature.match(start):
            return text
    return None


def unix_line_ends(data: bytes) -> bytes:
    """Converts the line endings of Windows (CR LF) and old Macs (CR) to those of Unix (LF)."""
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
