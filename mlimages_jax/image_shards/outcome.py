# SPDX-License-Identifier: BSD-3-Clause
"""The outcome of one image of a list: a row of a manifest, whatever kind of file that is."""

import dataclasses
import math
from typing import Any

from mlimages_jax.files.escaping import one_line

OK = "ok"
FAILED = "failed"
_MAX_INTEGER = 2**63 - 1
_TEXTS = ("source", "error", "message", "license", "author")  # free text; other columns are keys
_LONGEST_TEXT = 2000  # characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """A row of a manifest.

    Attributes:
        name: Name in the list: a URL or a path.
        status: OK or FAILED.
        time: When the outcome became known, in seconds since 1970 (UTC).
        file: Path of the image relative to the folder of images; None unless OK. In image shards it
            is a name alone, under which label lists have the image.
        source: Where it came from, such as "list", "thumbnail", "mirror" or an archive's name.
        http_status: HTTP status of the last response, if there was one.
        num_bytes: Size as received.
        sha256: SHA-256 of the bytes as received, 32 bytes.
        width: Width of the file's image in pixels.
        height: Height of the file's image in pixels.
        file_sha256: SHA-256 of the file if it is not the bytes as received (shrunk on arrival).
        error: Machine-readable reason of the failure, one word; None if OK.
        message: Explanation of the failure for the user.
        license: Licence of the image, as stated by its source.
        author: Author of the image, as stated by its source.
        rotation: Degrees to rotate the image counter-clockwise, from Open Images' table.
    """

    name: str
    status: str
    time: float
    file: str | None = None
    source: str | None = None
    http_status: int | None = None
    num_bytes: int | None = None
    sha256: bytes | None = None
    width: int | None = None
    height: int | None = None
    file_sha256: bytes | None = None
    error: str | None = None
    message: str | None = None
    license: str | None = None
    author: str | None = None
    rotation: float | None = None


COLUMNS = [field.name for field in dataclasses.fields(Image)]


def printable(image: Image) -> Image:
    """Returns a row whose free text is escaped, on one line and of limited length."""
    texts = {name: text for name in _TEXTS if (text := getattr(image, name)) is not None}
    shown: dict[str, Any] = {name: _shown(text) for name, text in texts.items()}
    return image if shown == texts else dataclasses.replace(image, **shown)


def storable(value: Any) -> Any:
    """Returns a value that every manifest can store: surrogates escaped, odd numbers None."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _shown(text: str) -> str:
    return one_line(text[:_LONGEST_TEXT]) + ("..." if len(text) > _LONGEST_TEXT else "")
