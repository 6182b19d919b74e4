# SPDX-License-Identifier: BSD-3-Clause
"""Files of a workdir that may lie on object storage (gs://), which is no disk in two ways.

An object cannot be appended to: gcsfs takes mode "a" for "w", and each line would replace those
before it. And gcsfs remembers what a listed folder held and how long its files were: what another
process writes later is not seen, or cut off. This module turns that off, if gs:// was not used
before it is imported.
"""

import os
from pathlib import Path

import fsspec
from etils import epath

from mlimages_jax.complete_file import complete_file

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

    An object is read and written again as a whole, in five requests. A training does so twice every
    `log_every` steps, for metrics.jsonl and goodput.jsonl, while the devices go on with the steps
    they were given; both stay below a few MB, as a line has some hundred bytes. A kill leaves the
    object with the line or without it, never cut off. Only one process may write to it.
    """
    path = epath.Path(path)
    added = f"{line}\n".encode()
    if not is_remote(path):
        with path.open("ab") as file:
            file.write(added)
        return
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = b""
    path.write_bytes(before + added)
