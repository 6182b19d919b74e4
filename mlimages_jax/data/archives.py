# SPDX-License-Identifier: BSD-3-Clause
"""ImageNet's archives as they are distributed, read without unpacking them.

    fall11_whole.tar, winter21_whole.tar.gz   n01440764.tar, ... each with the images of a synset,
                                              perhaps in a folder winter21_whole/
    ILSVRC2012_img_train.tar                  the same
    ILSVRC2012_img_val.tar                    the images themselves

A tar within a tar lies there as it is, so an image of it has a place in the outer file too: one
walk over the headers gives the places of all images, and any thread may read them in any order.
A compressed archive can only be read from its beginning to its end.

Nothing an archive says is believed. Absolute names, "..", an inner tar called "...tar", whose
folder would be "..", names that are not UTF-8, links, devices and the second of two equal names
are left out, and reported.
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

MAX_MEMBER_BYTES = 2**28  # of an image, which is read as a whole
_TAR = ".tar"
_STEP_BYTES = 2**20
_UNPACKED_BYTES = 2**30  # of which nobody asks how few they were
_MAX_EXPANSION = 100  # images hardly shrink; gzip can reach 1,000
_GZIP = b"\x1f\x8b"


class Member(NamedTuple):
    """A regular file in an archive.

    Attributes:
        name: with folders: n01440764/n01440764_10026.JPEG, where the folder may be the name of the
            inner tar. Relative, without "..", UTF-8, without control characters.
        offset: of its first byte in the outer file; in a compressed archive, in what unpacking the
            compression would give.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


class ArchiveError(ValueError):
    """An archive, or something in it, that cannot be used; the message names it and the byte."""


class DamagedArchiveError(ArchiveError):
    """An archive, or a tar within it, of which a part is missing or broken: members are lost."""


OnError = Callable[[ArchiveError], None]


def members(path: str | os.PathLike[str], *, on_error: OnError | None = None) -> Iterator[Member]:
    """Finds the files of an uncompressed archive, those of inner tars included; reads only headers.

    Args:
        path: of the outer tar.
        on_error: is told what is left out: unusable members, the rest of a corrupt inner tar, the
            missing end of a truncated archive. Without it the first of these is raised.

    Yields:
        Members in the order of the archive. One of a tar `sets/n01440764.tar` is in a folder
        n01440764.

    Raises:
        ArchiveError: it is no tar, or compressed; see also `on_error`.
        OSError: the file cannot be read.
    """
    with Archive(path) as archive:
        if archive.compressed:
            raise ArchiveError(f"{path}: compressed; run gunzip on it")
        for entry in archive.entries(on_error=on_error):
            if is_tar(entry):
                for member in archive.entries(within=entry, on_error=on_error):
                    yield member._replace(name=f"{folder_of(entry)}/{member.name}")
            else:
                yield entry


def read(archive: str | os.PathLike[str] | BinaryIO, member: Member) -> bytes:
    """Reads one file of an uncompressed archive; from any thread.

    Args:
        archive: the outer tar: its path, or the open file, whose position does not matter or move.
        member: from `members`.

    Raises:
        ArchiveError: the archive ends before the member does, or the member is no image's size.
    """
    if isinstance(archive, str | os.PathLike):
        with Path(archive).open("rb") as file:
            return read(file, member)
    _check_size(archive.name, member)
    data = os.pread(archive.fileno(), member.size, member.offset)
    if len(data) < member.size:
        raise ArchiveError(
            f"{archive.name}: truncated within {member.name}: byte {member.offset + len(data)} is "
            "its last; get the archive anew"
        )
    return data


