# SPDX-License-Identifier: BSD-3-Clause
"""Turns a file that has just arrived into a stored image: verify, shrink, move into place."""

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
_LONGEST_STEM = 80  # characters; file systems allow 255 bytes for the complete name
# Errors of one name: a file where a folder is needed, a name too long, a loop of symbolic links.
_OF_ONE_NAME = {
    errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
_DENIED = {errno.EACCES, errno.EPERM}


class StorageError(PrepareError):
    """The disk is full or cannot be written to, so nothing further can be stored."""


class UnwantedFileError(Exception):
    """A file is not the expected image; `reason` is one machine-readable word."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class Expected(NamedTuple):
    """Size and MD5 of a file as stated by its source; None if not stated."""

    num_bytes: int | None = None
    md5: bytes | None = None


class StoredFile(NamedTuple):
    """An image on disk.

    Attributes:
        num_bytes: Size as received.
        sha256: SHA-256 of the bytes as received.
        width: Width of the stored image in pixels.
        height: Height of the stored image in pixels.
        file_sha256: SHA-256 of the stored file, or None if it is the bytes as received.
    """

    num_bytes: int
    sha256: bytes
    width: int
    height: int
    file_sha256: bytes | None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of a write into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}. Free some space or choose another folder, then "
            "run the same command again to resume"
        ) from error


def unless_of_one_name(error: StorageError, images: Path) -> UnwantedFileError:
    """Distinguishes a name that cannot be stored from a folder that cannot be written to.

    Args:
        error: Raised when an image was stored.
        images: The folder of all images.

    Returns:
        The error of this image alone: name_clash or storage.

    Raises:
        StorageError: The same error, if it would affect all further images too.
    """
    number = getattr(error.__cause__, "errno", None)
    if number in _OF_ONE_NAME:
        return UnwantedFileError("name_clash", str(error.__cause__))
    # Permission may be missing for one file, or for the whole folder: writing another file tells.
    if number in _DENIED:
        probe = images / ".writable"
        with contextlib.suppress(OSError):
            probe.write_bytes(b"")
            probe.unlink()
            return UnwantedFileError("storage", str(error.__cause__))
    raise error


def file_name(url: str) -> str:
    """Returns the file of a URL's image: `<hash of the host>/<2 digits>/<name>-<hash>.jpg`.

    It depends on the URL alone. No two URLs share a file, and no URL can reach outside of the
    folder. Some hosts of ML-Images have a million images, so two digits of the URL's hash keep the
    folders small.
    """
    try:
        parts = urlsplit(url)
        host_name = parts.hostname or ""
    except ValueError:  # not a URL, but the caller may still have to delete its file
        parts, host_name = SplitResult("", "", "", "", ""), ""
    path = PurePosixPath(unquote(parts.path))
    stem = _UNSAFE.sub("_", path.stem).strip(".")[:_LONGEST_STEM] or "image"
    suffix = path.suffix.lower() if path.suffix.lower() in _SUFFIXES else ".jpg"
    host = hashlib.sha256(host_name.encode(errors="backslashreplace")).hexdigest()
    digits = hashlib.sha256(url.encode(errors="backslashreplace")).hexdigest()
    return f"{host[:8]}/{digits[:2]}/{stem}-{digits[2:18]}{suffix}"


def verified(
    data: bytes, *, expected: Expected, short_side: int | None
) -> tuple[StoredFile, bytes]:
    """Verifies an image, and shrinks it if asked.

    Args:
        data: The bytes as received.
        expected: Size and MD5 stated by the source.
        short_side: Shrink a larger image to this short side in pixels, as JPEG; None: keep it.

    Returns:
        The description of the image, and the bytes to store: the same object if they are kept.

    Raises:
        UnwantedFileError: wrong_size, wrong_md5, placeholder, or the reason of a `BadImage`.
    """
    _check_content(data, expected)
    try:
        if short_side is None:
            header = verify(data)
            kept, width, height = data, header.width, header.height
        else:
            kept, height, width = stored_jpeg(data, short_side=short_side)
    except BadImage as bad:
        raise UnwantedFileError(bad.reason, str(bad)) from bad
    file_sha256 = None if kept is data else hashlib.sha256(kept).digest()
    stored = StoredFile(len(data), hashlib.sha256(data).digest(), width, height, file_sha256)
    return stored, kept


def store(
    unfinished: Path, path: Path, *, expected: Expected, short_side: int | None
) -> StoredFile:
    """Verifies a file and moves it to its final name atomically, replacing an existing file.

    Args:
        unfinished: The file as it arrived, on the same file system.
        path: The final path.
        expected: As for `verified`.
        short_side: As for `verified`.

    Raises:
        UnwantedFileError: As from `verified`.
        StorageError: The file cannot be written.
    """
    with writing(unfinished):
        data = unfinished.read_bytes()
    stored, kept = verified(data, expected=expected, short_side=short_side)
    with writing(path):
        if kept is not data:
            unfinished.write_bytes(kept)
        _move(unfinished, path)
    return stored


def _check_content(data: bytes, expected: Expected) -> None:
    if expected.num_bytes is not None and len(data) != expected.num_bytes:
        message = f"{len(data)} bytes instead of the {expected.num_bytes} stated by the source"
        raise UnwantedFileError("wrong_size", message)
    if expected.md5 is not None:
        if hashlib.md5(data, usedforsecurity=False).digest() != expected.md5:
            raise UnwantedFileError("wrong_md5", "the MD5 differs from the one the source states")
    elif shown := placeholders.known_content(data):  # a matching MD5 leaves no doubt
        raise UnwantedFileError("placeholder", f"a known placeholder: {shown}")


def _move(unfinished: Path, path: Path) -> None:
    try:
        unfinished.replace(path)
    except FileNotFoundError:  # the first image of its folder; cheaper than mkdir every time
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.replace(path)
