# SPDX-License-Identifier: BSD-3-Clause
"""Lists the images of a split with their classes, from a folder or from archives."""

import collections
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from absl import logging

from mlimages_jax.data import archives, image_folders
from mlimages_jax.labels.image_names import encode_name
from mlimages_jax.labels.same_names import normal
from tfds_builders.images.places import Folder, Place, Places, TarArchive

from . import manual_files
from .classes import read_truth, read_truth_by_name
from .unpacked import unpacked

_SHOWN_FOLDERS = 3
_SHOWN_CLASSES = 10
_NUMBER = re.compile(r"([0-9]+)\.[A-Za-z]+")  # ILSVRC2012_val_00000001.JPEG
# n01440764_10026_n01440764.JPEG, ILSVRC2012_val_00000001_n01751748.JPEG; n01440764_10026.JPEG
_CLASS_IN_NAME = (
    re.compile(r"_(n[0-9]{8})\.[A-Za-z]+$"),
    re.compile(r"^(n[0-9]{8})_[0-9]+\.[A-Za-z]+$"),
)


class Listing(NamedTuple):
    """The images of a split.

    Attributes:
        names: Names of the records.
        classes: Class id of each image.
        places: Where the images are stored.
    """

    names: Sequence[str]
    classes: Sequence[str]
    places: Places


class Archives(NamedTuple):
    """Images inside of several tar files, one after the other.

    Attributes:
        parts: The tar files.
        ends: int64 [N], number of images in each file and all files before it.
    """

    parts: tuple[TarArchive, ...]
    ends: np.ndarray

    def place(self, number: int, name: str) -> Place:
        """Returns a place, see `Places`."""
        part = int(np.searchsorted(self.ends, number, side="right"))
        start = int(self.ends[part - 1]) if part else 0
        return self.parts[part].place(number - start, name)

    def fingerprint(self) -> str:
        """Returns the fingerprints of all parts, see `Places`."""
        return "; ".join(part.fingerprint() for part in self.parts)


def list_images(source: manual_files.Source, *, subset: bool) -> Listing:
    """Finds all images of a split.

    Args:
        source: From `manual_files.find_source`.
        subset: Whether an archive may contain fewer images than the labels file has lines.

    Raises:
        ValueError: The archive or the folder does not have the expected structure.
    """
    if source.path.is_dir():
        return _list_folder(source, subset=subset)
    listings = [
        _list_archive(source._replace(path=unpacked(path)), subset=subset)
        for path in (source.path, *source.more)
    ]
    if len(listings) == 1:
        return listings[0]
    parts = tuple(one.places for one in listings if isinstance(one.places, TarArchive))
    return Listing(
        [name for one in listings for name in one.names],
        [class_ for one in listings for class_ in one.classes],
        Archives(parts, np.cumsum([len(one.names) for one in listings])),
    )


def _list_archive(source: manual_files.Source, *, subset: bool) -> Listing:
    members = _members(source.path)
    if not members:
        raise ValueError(f"{source.path}: there is no image in it; is it the right archive?")
    names = [member.name for member in members]
    if source.labels is not None:
        chosen, classes = _classes_by_file(names, source, subset=subset)
        members = [members[i] for i in chosen]
    else:
        classes = [_class_in_name(name) or _folder_of(name, source.path) for name in names]
    places = TarArchive(
        source.path,
        np.array([member.offset for member in members], np.int64),
        np.array([member.size for member in members], np.int64),
    )
    return Listing([member.name for member in members], classes, places)


def _list_folder(source: manual_files.Source, *, subset: bool) -> Listing:
    """Lists images in one folder per class, or in a folder with a file of their classes."""
    folder = source.path
    images, ignored = image_folders.list_images(folder)
    in_folders = [path for path in images if "/" in path]
    top = {path.partition("/")[0] for path in in_folders}
    # Tiny ImageNet has val/images/, which is no class.
    if top <= {"images"} or len(images) > 2 * len(in_folders):
        flat = _list_flat(images, source, subset=subset)
        if flat is not None:
            return flat
    _check_folders(folder, top | set(ignored))  # folders of systems are counted by their names
    if not in_folders:
        raise ValueError(
            f"{folder} contains no folders with images: make one for each class"
            + (f", or put {manual_files.SOLUTION} or another file with the class of each image next"
               " to it" if images else "")
        )  # fmt: skip
    ignored["image beside the class folders"] += len(images) - len(in_folders)
    if text := image_folders.describe_ignored(+ignored):
        logging.info("%s: %s", folder, text)
    classes = [normal(encode_name(path.partition("/")[0])) for path in in_folders]
    return Listing([encode_name(path) for path in in_folders], classes, Folder(folder))


