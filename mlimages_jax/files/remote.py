# SPDX-License-Identifier: BSD-3-Clause
"""Files of a workdir that may be on object storage (gs://), which differs from a disk in two ways.

Objects cannot be appended to: gcsfs treats mode "a" as "w", so each line would overwrite the
previous ones. And gcsfs caches listings with file sizes, so later writes of other processes are
missed or truncated. Importing this module disables that cache, provided that gs:// has not been
used before.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from etils import epath

from mlimages_jax.files import s3
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.interrupts import held_back

_BLOCK = 4_096  # bytes per read when searching backwards for the last line

fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
s3.choose()


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is a URL, such as gs://bucket/run."""
    return "://" in os.fspath(path)


def write_text(path: epath.PathLike, text: str) -> None:
    """Replaces a file atomically: concurrent readers see either the old or the new text."""
    if is_remote(path):  # objects are replaced atomically
        with held_back():
            epath.Path(path).write_text(text)
        return
    with complete_file(Path(path)) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def append_line(path: epath.PathLike, line: str) -> None:
    """Appends a line to a file, which is created if missing; its folder must exist.

    First removes a partial line left by a kill, which would otherwise corrupt the new line too.

    On object storage the complete object is read and rewritten, in five requests. A training does
    so twice every `log_every` steps, for metrics.jsonl and goodput.jsonl, while the devices execute
    the steps already dispatched. Both files stay below a few MB, with a few hundred bytes per line.
    A kill leaves the object with or without the line, never truncated. Only one process may write
    to it.
    """
    path = epath.Path(path)
    added = f"{line}\n".encode()
    if not is_remote(path):
        # In append mode every write goes to the end, wherever reading has left the position.
        with Path(path).open("ab+") as file:
            _end_last_line(file)
            file.write(added)
        return
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = b""
    with held_back():
        path.write_bytes(before + added)


def read_json_lines(path: epath.PathLike) -> Iterator[dict[str, Any]]:
    """Yields the JSON objects of a file, one per line; skips truncated and malformed lines.

    Yields nothing if the file does not exist.
    """
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        if (value := _json_object(line)) is not None:
            yield value


def _end_last_line(file: BinaryIO) -> None:
    """Completes a last line without a line break: adds one, or removes a partial JSON object."""
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
    # A write can end anywhere: either only the line break is missing, or part of the object too.
    if _json_object(last) is None:
        file.truncate(end - len(last))
    else:
        file.write(b"\n")


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:  # not JSON or not UTF-8: a power failure may leave a tail of zeros
        return None
    return value if isinstance(value, dict) else None
