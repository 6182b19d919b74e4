# SPDX-License-Identifier: BSD-3-Clause
"""A list of URLs in which a fifth fail, in every possible way, and a check of its download."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.image_shards.outcome import OK, Image
from mlimages_jax.prepare.manifest import Manifest, ManifestError

HOSTS = 7  # photos0.test to photos6.test, which an address map leads to the image server
CLOSED_HOST = "closed.test"  # refuses connections
MISSING = "no row"

# Kind of URL (see image_server.py) -> the expected value of the manifest's column `error`.
FAULTS = {
    "403": "http_403",
    "404": "http_404",
    "410": "http_410",
    "429": "http_429",
    "500": "http_500",
    "http-date": "http_503",
    "timeout": "timeout",
    "stall": "timeout",
    "reset": "incomplete",
    "hangup": "connection",
    "closed": "connection",
    "truncated": "incomplete",
    "cut": "truncated",
    "html": "not_an_image",
    "empty": "empty",
    "bomb": "too_large",
    "placeholder": "placeholder",
    "unavailable": "placeholder",
    "loop": "redirects",
    "to-file": "redirects",
    "large": "too_many_bytes",
    "endless": "too_many_bytes",
    "ftp": "bad_url",
}
GOOD = ("redirect", "chunked", "slow", "png", "cmyk", "flaky", "busy")  # and "ok"
EXPECTED = dict.fromkeys(("ok", *GOOD), OK) | FAULTS


class FaultyUrl(NamedTuple):
    """A URL and its kind, a key of `EXPECTED`."""

    url: str
    kind: str

    @property
    def path(self) -> str:
        """The path under which the server counts requests."""
        return "/" + self.url.split("/", 3)[3].partition("?")[0]


def faulty_urls(count: int, *, hosts: int = HOSTS) -> Iterator[FaultyUrl]:
    """Yields URLs: every fifth fails, kinds in turn; of the others every twentieth is unusual."""
    faults = list(FAULTS)
    for i in range(count):
        if i % 5 == 4:
            kind = faults[i // 5 % len(faults)]
        elif i % 25 == 0:
            kind = GOOD[i // 25 % len(GOOD)]
        else:
            kind = "ok"
        yield FaultyUrl(_url(kind, i, hosts), kind)


def _url(kind: str, i: int, hosts: int) -> str:
    host = f"photos{i % hosts}.test"
    if kind == "closed":
        return f"http://{CLOSED_HOST}/ok/{i}.jpg"
    if kind == "ftp":
        return f"ftp://{host}/ok/{i}.jpg"
    if kind == "to-file":
        return f"http://{host}/to/file%3A%2F%2F%2Fetc%2F{i}.jpg"
    return f"http://{host}/{kind}/{i}.jpg"


def outcomes(output: Path, count: int) -> dict[str, Counter[str]]:
    """Counts, by kind, what the manifest says about the URLs: ok, an error, or no row at all."""
    found = recorded(output)
    result: dict[str, Counter[str]] = {kind: Counter() for kind in EXPECTED}
    for url, kind in faulty_urls(count):
        row = found.pop(url, None)
        result[kind][MISSING if row is None else row.error or row.status] += 1
    if found:
        raise AssertionError(f"{len(found)} rows of URLs that are not in the list: {min(found)}")
    return result


def recorded(output: Path) -> dict[str, Image]:
    """Returns the rows of the manifest by URL."""
    with Manifest(output / "manifest.sqlite", readonly=True) as manifest:
        return {row.name: row for row in manifest}


def recorded_so_far(output: Path) -> dict[str, Image]:
    """Returns the rows after a kill, or none if it came before the manifest was created."""
    try:
        return recorded(output)
    except (FileNotFoundError, ManifestError):  # damage is not hidden: the next download would stop
        return {}


def surprises(kinds: Mapping[str, Counter[str]]) -> int:
    """Counts the URLs with an unexpected outcome."""
    return sum(sum(found.values()) - found[EXPECTED[kind]] for kind, found in kinds.items())


def files_amiss(output: Path) -> list[str]:
    """Lists the files on which the image folder and the manifest disagree."""
    rows = {row.file: row for row in recorded(output).values() if row.file is not None}
    images = output / "images"
    there = {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()}
    found = [f"{name}: a file without a row" for name in sorted(there - set(rows))]
    for name, row in rows.items():
        if row.status != OK:
            found.append(f"{name}: a file of a failed URL")
        elif name not in there:
            found.append(f"{name}: a row without a file")
        else:
            data = (images / name).read_bytes()
            if (len(data), hashlib.sha256(data).digest()) != (row.num_bytes, row.sha256):
                found.append(f"{name}: its bytes differ from its row")
    unfinished = output.glob("unfinished*/*")
    return found + [f"{path}: a temporary file" for path in unfinished]