def _list_flat(
    images: Sequence[str], source: manual_files.Source, *, subset: bool
) -> Listing | None:
    """Lists images in one folder whose classes are in their names or in a file next to it."""
    if source.labels is None:
        found = [_class_in_name(PurePosixPath(path).name) for path in images]
        if not images or not all(found):
            return None
        return Listing(
            [encode_name(path) for path in images],
            [one for one in found if one],
            Folder(source.path),
        )
    chosen, classes = _classes_by_file(images, source, subset=subset)
    return Listing([encode_name(images[i]) for i in chosen], classes, Folder(source.path))


def _check_folders(folder: Path, known: set[str]) -> None:
    """Refuses classes without images: the user may have forgotten to fill them."""
    with os.scandir(folder) as entries:
        names = [
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()
        ]
    if empty := sorted(set(names) - known):
        more = ", ..." if len(empty) > _SHOWN_CLASSES else ""
        some = ", ".join(map(encode_name, empty[:_SHOWN_CLASSES])) + more
        what = f"the class {some} has" if len(empty) == 1 else f"the classes {some} have"
        them = "it" if len(empty) == 1 else "them"
        raise ValueError(
            f"{encode_name(str(folder))}: {what} no images: put some into {them}, or remove {them}"
        )


def _class_in_name(name: str) -> str | None:
    last = name.rpartition("/")[2]
    matches = (pattern.search(last) for pattern in _CLASS_IN_NAME)
    return None if "/" in name else next((match[1] for match in matches if match), None)


def _folder_of(name: str, archive: Path) -> str:
    *_, folder, _ = ("", *name.split("/"))
    if folder:
        return folder
    if archive.name == manual_files.ARCHIVES["val"]:
        advice = f"put {manual_files.DEVKIT} or {manual_files.TRUTH} next to it"
    else:
        advice = "is it the validation archive? That of training contains one tar per class"
    raise ValueError(f"{archive}: nothing gives the class of {name}: {advice}")


def _classes_by_file(
    names: Sequence[str], source: manual_files.Source, *, subset: bool
) -> tuple[list[int], list[str]]:
    """Returns which images to use, in which order, and their classes, from the labels file."""
    assert source.labels is not None
    by_name = read_truth_by_name(source.labels)
    if by_name is None:
        return _by_number(names, source, subset=subset)
    chosen, classes = [], []
    left_out = 0
    for i, name in enumerate(names):
        one = by_name.get(PurePosixPath(name).stem)
        if one is None:
            left_out += 1
            continue
        chosen.append(i)
        classes.append(one)
    if not chosen:
        example = f", such as {names[0]}" if names else ""
        raise ValueError(
            f"{source.labels} names none of the images of {source.path}{example}; do they belong"
            " together?"
        )
    if left_out:
        logging.warning("%s images of %s have no class in %s, and are left out",
                        f"{left_out:,}", source.path, source.labels)  # fmt: skip
    return chosen, classes


def _by_number(
    names: Sequence[str], source: manual_files.Source, *, subset: bool
) -> tuple[list[int], list[str]]:
    assert source.labels is not None
    numbers: dict[int, int] = {}
    for i, name in enumerate(names):
        number = _number_of(name, source.path)
        if number in numbers:
            raise ValueError(
                f"{source.path}: {names[numbers[number]]} and {name} have the same number; is it"
                f" really {source.path.name}?"
            )
        numbers[number] = i
    truth = read_truth(source.labels)
    last = max(numbers, default=0)
    if last > len(truth) or (len(names) != len(truth) and not subset):
        raise ValueError(
            f"{source.labels} has classes of {len(truth):,} images, {source.path} contains"
            f" {len(names):,} images with numbers up to {last:,}: they do not belong together,"
            " or one is incomplete (--subset allows an archive with fewer)"
        )
    order = sorted(numbers)
    return [numbers[number] for number in order], [truth[number - 1] for number in order]


def _number_of(name: str, archive: Path) -> int:
    match = _NUMBER.search(name)
    if match is None or int(match[1]) == 0:
        raise ValueError(
            f"{archive}: {name} has no number, as ILSVRC2012_val_00000001.JPEG has;"
            f" is it really {archive.name}?"
        )
    return int(match[1])


def _members(archive: Path) -> list[archives.Member]:
    """Returns all members of an archive; a truncated one is an error even with `subset`."""
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
            f"{archive} contains {len(members):,} images of {len(folders):,} folders that can be"
            f" read (the last ones: {shown or 'none'}); others are lost: {damage[0]}"
        )
    return members
