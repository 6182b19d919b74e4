# SPDX-License-Identifier: BSD-3-Clause
"""Reads ImageNet's archives in their published form, without unpacking them.

    fall11_whole.tar, winter21_whole.tar.gz   n01440764.tar, ... each with the images of a synset,
                                              perhaps in a folder winter21_whole/
    ILSVRC2012_img_train.tar                  the same
    ILSVRC2012_img_val.tar                    the images themselves

A tar within a tar is stored uncompressed, so its images have an offset in the outer file too: one
pass over the headers gives the offsets of all images, and any thread may read them in any order.
A compressed archive can only be read sequentially.

Nothing in an archive is trusted. Absolute names, "..", an inner tar called "...tar", whose folder
would be "..", names that are not UTF-8, links, devices and repeated names are skipped and reported.
"""

import gzip
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from mlimages_jax.data.tar_headers import (
    BLOCK_BYTES,
    EXTENSIONS,
    IGNORED,
    next_header,
    parse_extension,
    parse_header,
    safe_name,
)
from mlimages_jax.files.safe_paths import check_name

MAX_MEMBER_BYTES = 2**28  # limit for an image, which is read at once
_TAR = ".tar"
_STEP_BYTES = 2**20
_UNPACKED_BYTES = 2**30  # up to this size any compression ratio is accepted
_MAX_EXPANSION = 100  # compressed images hardly shrink; a gzip bomb can reach 1,000
_GZIP = b"\x1f\x8b"


class Member(NamedTuple):
    """A regular file in an archive.

    Attributes:
        name: Path such as n01440764/n01440764_10026.JPEG, where the folder may be the name of the
            inner tar. Relative, without "..", UTF-8, without control characters.
        offset: Offset of the first byte in the outer file; in the uncompressed stream if the
            archive is compressed.
        size: Size in bytes.
    """

    name: str
    offset: int
    size: int


class ArchiveError(ValueError):
    """Raised for an unusable archive or member; the message names it and the byte."""


class DamagedArchiveError(ArchiveError):
    """Raised for a truncated or corrupt archive, or a tar within it: members are lost."""


OnError = Callable[[ArchiveError], None]


def members(path: str | os.PathLike[str], *, on_error: OnError | None = None) -> Iterator[Member]:
    """Finds the files of an uncompressed archive and of its inner tars; reads only headers.

    Args:
        path: Path of the outer tar.
        on_error: Called with everything that is skipped: unusable members, the rest of a corrupt
            inner tar, the missing end of a truncated archive. None raises the first of these.

    Yields:
        Members in the order of the archive. Those of a tar `sets/n01440764.tar` are in a folder
        n01440764.

    Raises:
        ArchiveError: If it is not a tar, or is compressed; see also `on_error`.
        OSError: If the file cannot be read.
    """
    with Archive(path) as archive:
        if archive.compressed:
            raise ArchiveError(f"{path}: compressed; decompress it with gunzip first")
        for entry in archive.entries(on_error=on_error):
            if is_tar(entry):
                for member in archive.entries(within=entry, on_error=on_error):
                    yield member._replace(name=f"{folder_of(entry)}/{member.name}")
            else:
                yield entry


def read(archive: str | os.PathLike[str] | BinaryIO, member: Member) -> bytes:
    """Reads one file of an uncompressed archive; may be called from any thread.

    Args:
        archive: Path of the outer tar, or the open file, whose position is neither used nor moved.
        member: A member from `members`.

    Raises:
        ArchiveError: If the archive ends within the member, or the member is too large.
    """
    if isinstance(archive, str | os.PathLike):
        with Path(archive).open("rb") as file:
            return read(file, member)
    _check_size(archive.name, member)
    # pread has no position, so threads can share an open file.
    data = os.pread(archive.fileno(), member.size, member.offset)
    if len(data) < member.size:
        raise ArchiveError(
            f"{archive.name}: truncated within {member.name}, after byte "
            f"{member.offset + len(data)}; download the archive again"
        )
    return data


