# SPDX-License-Identifier: BSD-3-Clause
r"""Converts names of image files to text that a label list can contain, and back.

A file name may contain any bytes except zero and "/"; a row of a list is UTF-8 text in columns.
What would not survive in a list is written as `\xHH`, one byte in lowercase hexadecimal:

    two spaces, or a space at an end      "my  photo.jpg"      my \x20photo.jpg
    control characters and line ends      tab, newline, U+2028 \x09 \x0a \xe2\x80\xa8
    bytes that are not UTF-8              caf<e9>.jpg          caf\xe9.jpg
    a last word that looks like a label   "at 12:30"           at 12\x3a30
    a backslash that looks like an escape "a\x09.jpg"          a\x5cx09.jpg

Everything else is unchanged, including other backslashes, and so is every name that a list could
contain before this escaping existed. The names in a URL list are URLs; nothing in them is escaped.
"""

import os
import re

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_LIKE_AN_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2})")
# Ends a row, a column or, for readers that know Unicode, a line. U+FEFF matters only at the start,
# where the first row of a file would lose it as a byte order mark.
_BREAKS_A_ROW = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|^[ \ufeff]|(?<= ) | $")
_PLAIN = re.compile(r"[!-9;-\[\]-~]+")  # printable ASCII without spaces, colons and backslashes
_LIKE_A_LABEL = re.compile(r"[0-9]{1,9}:(?!.*\.[A-Za-z][A-Za-z0-9]{0,4}$)", re.DOTALL)


def encode_name(path: str) -> str:
    """Returns the name of a path in a list; ASCII and other plain paths are their own names.

    Args:
        path: As Python gets it from the system or a file: non-UTF-8 bytes are surrogates.
    """
    if is_plain(path):
        return path
    name = _BREAKS_A_ROW.sub(_escaped, encode_bytes(path))
    start = name.rfind(" ") + 1
    if like_a_label(name[start:]):
        name = name[:start] + name[start:].replace(":", r"\x3a", 1)
    return name


def encode_bytes(path: str) -> str:
    """Returns a path as UTF-8 text: only bytes that are not UTF-8 are escaped.

    For formats that can store any text, such as JSON and Parquet. `decode_name` undoes it.
    """
    text = _LIKE_AN_ESCAPE.sub(r"\\x5c", path)
    if text.isascii():  # nearly all names, which thus cost no encoding
        return text
    # JSON can contain surrogates that stand for no byte; their three bytes are not UTF-8 either.
    data = "".join(_as_bytes_of_a_path(c) if "\ud800" <= c <= "\udfff" else c for c in text)
    return data.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def decode_name(name: str) -> str:
    """Returns the path of a name for `open`; undoes `encode_name` and `encode_bytes`."""
    if "\\x" not in name:
        return name
    data = name.encode("utf-8", "surrogateescape")
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), data))


def is_plain(path: str) -> bool:
    """Returns whether a path is certainly its own name: a fast check that most paths pass."""
    return _PLAIN.fullmatch(path) is not None


def like_a_label(word: str) -> bool:
    """Returns whether a word looks like `class:confidence`, so no name in a list may end in it.

    A file extension marks a name: 12:30:15.png is one, 12:30 and 12:0.5 are labels.
    """
    return _LIKE_A_LABEL.match(word) is not None


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode())


def _as_bytes_of_a_path(surrogate: str) -> str:
    """Returns the surrogates that stand for the bytes of one character."""
    if "\udc80" <= surrogate <= "\udcff":
        return surrogate
    return surrogate.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
