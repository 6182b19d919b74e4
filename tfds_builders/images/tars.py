# SPDX-License-Identifier: BSD-3-Clause
"""Images inside of tars in the folder of images, under names such as `a.tar/cat.jpg`.

A tar has no index, so its headers are read once, in order; then every image has an offset, and any
thread may read it. Nothing is unpacked.
"""

import array
import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from mlimages_jax.data import archives
from mlimages_jax.files.safe_paths import UnsafeNameError, inside
from mlimages_jax.labels.image_names import decode_name
from mlimages_jax.labels.lists import LabelList

from .places import ArchivePlace, FilePlace, Folder, Place, Places

_TAR = ".tar/"
_NO_TAR = -1  # the image is a file of its own
_ABSENT = -1  # the offset of an image that its tar does not have


class AbsentPlace(NamedTuple):
    """The place of an image that its tar does not have."""

    tar: str
    member: str

    def read(self) -> bytes:
        """Raises FileNotFoundError, see `Place`."""
        raise FileNotFoundError(f"{self.tar} has no member {self.member}")


class FolderOfTars(NamedTuple):
    """Images in tars of a folder, and perhaps in files beside them.

    Attributes:
        path: The folder.
        tars: Names of the tars, relative to it.
        numbers: int32 [N], number of each image's tar; -1: the image is a file.
        offsets: int64 [N], offset of each image's first byte; -1: the tar does not have it.
        sizes: int64 [N], size of each image in bytes.
    """

    path: Path
    tars: tuple[str, ...]
    numbers: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def place(self, number: int, name: str) -> Place:
        """Returns a place, see `Places`."""
        if self.numbers[number] == _NO_TAR:
            return FilePlace(os.fspath(self.path), name)
        tar = self.tars[self.numbers[number]]
        path, member = os.fspath(self.path / tar), decode_name(name)[len(tar) + 1 :]
        if self.offsets[number] == _ABSENT:
            return AbsentPlace(path, member)
        found = archives.Member(member, int(self.offsets[number]), int(self.sizes[number]))
        return ArchivePlace(path, found)

    def fingerprint(self) -> str:
        """Returns the folder, sizes and times of its tars, and a digest of the places in them."""
        digest = hashlib.sha256()
        for tar in self.tars:
            status = (self.path / tar).stat()
            digest.update(f"{tar}\n{status.st_size} {status.st_mtime_ns}\n".encode())
        for column in (self.numbers, self.offsets, self.sizes):
            digest.update(column.data)
        return f"{self.path.resolve()}, {len(self.tars)} tars, {digest.hexdigest()}"


def find_images(folder: Path, lists: Mapping[str, LabelList]) -> dict[str, Places]:
    """Finds the images of some lists in a folder and in its tars.

    Args:
        folder: What the names of the lists are relative to.
        lists: The list of each split. Without a name that leads into a tar, nothing is read.

    Returns:
        The places of each split's images.

    Raises:
        ArchiveError: A ValueError: a tar is compressed, or is none.
        OSError: A tar cannot be read.
    """
    rows = {split: _rows_by_tar(folder, one) for split, one in lists.items()}
    tars = sorted({tar for found in rows.values() for tar in found})
    if not tars:
        return dict.fromkeys(lists, Folder(folder))
    places = {split: _unknown(folder, tars, len(one)) for split, one in lists.items()}
    for number, tar in enumerate(tars):
        members = _members(folder / tar)
        for split, one in lists.items():
            _set(places[split], number, one, rows[split].get(tar, ()), members)
    return {**places}


def _rows_by_tar(folder: Path, rows: LabelList) -> dict[str, "array.array[int]"]:
    """Returns the numbers of the rows of each tar."""
    found: dict[str, array.array[int]] = {}
    # One search over all names: millions of them, usually without any tar, cost next to nothing.
    if re.search(re.escape(_TAR.encode()), rows.names.data) is None:
        return found
    is_tar = functools.cache(functools.partial(_is_file, folder))
    for i, row in enumerate(rows):
        if tar := _tar_of(decode_name(row.name), is_tar):
            found.setdefault(tar, array.array("q")).append(i)
    return found


def _tar_of(name: str, is_tar: Callable[[str], bool]) -> str | None:
    """Returns the first part of a name that is a tar, with the folders before it."""
    end = name.find(_TAR)
    while end >= 0:
        if is_tar(tar := name[: end + len(_TAR) - 1]):
            return tar
        end = name.find(_TAR, end + 1)
    return None


def _is_file(folder: Path, name: str) -> bool:
    try:
        return inside(folder, name).is_file()
    except (UnsafeNameError, OSError):  # then the row is that of a file, and judged as such
        return False


def _unknown(folder: Path, tars: list[str], count: int) -> FolderOfTars:
    return FolderOfTars(
        folder,
        tuple(tars),
        np.full(count, _NO_TAR, np.int32),
        np.full(count, _ABSENT, np.int64),
        np.zeros(count, np.int64),
    )


def _members(path: Path) -> dict[str, archives.Member]:
    """Returns the members of a tar; what is unusable is logged, and missing afterwards."""
    with archives.Archive(path) as archive:
        if archive.compressed:
            raise archives.ArchiveError(f"{path}: compressed; decompress it with gunzip first")
        entries = archive.entries(on_error=lambda error: logging.warning("%s", error))
        return {member.name: member for member in entries}


def _set(
    places: FolderOfTars,
    number: int,
    rows: LabelList,
    of_tar: "array.array[int] | tuple[()]",
    members: Mapping[str, archives.Member],
) -> None:
    """Enters the places of the images of one tar."""
    start = len(places.tars[number]) + 1
    for i in of_tar:
        places.numbers[i] = number
        if member := members.get(decode_name(rows[i].name)[start:]):
            places.offsets[i], places.sizes[i] = member.offset, member.size
