# SPDX-License-Identifier: BSD-3-Clause
"""Downloads one large file by HTTP, and resumes where an earlier attempt stopped.

For files that a user asks for by name. Lists of a million URLs of strangers are another matter:
`prepare.download` fetches small files from many hosts, with limits, queues and guards, and has no
use for the rest of a file.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ATTEMPTS = 5
PAUSE = 2.0  # seconds before the second attempt, doubled each time
_BLOCK = 1 << 20  # bytes
_TIMEOUT = 60.0  # seconds without a byte
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_PART, _STATE = ".part", ".part.json"


class DownloadError(Exception):
    """The file could not be fetched; the message says what to do next."""


class WebPageError(DownloadError):
    """The server answered with a page for people instead of the file."""


class _Version(NamedTuple):
    """The identity of a file of which a part was fetched.

    Attributes:
        url: Its URL.
        validator: The header ETag or Last-Modified; "" if there is none.
        size: Its size in bytes; -1 if unknown.
    """

    url: str
    validator: str
    size: int


class _InterruptedError(Exception):
    """The connection broke; the part that arrived is kept."""


def download(url: str, path: Path, *, max_bytes: int, tell: Callable[[str], None] = print) -> None:
    """Writes the file at a URL, which gets its name when it is complete.

    What arrives before an interruption is kept in PATH.part, and the next call asks for the rest,
    provided that the server still has the same file (ETag, Last-Modified or size).

    Args:
        url: Its URL.
        path: The file to write; replaced.
        max_bytes: Size that is refused.
        tell: Called with a line when an attempt broke off.

    Raises:
        WebPageError: The server answered with HTML.
        DownloadError: It refused, the connection broke ATTEMPTS times in a row without a byte, or
            the file is too large.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + _PART)
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _attempt(url, part, max_bytes=max_bytes)
            break
        except (_InterruptedError, OSError, http.client.HTTPException) as error:
            after = part.stat().st_size if part.exists() else 0
            # A large file may need many connections: only those in a row without a byte count.
            tries = 1 if after > before else tries + 1
            if tries >= ATTEMPTS:
                raise DownloadError(
                    f"{url}: {_line(error)}: run the same command again, which resumes at byte "
                    f"{after:,}"
                ) from error
            tell(f"{url}: {_line(error)}; resuming at byte {after:,}")
            time.sleep(PAUSE * 2 ** (tries - 1))
    part.replace(path)
    _state_of(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, *, max_bytes: int) -> None:
    """Requests the file, or the rest of it, and appends what arrives."""
    known = _known(part)
    start = part.stat().st_size if known and known.url == url and part.exists() else 0
    # identity: byte positions of a compressed answer would not be those of the file.
    headers = {"User-Agent": "mlimages_jax", "Accept-Encoding": "identity"}
    if start and known:
        headers["Range"] = f"bytes={start}-"
        if known.validator:
            # Another file is then sent whole, with status 200 instead of 206 (RFC 9110, 13.1.5).
            headers["If-Range"] = known.validator
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            _refused(url, error, part, start)
        return
    with response:
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise WebPageError(f"{url} answered with a web page instead of a file")
        start = start if response.status == 206 else 0
        version = _Version(url, _validator(response.headers), _size(response, start))
        if start and known and known.size != version.size:
            part.unlink()  # another file by now
            raise _InterruptedError("the file has changed on the server")
        if version.size > max_bytes:
            raise DownloadError(f"{url} has {version.size:,} bytes, more than {max_bytes:,}")
        _state_of(part).write_text(json.dumps(version))
        _append(response, part, start, version.size, max_bytes=max_bytes)


def _append(response: Any, part: Path, start: int, size: int, *, max_bytes: int) -> None:
    written = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while block := response.read(_BLOCK):
            written += len(block)
            if written > max_bytes:
                raise DownloadError(f"{response.url} has more than {max_bytes:,} bytes")
            file.write(block)
    if size >= 0 and written != size:
        raise _InterruptedError(f"{written:,} of {size:,} bytes arrived")


def _refused(url: str, error: urllib.error.HTTPError, part: Path, start: int) -> None:
    """Deals with an error status; returns if the file is already complete."""
    if error.code == 416 and start:
        # "Content-Range: bytes */SIZE" (RFC 9110, 15.5.17): the part may already be all of it.
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
            return
        part.unlink()  # longer than the file: of another version
        raise _InterruptedError("the file has changed on the server")
    if error.code in _PASSING:
        raise _InterruptedError(f"HTTP {error.code} {error.reason}")
    raise DownloadError(f"{url}: HTTP {error.code} {error.reason}")


def _known(part: Path) -> _Version | None:
    try:
        url, validator, size = json.loads(_state_of(part).read_text())
        return _Version(str(url), str(validator), int(size))
    except (OSError, ValueError, TypeError):
        return None


def _state_of(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(_PART) + _STATE)


def _validator(headers: Any) -> str:
    """A strong ETag, else the time of the last change; RFC 9110 allows no weak one here."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _size(response: Any, start: int) -> int:
    """Size of the file in bytes; -1 if the server does not say."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    if response.status == 206 and whole.isdigit():
        return int(whole)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else -1


def _line(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(f"{reason}".split()) or type(error).__name__
