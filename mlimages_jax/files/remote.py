# SPDX-License-Identifier: BSD-3-Clause
"""Files of a workdir that may lie on object storage (gs://), which is no disk in two ways.

An object cannot be appended to: gcsfs takes mode "a" for "w", and each line would replace those
before it. And gcsfs remembers what a listed folder held and how long its files were: what another
process writes later is not seen, or cut off. This module turns that off, if gs:// was not used
before it is imported.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from etils import epath

from mlimages_jax.files.atomic import complete_file

_BLOCK = 4_096  # bytes that are looked at from the end of a file, again and again

fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is a URL."""
    return "://" in os.fspath(path)


def write_text(path: epath.PathLike, text: str) -> None:
    """Puts a text in the place of a file; who reads meanwhile sees all of the old or of the new."""
    if is_remote(path):  # an object appears when it is complete
        epath.Path(path).write_text(text)
        return
    with complete_file(Path(path)) as unfinished:
        unfinished.write_text(text)


def append_line(path: epath.PathLike, line: str) -> None:
    """Adds a line to a file, which is made when absent; its folder exists.

    What a kill left of a line before it is removed first: glued to it, both would be lost.

    An object is read and written again as a whole, in five requests. A training does so twice every
    `log_every` steps, for metrics.jsonl and goodput.jsonl, while the devices go on with the steps
    they were given; both stay below a few MB, as a line has some hundred bytes. A kill leaves the
    object with the line or without it, never cut off. Only one process may write to it.
    """
    path = epath.Path(path)
    added = f"{line}\n".encode()
    if not is_remote(path):
        with Path(path).open("ab+") as file:
            _end_last_line(file)
            file.write(added)
        return
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = b""
    path.write_bytes(before + added)


def read_json_lines(path: epath.PathLike) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; lines that were cut off, or are none, are left out.

    Yields nothing where there is no file.
    """
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        if (value := _json_object(line)) is not None:
            yield value


def _end_last_line(file: BinaryIO) -> None:
    """Ends a last line that lacks its end where it is whole, and removes what is half of one."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    tail, start = b"", end
    while start and b"\n" not in tail:
        size = min(_BLOCK, start)
        start -= size
        file.seek(start)
        tail = file.read(size) + tail
    last = tail[tail.rfind(b"\n") + 1 :]
    if _json_object(last) is None:
        file.truncate(end - len(last))
    else:
        file.write(b"\n")


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:  # of JSON, or of UTF-8: a file system may leave zeros after a loss of power
        return None
    return value if isinstance(value, dict) else None
