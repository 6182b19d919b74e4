# SPDX-License-Identifier: BSD-3-Clause
"""What a finished set was made of, in its metadata.json, and how that differs from what is there.

Every value is text: what a person can compare, then, in brackets, a digest. No path of a machine
and no name of an image is in it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList

from .config import Config
from .content import Content
from .places import FilePlace, Places
from .unfinished import IMAGES

KEY = "inputs"  # in metadata.json
# At most so many files of a split are looked at, evenly spread: on a network file system a million
# of them would take minutes.
_MAX_FILES = 100_000

Fingerprint = Mapping[str, str]


class StaleSetError(ValueError):
    """A finished set that was made of something else than what is to be built."""


def of(
    content: Content, option: Config, num_rows: Mapping[str, int], num_shards: Mapping[str, int]
) -> dict[str, str]:
    """All that a set depends on and a person chooses.

    Args:
      content: Its input.
      option: How it is stored.
      num_rows: Of each split, those that are used.
      num_shards: Files of each split.
    """
    result = {
        "labels": option.labels,
        "short side": f"{option.short_side} pixels" if option.short_side else "as the files have",
        "chroma": option.chroma,
        "orientation": option.orientation,
        "missing labels": "unknown" if content.unlisted < 0 else "absent",
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


def of_classes(hierarchy: Hierarchy) -> str:
    """A digest of ids, names and parents."""
    classes = hashlib.sha256(repr((hierarchy.ids, hierarchy.names)).encode())
    classes.update(hierarchy.parents.tobytes())
    return classes.hexdigest()


def of_rows(rows: LabelList) -> str:
    """A digest of names and labels."""
    digest = hashlib.sha256()
    for column in (rows.names, rows.name_offsets, rows.offsets, rows.classes, rows.confidences):
        digest.update(column.data)
    return digest.hexdigest()


def _of_files(rows: LabelList, places: Places, count: int) -> str:
    """A digest of sizes and times of single files; an archive's fingerprint tells its own."""
    digest = hashlib.sha256()
    for number in range(0, count, -(-count // _MAX_FILES)):
        place = places.place(number, rows[number].name)
        if not isinstance(place, FilePlace):
            break
        try:
            status = Path(place.path).stat()
            digest.update(b"%d %d\n" % (status.st_size, status.st_mtime_ns))
        except (OSError, ValueError):  # missing, say; it may come later
            digest.update(b"-\n")
    return digest.hexdigest()


def _text(readable: str, digest: str) -> str:
    return f"{readable} [{digest[:16]}]"


def check(folder: Path, now: Fingerprint) -> None:
    """Refuse a finished set that was made of something else.

    A set of an earlier release does not say of what it was made, and passes.

    Args:
      folder: Of the set.
      now: What is to be built.

    Raises:
      StaleSetError: Says what differs, and both ways on.
    """
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    if KEY not in metadata:
        logging.warning(
            "%s was built by an earlier release, which did not note its input: it is used as it is,"
            " its images not turned by EXIF. --overwrite builds it anew",
            folder,
        )
    elif lines := differences(metadata[KEY], now):
        raise StaleSetError(
            f"{folder} already exists and was built from other input or with other options:\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nIt stays as it is. Give --overwrite to build anew in its place, which keeps it"
            " until the new set is complete, or another --name to build beside it."
        )


def differences(then: Fingerprint, now: Fingerprint) -> Sequence[str]:
    """What differs, one line each."""
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
