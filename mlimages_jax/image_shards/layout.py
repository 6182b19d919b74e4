# SPDX-License-Identifier: BSD-3-Clause
"""The files of a folder of image shards, and how the names of a list are divided into parts."""

import json
import re
from typing import NamedTuple

from mlimages_jax.files.object_folder import ObjectFolder

SHARDS = "shards"  # the folder of the files below
RECORDS = ".array_record"
MANIFEST = ".parquet"
LAYOUT = "layout.json"
BY_HOST, BY_TAR = "host", "tar"
_FORMAT = 1  # version of all of this
_MANIFEST_NAME = re.compile(r"[0-9a-z-]{1,80}\.parquet")


class ImageShardError(ValueError):
    """A folder of image shards, or a file in it, cannot be used; the message says what to do."""


class Layout(NamedTuple):
    """How the names of a folder are divided into parts.

    Attributes:
        parts: Number of parts.
        by: What decides: "host" of the URL, or "tar", the archive that the image is in.
    """

    parts: int
    by: str

    def part_name(self, part: int) -> str:
        """Returns the name of a part, with which those of its files begin."""
        return f"{part:05d}-of-{self.parts:05d}"


def settle_layout(folder: ObjectFolder, wanted: Layout) -> None:
    """Writes the layout of a new folder, or compares it with that of an earlier run.

    A shard says of which part it is; with other parts, names handled before would not be found.

    Raises:
        ImageShardError: The folder has another layout, or its file is damaged.
    """
    try:
        found = read_layout(folder)
    except FileNotFoundError:
        values = {"format": _FORMAT, **wanted._asdict()}
        folder.write(LAYOUT, json.dumps(values).encode())
        return
    if found.by != wanted.by:
        raise ImageShardError(
            f"{folder} has image shards of another command (parts by {found.by}): give another "
            "--output; the commands that read shards take any number of folders"
        )
    if found != wanted:
        raise ImageShardError(
            f"{folder} was begun with {found.parts} parts by {found.by}, not {wanted.parts} by "
            f"{wanted.by}: give --shards {found.parts}, or another --output"
        )


def read_layout(folder: ObjectFolder) -> Layout:
    """Reads the layout of a folder.

    Raises:
        FileNotFoundError: It has none.
        ImageShardError: Its file is damaged.
    """
    return _parse(folder.read(LAYOUT), folder.path(LAYOUT))


def manifest_names(folder: ObjectFolder, *, part: str = "") -> list[str]:
    """Returns the names of the manifests in the folder, sorted, perhaps of one part only."""
    return sorted(
        f"{SHARDS}/{name}"
        for name in folder.sizes(SHARDS)
        if name.startswith(part) and _MANIFEST_NAME.fullmatch(name)
    )


def _parse(data: bytes, where: str) -> Layout:
    try:
        values = json.loads(data)
        version, layout = values["format"], Layout(values["parts"], values["by"])
        if version == _FORMAT and (type(layout.parts) is not int or layout.parts < 1):
            raise ValueError(f"{layout.parts!r} parts")
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ImageShardError(
            f"{where}: damaged ({error}): write it again, as "
            f'{{"format": {_FORMAT}, "parts": N, "by": "host"}} with the N of --shards'
        ) from error
    if version != _FORMAT or not isinstance(layout.by, str):
        raise ImageShardError(
            f"{where}: of format {version!r}, this program reads {_FORMAT}: use the version that "
            "wrote it"
        )
    return layout
