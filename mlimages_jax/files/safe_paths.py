# SPDX-License-Identifier: BSD-3-Clause
"""The only place where file names from untrusted input become paths.

Lists, archives, manifests and tables come from third parties. Whatever name they give a file, it
must stay inside its folder: every path that is read, written or removed by such a name comes from
`inside`. `check_name` checks only the text of a name, `first_unsafe` that of a million names at
once.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

_LONGEST_PART = 255  # bytes; the limit of common file systems
_LONGEST_NAME = 1024  # bytes, with folders; paths are limited to 4,096 on Linux, 1,024 on macOS
# Matches in names joined by "\n": a part "", "." or ".." (hence also a slash at either end), a
# backslash, and ASCII control characters.
_UNSAFE = re.compile(rb"(?<![^\n/])\.{0,2}(?![^\n/])|[\x00-\x09\x0b-\x1f\x7f\\]")
_DRIVE = re.compile(rb"(?<![^\n])[A-Za-z]:/")
# The control characters U+0080 to U+009F, the line breaks U+2028 and U+2029, which would split a
# row, and marks that make terminals show a name backwards: U+202A to U+202E, U+2066 to U+2069.
_UNSAFE_UNICODE = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


class UnsafeNameError(ValueError):
    """A name from input is not a relative path inside its folder; the message gives the name."""


def check_name(name: str) -> None:
    """Checks that a name is a plain relative path with "/" between its parts.

    Raises:
        UnsafeNameError: The name is empty, absolute or not UTF-8, contains a part "", "." or "..",
            a drive letter, a backslash or a control character, is longer than 1,024 bytes, or has a
            part longer than 255 bytes.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise UnsafeNameError(f"the name {name!r} is not UTF-8") from None
    if _is_too_long(encoded):
        raise UnsafeNameError(
            f"the name {name[:40]!r}... is too long: at most {_LONGEST_NAME} bytes, and no part "
            f"longer than {_LONGEST_PART} bytes"
        )
    if b"\n" in encoded or _has_unsafe(encoded):
        raise UnsafeNameError(
            f"the name {name!r} is not safe: it must be a relative path without '.' and '..' parts,"
            " backslashes and control characters"
        )


def first_unsafe(names: Sequence[bytes]) -> bytes | None:
    """Returns the first name that `check_name` rejects; all must be UTF-8 without line breaks."""
    may_be_too_long = max(map(len, names), default=0) > _LONGEST_PART
    if not names or not (may_be_too_long or _has_unsafe(b"\n".join(names))):
        return None
    return next((name for name in names if _is_too_long(name) or _has_unsafe(name)), None)


def inside(folder: Path, name: str) -> Path:
    """Returns the path of a name inside a folder.

    The folder itself may be a symbolic link, and so may the file, since replacing or removing it
    changes only the link. A link in between must not lead out of the folder.

    Args:
        folder: Folder that the path must stay in.
        name: Name from the input.

    Raises:
        UnsafeNameError: The name is unsafe, or the path would be outside the folder.
    """
    check_name(name)
    parent = os.fspath(folder)
    for part in name.split("/")[:-1]:
        parent = os.path.join(parent, part)  # noqa: PTH118 five times as fast; runs for every image
        if os.path.islink(parent) and not _leads_into(parent, folder):  # noqa: PTH114 likewise
            raise UnsafeNameError(
                f"{parent} is a symbolic link that leads out of {folder}: remove it, or make "
                f"{folder} itself the link"
            )
    return folder / name


def _is_too_long(name: bytes) -> bool:
    return len(name) > _LONGEST_PART and (
        len(name) > _LONGEST_NAME or max(map(len, name.split(b"/"))) > _LONGEST_PART
    )


def _has_unsafe(text: bytes) -> bool:
    """Returns whether names, joined by line breaks, contain anything unsafe."""
    return bool(
        _UNSAFE.search(text)
        or (b":/" in text and _DRIVE.search(text))  # the cheap tests first: 2.5 times as fast
        or (not text.isascii() and _UNSAFE_UNICODE.search(text))
    )


def _leads_into(link: str, folder: Path) -> bool:
    # Both end in a slash, as otherwise /data2 would be inside /data.
    root = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118 pathlib drops the slash
    return os.path.join(os.path.realpath(link), "").startswith(root)  # noqa: PTH118 likewise
