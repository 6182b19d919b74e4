# SPDX-License-Identifier: BSD-3-Clause
"""From a file that has just arrived to an image under its name: verify, shrink, move."""

import contextlib
import errno
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from mlimages_jax.data.images.decode import BadImage, stored_jpeg, verify
from mlimages_jax.prepare import PrepareError, placeholders

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp"}
_LONGEST_STEM = 80  # file names end at 255 bytes
# One name for a file and a folder, too long for this file system, or below a circle of links.
_OF_ONE_NAME = {
    errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
_DENIED = {errno.EACCES, errno.EPERM}


class StorageError(PrepareError):
    """A disk that is full or cannot be written to: nothing further can be stored."""


class UnwantedFileError(Exception):
    """A file that is not the image it should be; `reason` is one countable word."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class Expected(NamedTuple):
    """What somebody promised about a file; None where nobody did."""

    num_bytes: int | None = None
    md5: bytes | None = None


class StoredFile(NamedTuple):
    """An image on disk.

    Attributes:
        num_bytes: as received.
        sha256: of what was received.
        width: of the file in pixels.
        height: likewise.
        file_sha256: of the file, None where it is what was received.
    """

    num_bytes: int
    sha256: bytes
    width: int
    height: int
    file_sha256: bytes | None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says about a write into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}. Make room or give another folder, and start the "
            "same command again: it goes on where it ended"
        ) from error


def unless_of_one_name(error: StorageError, images: Path) -> UnwantedFileError:
    """Tells a name that cannot be stored from a folder to which nothing can be written.

    Args:
        error: of storing an image.
        images: the folder of all images.

    Returns:
        The error of this image alone: name_clash or storage.

    Raises:
        StorageError: the same, where it concerns all that come after it.
    """
    number = getattr(error.__cause__, "errno", None)
    if number in _OF_ONE_NAME:
        return UnwantedFileError("name_clash", str(error.__cause__))
    if number in _DENIED:
        probe = images / ".writable"
        with contextlib.suppress(OSError):
            probe.write_bytes(b"")
            probe.unlink()
            return UnwantedFileError("storage", str(error.__cause__))
    raise error


def file_name(url: str) -> str:
    """Where the image of a URL lies: `<hash of the host>/<2 digits>/<name>-<hash>.jpg`.

    A function of the URL alone. No two URLs share a file, and no URL reaches out of the folder. A
    host of ML-Images has a million images, so the digits, of the URL's hash, keep folders small.
    """
    try:
        parts = urlsplit(url)
        host_name = parts.hostname or ""
    except ValueError:  # it is none; yet also the leftovers of such a row have a name
        parts, host_name = SplitResult("", "", "", "", ""), ""
    path = PurePosixPath(unquote(parts.path))
    stem = _UNSAFE.sub("_", path.stem).strip(".")[:_LONGEST_STEM] or "image"
    suffix = path.suffix.lower() if path.suffix.lower() in _SUFFIXES else ".jpg"
    host = hashlib.sha256(host_name.encode(errors="backslashreplace")).hexdigest()
    digits = hashlib.sha256(url.encode(errors="backslashreplace")).hexdigest()
    return f"{host[:8]}/{digits[:2]}/{stem}-{digits[2:18]}{suffix}"


def store(
    unfinished: Path, path: Path, *, expected: Expected, short_side: int | None
) -> StoredFile:
    """Verifies a file and moves it under its name, in one step, replacing what was there.

    Args:
        unfinished: the file as it arrived, on the same file system.
        path: where it belongs.
        expected: by its source.
        short_side: shrink a larger image to this shorter side in pixels, as JPEG.

    Raises:
        UnwantedFileError: wrong_size, wrong_md5, placeholder, or the reason of a `BadImage`.
        StorageError: it cannot be written.
    """
    with writing(unfinished):
        data = unfinished.read_bytes()
    _check_content(data, expected)
    try:
        if short_side is None:
            header = verify(data)
            kept, width, height = data, header.width, header.height
        else:
            kept, height, width = stored_jpeg(data, short_side=short_side)
    except BadImage as bad:
        raise UnwantedFileError(bad.reason, str(bad)) from bad
    with writing(path):
        if kept is not data:
            unfinished.write_bytes(kept)
        _move(unfinished, path)
    file_sha256 = None if kept is data else hashlib.sha256(kept).digest()
    return StoredFile(len(data), hashlib.sha256(data).digest(), width, height, file_sha256)


def _check_content(data: bytes, expected: Expected) -> None:
    if expected.num_bytes is not None and len(data) != expected.num_bytes:
        message = f"{len(data)} bytes where {expected.num_bytes} were promised"
        raise UnwantedFileError("wrong_size", message)
    if expected.md5 is not None:
        if hashlib.md5(data, usedforsecurity=False).digest() != expected.md5:
            raise UnwantedFileError("wrong_md5", "the MD5 is not the promised one")
    elif shown := placeholders.known_content(data):
        raise UnwantedFileError("placeholder", f"a known placeholder: {shown}")


def _move(unfinished: Path, path: Path) -> None:
    try:
        unfinished.replace(path)
    except FileNotFoundError:  # the first image of its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.replace(path)