class Archive:
    """An open archive, for callers that choose which inner tars to enter; a context manager.

    Args:
        path: Path of the outer tar.

    Attributes:
        path: Path of the outer tar.
        size: Size of the file in bytes.
        compressed: Whether it is compressed with gzip, independent of its name.

    Raises:
        OSError: If the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._raw = self.path.open("rb")
        self.size = os.fstat(self._raw.fileno()).st_size
        self.compressed = self._raw.peek(len(_GZIP)).startswith(_GZIP)
        self._file = (
            cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if self.compressed else self._raw
        )
        self._end = sys.maxsize if self.compressed else self.size

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.close()

    @property
    def position(self) -> int:
        """Number of bytes of the file read so far, out of `size`."""
        return self._raw.tell()

    def entries(
        self, *, within: Member | None = None, on_error: OnError | None = None
    ) -> Iterator[Member]:
        """Finds the regular files of the outer tar, or of a tar within it, in order.

        Args:
            within: An entry that is a tar, to search instead of the outer tar.
            on_error: See `members`.

        Raises:
            ArchiveError: If it is not a tar; see also `on_error`.
        """
        folder = f"{folder_of(within)}/" if within else ""
        start = within.offset if within else 0
        end = min(self._end, start + within.size) if within else self._end
        where = f"{self.path}: {within.name}" if within else str(self.path)
        try:
            for member in self._members(start, end, where, folder, on_error):
                if member.offset + member.size > end and not is_tar(member):
                    raise DamagedArchiveError(
                        f"{where}: truncated at byte {end}, within {member.name}; download it again"
                    )
                yield member
            if self.compressed and within is None:
                self._read_at(sys.maxsize, 0, where)  # to reach gzip's checksum at the end
        except ArchiveError as error:
            if on_error is None or (within is None and isinstance(error, _NotATarError)):
                raise
            on_error(error)

    def read(self, member: Member) -> bytes:
        """Reads a member; in a compressed archive only before `entries` yields the next.

        Raises:
            ArchiveError: See `read`.
        """
        if not self.compressed:
            return read(self._raw, member)
        _check_size(self.path, member)
        return self._read_at(member.offset, member.size, f"{self.path}: {member.name}")

    def _members(
        self, start: int, end: int, where: str, folder: str, on_error: OnError | None
    ) -> Iterator[Member]:
        """Yields the regular files with valid names, whether or not they are complete."""
        seen: set[str] = set()
        for header in self._headers(start, end, where):
            if header.isdir():
                continue
            try:
                name = safe_name(header)
                check_name(folder + name)  # the folder may make the path too long
                if name.endswith(_TAR):
                    check_name(_stem(name))
                if name in seen:
                    raise ValueError("an earlier member has the same name")
            except ValueError as error:
                message = f"{where}: skipped {header.name!r} at byte {header.offset}: {error}"
                if on_error is None:
                    raise ArchiveError(message) from error
                on_error(ArchiveError(message))
                continue
            seen.add(name)
            yield Member(name, header.offset_data, header.size)

    def _headers(self, start: int, end: int, where: str) -> Iterator[tarfile.TarInfo]:
        """Yields headers with offsets in the outer file and with long names.

        Raises:
            ArchiveError: If the bytes from `start` to `end` are not a tar, or lack its end mark.
        """
        at = start
        records: dict[str, str] = {}
        while True:
            try:
                block = self._read_at(at, BLOCK_BYTES, where, end=end)
                # A tar ends with two blocks of zeros (POSIX); members cannot follow the first.
                if not any(block):
                    return
                header = parse_header(block, records, at)
            except ValueError as error:
                message = str(error) if isinstance(error, ArchiveError) else f"{where}: {error}"
                if at == start:
                    raise _NotATarError(f"{message}. Is it a tar?") from error
                raise DamagedArchiveError(message) from error
            if header.type in IGNORED:
                pass
            elif header.type in EXTENSIONS:
                data = self._read_at(header.offset_data, header.size, where, end=end)
                records |= parse_extension(header.type, data)
            else:
                records = {}
                yield header
            at = next_header(header)

    def _go_to(self, offset: int, where: str) -> None:
        """Seeks; in compressed archives in steps, because few bytes may unpack to terabytes."""
        if not self.compressed or offset < self._file.tell():
            self._file.seek(offset)
            return
        self._check_expansion(where)
        while (gap := offset - self._file.tell()) and self._file.read(min(gap, _STEP_BYTES)):
            self._check_expansion(where)

    def _check_expansion(self, where: str) -> None:
        unpacked = self._file.tell()
        if unpacked > _UNPACKED_BYTES and unpacked > _MAX_EXPANSION * self.position:
            raise DamagedArchiveError(
                f"{where}: {self.position:,} bytes unpack to more than {unpacked:,}, unlike any "
                "archive of images; download it from a trusted source"
            )

    def _read_at(self, offset: int, size: int, where: str, *, end: int = sys.maxsize) -> bytes:
        """Reads exactly `size` bytes before `end`; raises ArchiveError if there are fewer."""
        try:
            self._go_to(offset, where)
            data = self._file.read(max(0, min(size, end - offset)))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedArchiveError(
                f"{where}: cannot be decompressed after byte {self._file.tell()} ({error}); "
                "download the archive again"
            ) from error
        except OSError as error:
            raise DamagedArchiveError(
                f"{where}: cannot be read at byte {offset} ({error}); download the archive again"
            ) from error
        if len(data) < size:
            raise DamagedArchiveError(
                f"{where}: truncated: it ends at byte {min(end, self._file.tell())}, without an "
                "end mark; download the archive again"
            )
        return data


class _NotATarError(DamagedArchiveError):
    """Raised when the first block is not a header."""


def is_tar(member: Member) -> bool:
    """Returns whether a member is an inner tar, judging by its name."""
    return member.name.endswith(_TAR)


def folder_of(member: Member) -> str:
    """Returns the folder for the members of an inner tar: sets/n01440764.tar gives n01440764.

    Raises:
        ValueError: If there is none, as for "...tar"; `Archive.entries` never yields such a tar.
    """
    folder = _stem(member.name)
    check_name(folder)
    return folder


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(_TAR)


def _check_size(path: object, member: Member) -> None:
    if member.size > MAX_MEMBER_BYTES:
        raise ArchiveError(
            f"{path}: {member.name} has {member.size:,} bytes; the limit for an image is "
            f"{MAX_MEMBER_BYTES:,}"
        )
