# SPDX-License-Identifier: BSD-3-Clause
"""Parses tar headers, and checks that what they say can be trusted."""

import re
import tarfile
from collections.abc import Mapping

from mlimages_jax.files.safe_paths import check_name

BLOCK_BYTES = 512
EXTENSIONS = {tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME}  # they extend the next header
# Global records, and the target of the next link: not needed here, but they may occur anywhere.
IGNORED = {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK}
_WITHOUT_DATA = {
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
}  # fmt: skip
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}  # not sparse ones, stored in pieces
_MAX_BYTES = 2**50  # limit of a member
_MAX_EXTENSION_BYTES = 2**20  # limit of a long name or of pax records
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]+)=")


def parse_header(block: bytes, records: Mapping[str, str], at: int) -> tarfile.TarInfo:
    """Parses a header.

    Args:
        block: The 512 bytes of the header.
        records: Fields from preceding extension headers.
        at: Offset of the header in the file.

    Raises:
        ValueError: If it is not a header.
    """
    try:
        # The standard library parses a header; its TarFile would also trust what the header says.
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        # Pax records replace fields of the header, which end at 8 GB and 100 characters.
        header.size = int(records.get("size", header.size))
        header.name = records.get("path", header.name)
        largest = _MAX_EXTENSION_BYTES if header.type in EXTENSIONS else _MAX_BYTES
        if not 0 <= header.size <= largest:
            raise ValueError(f"a size of {header.size} bytes")
    except (tarfile.HeaderError, ValueError) as error:
        raise ValueError(
            f"corrupt at byte {at}, where a member should begin: {error}, in {block[:12]!r}"
        ) from error
    header.offset, header.offset_data = at, at + BLOCK_BYTES
    return header


def next_header(header: tarfile.TarInfo) -> int:
    """Returns the offset of the next header."""
    blocks = 0 if header.type in _WITHOUT_DATA else -(-header.size // BLOCK_BYTES)
    return header.offset_data + blocks * BLOCK_BYTES


def parse_extension(kind: bytes, data: bytes) -> dict[str, str]:
    """Parses a long name, or `length key=value` lines up to the first malformed one (POSIX, pax).

    Args:
        kind: One of `EXTENSIONS`.
        data: Data of the extension.
    """
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.rstrip(b"\0"))}
    records = {}
    while match := _PAX_RECORD.match(data):
        length = int(match[1])
        if length <= match.end():
            break
        records[_text(match[2])] = _text(data[match.end() : length - 1])
        data = data[length:]
    return records


def safe_name(header: tarfile.TarInfo) -> str:
    """Returns the name of a regular file, without "." parts; raises ValueError if it is unsafe."""
    if header.type not in _FILES:
        raise ValueError("neither a file nor a folder")
    # tar itself writes "./a", some programs "a//b". A leading "/" is kept, to be refused.
    first, *parts = header.name.split("/")
    parts = [part for part in parts if part not in ("", ".")]
    name = "/".join(parts if first == "." else [first, *parts])
    check_name(name)
    return name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
