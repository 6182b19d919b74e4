# SPDX-License-Identifier: BSD-3-Clause
"""Reads the samples of WebDataset's tars: members that follow each other with the same key.

    a/cat.jpg   a/cat.json   a/cat.cls        the sample a/cat: the key ends at the first dot of the
                                              file's name, what follows it names the part

Only the labels are read; where the images are, the builder finds again. Nothing is unpacked, and
only short texts are parsed.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlimages_jax.data.archives import Archive, ArchiveError, Member
from mlimages_jax.data.image_folders import EXTENSIONS
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.records import Record

IMAGE = "(image)"  # stands for the column of the images' names
CLS, JSON, TXT = "cls", "json", "txt"
_KEY = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
_MAX_LABEL_BYTES = 1 << 20
_SHOWN_PARTS = 8


class Sample(NamedTuple):
    """Members of a tar that belong together.

    Attributes:
        key: What their names share.
        parts: The members by the rest of their names, in lower case.
    """

    key: str
    parts: dict[str, Member]


class TarSamples:
    """The samples of a tar; `Records` whose paths are those of the images below a folder.

    Args:
        path: The tar.
        top: The folder.
        image: The part of a sample that is the image ("jpg", "left.png"); None: its only image.

    Attributes:
        path: The same.
        format: As in `Records`, like the following.
        names: Parts and JSON keys that samples have; set it before a `Table` is made.
        classes: Empty: tars do not describe their labels.
    """

    def __init__(self, path: Path, *, top: Path, image: str | None = None):
        self.path = path
        self._folder = path.relative_to(top).as_posix()
        self._image = image and image.lower().lstrip(".")
        self.format = "WebDataset"
        self.names: tuple[str, ...] = (IMAGE,)
        self.classes: dict[str, Sequence[str]] = {}

    def read(self, limit: int | None, columns: Sequence[str] | None) -> Iterator[Record]:
        """Yields the samples with their labels, see `Records`; numbers are those of samples.

        Raises:
            PrepareError: The tar is compressed, or is none.
            OSError: It cannot be read.
        """
        number = 0
        with Archive(self.path) as archive:
            for one in samples(archive):
                if isinstance(one, ArchiveError):
                    yield number + 1, str(one).removeprefix(f"{self.path}: ")
                    continue
                number += 1
                yield number, self._row(archive, one, columns)
                if number == limit:
                    return

    def _row(
        self, archive: Archive, sample: Sample, columns: Sequence[str] | None
    ) -> dict[str, Any] | str:
        try:
            image = self._image_of(sample)
            row = _labels_of(archive, sample, columns)
        except (ArchiveError, ValueError, RecursionError) as error:
            return f"the sample {sample.key!r}: {error}"
        return row | {IMAGE: f"{self._folder}/{image.name}"}

    def _image_of(self, sample: Sample) -> Member:
        if self._image is not None:
            if self._image not in sample.parts:
                raise ValueError(f"there is no {self._image}, only {_shown(sample.parts)}")
            return sample.parts[self._image]
        images = [part for part in sample.parts if is_image(part)]
        if len(images) != 1:
            raise ValueError(
                f"there is no image, only {_shown(sample.parts)}"
                if not images
                else f"{_shown(images)} are images: choose one with --image-column NAME"
            )
        return sample.parts[images[0]]


def samples(archive: Archive) -> Iterator[Sample | ArchiveError]:
    """Groups the members of a tar; what is unusable is an error in its place.

    Members whose names have no key or no part belong to no sample.

    Raises:
        PrepareError: It is no tar, or is compressed.
    """
    if archive.compressed:
        raise PrepareError(
            f"{archive.path}: compressed, so that no image could be read by itself: decompress it "
            "with gunzip first"
        )
    errors: list[ArchiveError] = []
    current = Sample("", {})
    try:
        for member in archive.entries(on_error=errors.append):
            yield from errors
            errors.clear()
            match = _KEY.fullmatch(member.name)
            if match is None:
                continue
            if match[1] != current.key:
                if current.parts:
                    yield current
                current = Sample(match[1], {})
            current.parts.setdefault(match[2].lower(), member)
    except ArchiveError as error:
        raise PrepareError(f"{error}; copy or download it again") from error
    if current.parts:
        yield current
    yield from errors


def is_image(part: str) -> bool:
    """Returns whether a part of a sample is an image, by the end of its name."""
    return part.rpartition(".")[2] in EXTENSIONS


def _labels_of(
    archive: Archive, sample: Sample, columns: Sequence[str] | None
) -> dict[str, object]:
    """Returns the parts that can be labels, and the values of JSON objects by their keys.

    Raises:
        ValueError: A text is too long or damaged.
    """
    row: dict[str, object] = {}
    for part, member in sample.parts.items():
        last = part.rpartition(".")[2]
        if last == JSON:
            # Its keys are columns, too: which ones, only reading it tells.
            if columns is None or not {*columns} <= {IMAGE, *sample.parts} or part in columns:
                row |= _json_of(part, _text(archive, part, member))
        elif (last in (CLS, TXT) and columns is None) or (columns and part in columns):
            row[part] = _text(archive, part, member).strip()
    return row


def _json_of(part: str, text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{part} is not JSON ({error})") from error
    return {**value, part: value} if isinstance(value, dict) else {part: value}


def _text(archive: Archive, part: str, member: Member) -> str:
    if member.size > _MAX_LABEL_BYTES:
        raise ValueError(
            f"{part} has {member.size:,} bytes; the limit for labels is {_MAX_LABEL_BYTES:,}"
        )
    try:
        return archive.read(member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{part} is not UTF-8 text ({error.reason})") from error


def _shown(parts: Collection[str]) -> str:
    some = ", ".join([*parts][:_SHOWN_PARTS])
    return some + (", ..." if len(parts) > _SHOWN_PARTS else "")