class Archive:
    """An open archive, for who wants to choose which inner tars to enter; a context manager.

    Args:
        path: of the outer tar.

    Attributes:
        path: the same.
        size: of the file in bytes.
        compressed: with gzip, whatever its name says.

    Raises:
        OSError: the file cannot be read.
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
        """How many bytes of the file, of `size`, have been passed."""
        return self._raw.tell()

    def entries(
        self, *, within: Member | None = None, on_error: OnError | None = None
    ) -> Iterator[Member]:
        """Finds the regular files of the outer tar, or of a tar within it, in their order.

        Args:
            within: an entry that is a tar: look there, not in the outer tar.
            on_error: as for `members`.

        Raises:
            ArchiveError: it is no tar; see also `on_error`.
        """
        folder = f"{folder_of(within)}/" if within else ""
        start = within.offset if within else 0
        end = min(self._end, start + within.size) if within else self._end
        where = f"{self.path}: {within.name}" if within else str(self.path)
        try:
            for member in self._members(start, end, where, folder, on_error):
                if member.offset + member.size > end and not is_tar(member):
                    raise DamagedArchiveError(
                        f"{where}: truncated at byte {end}, within {member.name}; get it anew"
                    )
                yield member
            if self.compressed and within is None:
                self._read_at(sys.maxsize, 0, where)  # gzip keeps a sum of all at the end
        except ArchiveError as error:
            if on_error is None or (within is None and isinstance(error, _NotATar)):
                raise
            on_error(error)

    def read(self, member: Member) -> bytes:
        """Reads a member; of a compressed archive only before `entries` is asked for the next.

        Raises:
            ArchiveError: as `read`.
        """
        if not self.compressed:
            return read(self._raw, member)
        _check_size(self.path, member)
        return self._read_at(member.offset, member.size, f"{self.path}: {member.name}")

    def _members(
        self, start: int, end: int, where: str, folder: str, on_error: OnError | None
    ) -> Iterator[Member]:
        """Yields the regular files with good names, whether they are complete or not."""
        seen: set[str] = set()
        for header in self._headers(start, end, where):
            if header.isdir():
                continue
            try:
                name = safe_name(header)
                check_name(folder + name)  # it may be too long in the folder of its inner tar
                if name.endswith(_TAR):
                    check_name(_stem(name))
                if name in seen:
                    raise ValueError("a member before it has the same name")
            except ValueError as error:
                message = f"{where}: left out {header.name!r} at byte {header.offset}: {error}"
                if on_error is None:
                    raise ArchiveError(message) from error
                on_error(ArchiveError(message))
                continue
            seen.add(name)
            yield Member(name, header.offset_data, header.size)

    def _headers(self, start: int, end: int, where: str) -> Iterator[tarfile.TarInfo]:
        """Yields headers with their places in the outer file and their long names.

        Raises:
            ArchiveError: the bytes from `start` to `end` are no tar, or stop before its end mark.
        """
        at = start
        records: dict[str, str] = {}
        while True:
            try:
                block = self._read_at(at, BLOCK_BYTES, where, end=end)
                if not any(block):
                    return
                header = parse_header(block, records, at)
            except ValueError as error:
                message = str(error) if isinstance(error, ArchiveError) else f"{where}: {error}"
                if at == start:
                    raise _NotATar(f"{message}. Is it a tar?") from error
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
        """Seeks; in what is compressed step by step, because few bytes may unpack to terabytes."""
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
                f"{where}: {self.position:,} bytes unpack to more than {unpacked:,}, which no "
                "archive of images does; get it from a source that you trust"
            )

    def _read_at(self, offset: int, size: int, where: str, *, end: int = sys.maxsize) -> bytes:
        """Reads exactly `size` bytes before `end`; ArchiveError says how many there are."""
        try:
            self._go_to(offset, where)
            data = self._file.read(max(0, min(size, end - offset)))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedArchiveError(
                f"{where}: cannot be uncompressed after byte {self._file.tell()} ({error}); "
                "get the archive anew"
            ) from error
        except OSError as error:
            raise DamagedArchiveError(
                f"{where}: cannot be read at byte {offset} ({error}); get the archive anew"
            ) from error
        if len(data) < size:
            raise DamagedArchiveError(
                f"{where}: truncated: it ends at byte {min(end, self._file.tell())}, without an "
                "end mark; get the archive anew"
            )
        return data


class _NotATar(DamagedArchiveError):  # noqa: N818
    """The first block is no header."""


def is_tar(member: Member) -> bool:
    """Whether a member is an inner tar, by its name."""
    return member.name.endswith(_TAR)


def folder_of(member: Member) -> str:
    """The folder that the members of an inner tar are in: sets/n01440764.tar gives n01440764.

    Raises:
        ValueError: it would be none, as that of "...tar" is; `Archive.entries` yields no such tar.
    """
    folder = _stem(member.name)
    check_name(folder)
    return folder


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(_TAR)


def _check_size(path: object, member: Member) -> None:
    if member.size > MAX_MEMBER_BYTES:
        raise ArchiveError(
            f"{path}: {member.name} has {member.size:,} bytes; an image has {MAX_MEMBER_BYTES:,} "
            "at most"
        )
