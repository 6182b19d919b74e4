# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of a split with their classes: of a folder, or of an archive."""

import collections
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from mlimages_jax.data import archives
from tfds_builders.pictures.places import Folder, Places, TarArchive

from . import manual_files
from .classes import read_truth

_SHOWN_FOLDERS = 3
_NUMBER = re.compile(r"([0-9]+)\.[A-Za-z]+")  # ILSVRC2012_val_00000001.JPEG


class Listing(NamedTuple):
    """The pictures of a split.

    Attributes:
      names: Of the records.
      classes: The class id of each.
      places: Where they lie.
    """

    names: Sequence[str]
    classes: Sequence[str]
    places: Places


def list_pictures(source: manual_files.Source, *, subset: bool) -> Listing:
    """Find all pictures of a split.

    Args:
      source: From `manual_files.find_source`.
      subset: An archive may hold fewer pictures than the labels file has lines.

    Raises:
      ValueError: The archive or the folder is not built as it should be; says how.
    """
    if source.path.is_dir():
        return _list_folder(source.path)
    members = _members(source.path)
    if not members:
        raise ValueError(f"{source.path}: there is no picture in it; is it the right archive?")
    if source.labels is not None:
        members = _by_number(members, source.path)
        classes = _classes_by_number(members, source, subset=subset)
    else:
        classes = [_folder_of(member, source.path) for member in members]
    places = TarArchive(
        source.path,
        np.array([member.offset for member in members], np.int64),
        np.array([member.size for member in members], np.int64),
    )
    return Listing([member.name for member in members], classes, places)


def _list_folder(folder: Path) -> Listing:
    """Files directly below one folder a class; what begins with a dot is no picture."""
    names, classes = [], []
    for class_folder in _visible(folder):
        if not class_folder.is_dir():
            raise ValueError(
                f"{class_folder.path} is no folder: {folder} holds one folder a class, and those"
                " the pictures"
            )
        pictures = _visible(Path(class_folder.path))
        if not pictures:
            raise ValueError(
                f"the class {class_folder.name} has no pictures: put some into"
                f" {class_folder.path}, or remove it"
            )
        for picture in pictures:
            if picture.is_dir():
                raise ValueError(
                    f"{picture.path} is a folder: the pictures of a class lie directly in its own"
                )
            names.append(f"{class_folder.name}/{picture.name}")
            classes.append(class_folder.name)
    if not names:
        raise ValueError(f"{folder} holds no folders: make one for each class")
    return Listing(names, classes, Folder(folder))


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: entry.name)


def _folder_of(member: archives.Member, archive: Path) -> str:
    *_, folder, _ = ("", *member.name.split("/"))
    if folder:
        return folder
    if archive.name == manual_files.ARCHIVES["val"]:
        advice = f"put {manual_files.DEVKIT} or {manual_files.TRUTH} beside it"
    else:
        advice = "is it the validation archive? That of training holds one tar a class"
    raise ValueError(f"{archive}: nothing says of which class {member.name} is: {advice}")


def _by_number(members: list[archives.Member], archive: Path) -> list[archives.Member]:
    numbers: dict[int, archives.Member] = {}
    for member in members:
        number = _number_of(member, archive)
        if number in numbers:
            raise ValueError(
                f"{archive}: {numbers[number].name} and {member.name} have the same number; is it"
                f" really {archive.name}?"
            )
        numbers[number] = member
    return [numbers[number] for number in sorted(numbers)]


def _classes_by_number(
    members: list[archives.Member], source: manual_files.Source, *, subset: bool
) -> list[str]:
    assert source.labels is not None
    truth = read_truth(source.labels)
    last = _number_of(members[-1], source.path)
    if last > len(truth) or (len(members) != len(truth) and not subset):
        raise ValueError(
            f"{source.labels} has classes of {len(truth):,} pictures, {source.path} holds"
            f" {len(members):,} pictures with numbers up to {last:,}: they do not belong together,"
            " or one is incomplete (--subset allows an archive with fewer)"
        )
    return [truth[_number_of(member, source.path) - 1] for member in members]


def _number_of(member: archives.Member, archive: Path) -> int:
    match = _NUMBER.search(member.name)
    if match is None or int(match[1]) == 0:
        raise ValueError(
            f"{archive}: {member.name} has no number, as ILSVRC2012_val_00000001.JPEG has;"
            f" is it really {archive.name}?"
        )
    return int(match[1])


def _members(archive: Path) -> list[archives.Member]:
    """All of an archive; half of one is an error even where fewer pictures are allowed."""
    damage: list[archives.DamagedArchiveError] = []

    def note(error: archives.ArchiveError) -> None:
        logging.warning("%s", error)
        if isinstance(error, archives.DamagedArchiveError):
            damage.append(error)

    members = list(archives.members(archive, on_error=note))
    if damage:
        folders = collections.Counter(member.name.rpartition("/")[0] for member in members)
        shown = ", ".join(f"{count:,} of {folder or archive.name}" for folder, count in
                          [*folders.items()][-_SHOWN_FOLDERS:])  # fmt: skip
        raise ValueError(
            f"{archive} holds {len(members):,} pictures of {len(folders):,} folders that can be"
            f" read (at last {shown or 'none'}); others are lost: {damage[0]}"
        )
    return members
