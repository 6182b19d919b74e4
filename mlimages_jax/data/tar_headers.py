# SPDX-License-Identifier: BSD-3-Clause
"""One block of a tar to what it says about a member, and whether that can be believed."""

import re
import tarfile
from collections.abc import Mapping

from mlimages_jax.files.safe_paths import check_name

BLOCK_BYTES = 512
EXTENSIONS = {tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME}  # they say more about the next header
# Of all members, and of the next one's link: neither matters here. They may stand between others.
IGNORED = {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK}
_WITHOUT_DATA = {
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
}  # fmt: skip
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}  # sparse ones lie there in pieces
_MAX_BYTES = 2**50  # of a member
_MAX_EXTENSION_BYTES = 2**20  # of a long name or of pax records
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]+)=")


def parse_header(block: bytes, records: Mapping[str, str], at: int) -> tarfile.TarInfo:
    """Reads a header.

    Args:
        block: 512 bytes.
        records: what extensions before it said.
        at: where it lies.

    Raises:
        ValueError: it is none.
    """
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
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
    """Where the header after this one lies."""
    blocks = 0 if header.type in _WITHOUT_DATA else -(-header.size // BLOCK_BYTES)
    return header.offset_data + blocks * BLOCK_BYTES


def parse_extension(kind: bytes, data: bytes) -> dict[str, str]:
    """Reads a long name, or `length key=value` lines as far as they are sound (POSIX, pax).

    Args:
        kind: of `EXTENSIONS`.
        data: of the member.
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
    """Returns the name of a regular file, without "." parts; ValueError says why it has none."""
    if header.type not in _FILES:
        raise ValueError("neither a file nor a folder")
    # tar itself writes "./a", some programs "a//b". A "/" at the very front is not dropped.
    first, *parts = header.name.split("/")
    parts = [part for part in parts if part not in ("", ".")]
    name = "/".join(parts if first == "." else [first, *parts])
    check_name(name)
    return name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
