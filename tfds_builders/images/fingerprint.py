# SPDX-License-Identifier: BSD-3-Clause
"""Stores in metadata.json what a finished set was built from, to compare it with the input now.

Every value is a text: first a readable part, then a digest in brackets. It contains no paths of the
machine and no names of images.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging

from mlimages_jax.data.images import jpeg
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList

from .config import Config
from .content import Content
from .places import FilePlace, Places
from .unfinished import IMAGES, software

KEY = "inputs"  # in metadata.json
# Files examined per split, evenly spread: on a network file system a million of them would take
# minutes.
_MAX_FILES = 100_000

Fingerprint = Mapping[str, str]


_TO_REPLACE = (
    "Give --overwrite to replace it, which keeps it until the new set is complete, or another "
    "--name to build a second set."
)


class StaleSetError(ValueError):
    """The finished set was built from other input or with other options than requested."""


def of(
    content: Content, option: Config, num_rows: Mapping[str, int], num_shards: Mapping[str, int]
) -> dict[str, str]:
    """Returns everything that a set depends on and that the user chooses.

    Args:
        content: Its input.
        option: How it is stored.
        num_rows: Number of rows used of each split.
        num_shards: Number of files of each split.
    """
    result = {
        "labels": option.labels,
        "short side": f"{option.short_side} pixels" if option.short_side else "as the files have",
        "chroma": option.chroma,
        "orientation": option.orientation,
        # Named only where it was chosen: sets of before there was a choice stay as they are.
        **({"restart markers": "yes"} if option.restart_markers else {}),
        "missing labels": "unknown" if content.missing_labels < 0 else "absent",
        "classes": _text(f"{len(content.hierarchy):,}", of_classes(content.hierarchy)),
    }
    for split, count in num_rows.items():
        rows, places = content.lists[split], content.places[split]
        path = hashlib.sha256(places.fingerprint().encode()).hexdigest()
        result |= {
            f"list of {split}": _text(f"{count:,} images", of_rows(rows)),
            f"source of {split}": _text("a folder or an archive", path),
            f"{IMAGES}{split}": _text("sizes and times", _of_files(rows, places, count)),
            f"files of records of {split}": f"{num_shards[split]:,}",
        }
    return result


def of_shards(
    content: Content,
    option: Config,
    made_of: Fingerprint,
    *,
    version: str,
    verified: bool,
    rows: Mapping[str, range],
) -> dict[str, str]:
    """Returns everything that the bytes of the shards depend on.

    Args:
        content: The input of the set.
        option: How it is stored.
        made_of: What `of` returned.
        version: Version of the set.
        verified: Whether images that keep their bytes are not decoded as a check.
        rows: The rows of one shard of each split.
    """
    return {
        "version": version,
        "labels": option.labels,
        "short_side": str(option.short_side),
        "verified": str(verified),
        "chroma": option.chroma,
        "orientation": option.orientation,
        "restart markers": str(option.restart_markers),
        "progressive files": "rewritten" if jpeg.is_compiled() else "kept",
        **{f"shards of {split}": f"{one.step}, {one.stop} rows" for split, one in rows.items()},
        **{f"images of {split}": places.fingerprint() for split, places in content.places.items()},
        "classes": made_of["classes"],
        "software": software(),
        **{f"rows of {split}": made_of[f"list of {split}"] for split in content.lists},
    }


def of_classes(hierarchy: Hierarchy) -> str:
    """Returns a digest of ids, names and parents."""
    classes = hashlib.sha256(repr((hierarchy.ids, hierarchy.names)).encode())
    classes.update(hierarchy.parents.tobytes())
    return classes.hexdigest()


def of_rows(rows: LabelList) -> str:
    """Returns a digest of names and labels."""
    digest = hashlib.sha256()
    # The arrays themselves: 17.6 million rows as text would take a minute.
    for column in (rows.names, rows.name_offsets, rows.offsets, rows.classes, rows.confidences):
        digest.update(column.data)
    return digest.hexdigest()


def _of_files(rows: LabelList, places: Places, count: int) -> str:
    """Returns a digest of sizes and times of single files; archives have their own fingerprint."""
    digest = hashlib.sha256()
    for number in range(0, count, -(-count // _MAX_FILES)):
        place = places.place(number, rows.name(number))
        if not isinstance(place, FilePlace):
            continue
        try:
            status = os.stat(place.path)  # noqa: PTH116 a third of the time
            digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
        except (OSError, ValueError):  # a missing file may appear later, so it counts too
            digest.update(b"-\n")
    return digest.hexdigest()


def _text(readable: str, digest: str) -> str:
    return f"{readable} [{digest[:16]}]"


def check(
    folder: Path | str, metadata: str, now: Fingerprint, *, advice: str = _TO_REPLACE
) -> None:
    """Refuses a finished set that was built from something else.

    Sets of an earlier release do not state what they were built from, and pass.

    Args:
        folder: Path or URL of the set.
        metadata: The text of its metadata.json.
        now: Fingerprint of the requested build.
        advice: What to do, for the message.

    Raises:
        StaleSetError: Something differs; the message says what, and both ways to proceed.
    """
    found = json.loads(metadata)
    if KEY not in found:
        logging.warning(
            "%s was built by an earlier release, which did not record its input: it is used as is,"
            " without turning its images by EXIF. --overwrite rebuilds it",
            folder,
        )
    elif lines := differences(found[KEY], now):
        raise StaleSetError(
            f"{folder} already exists and was built from other input or with other options:\n"
            + "\n".join(f"  {line}" for line in lines)
            + f"\nIt was not changed. {advice}"
        )


def differences(then: Fingerprint, now: Fingerprint) -> Sequence[str]:
    """Returns the differences, one line each."""
    names = [*now, *(name for name in then if name not in now)]
    return [
        _difference(name, then.get(name), now.get(name))
        for name in names
        if then.get(name) != now.get(name)
    ]


def _difference(name: str, then: str | None, now: str | None) -> str:
    if then is None or now is None:
        return f"{name}: {'not in the set' if then is None else 'only in the set'}"
    before, after = (value.partition(" [")[0] for value in (then, now))
    if before == after:
        return f"{name}: differs ({after})"
    return f"{name}: {before} in the set, {after} now"
