# SPDX-License-Identifier: BSD-3-Clause
"""The places of the bytes of images: in files of a folder, or inside of an archive."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mlimages_jax.data import archives
from mlimages_jax.data.image_folders import ImageFolder
from mlimages_jax.labels.image_names import decode_name


class Place(Protocol):
    """The place of one image; small, and valid on every machine that sees the files."""

    def read(self) -> bytes:
        """Reads the bytes, from any thread; raises OSError or ArchiveError if that fails."""
        ...


class Places(Protocol):
    """The places of the images of one split."""

    def place(self, number: int, name: str) -> Place:
        """Returns the place of the image of row `number`, called `name` in the list."""
        ...

    def fingerprint(self) -> str:
        """Returns a text that changes if images may have changed; only for comparisons."""
        ...


class FilePlace(NamedTuple):
    """A separate file.

    Attributes:
        folder: Folder that the names of the list are relative to.
        name: Name in the list; `ImageFolder.find` maps it to a file.
    """

    folder: str
    name: str

    @property
    def path(self) -> str:
        """Path of the file, if it has exactly this name."""
        return os.path.join(self.folder, decode_name(self.name))  # noqa: PTH118 20 times as fast

    def read(self) -> bytes:
        """Reads the file, see `Place`."""
        return ImageFolder(self.folder).read(self.name)


def changed_since(place: Place, time: float) -> bool:
    """Returns whether a file appeared, vanished or changed after `time`; never for archives."""
    if not isinstance(place, FilePlace):
        return False  # a changed archive has another fingerprint
    try:
        status = Path(place.path).stat()
    except (OSError, ValueError):
        return True
    # ctime reveals a file that was moved here with an old mtime.
    return max(status.st_mtime, status.st_ctime) >= time


class ArchivePlace(NamedTuple):
    """A byte range of an archive."""

    archive: str
    member: archives.Member

    def read(self) -> bytes:
        """Reads the byte range, see `Place`."""
        return archives.read(self.archive, self.member)


class Folder(NamedTuple):
    """Images in files of a folder and its subfolders, by the names of the list."""

    path: Path

    def place(self, number: int, name: str) -> FilePlace:
        """Returns a place, see `Places`."""
        return FilePlace(os.fspath(self.path), name)

    def fingerprint(self) -> str:
        """Returns the folder alone: examining millions of files would take too long."""
        return os.fspath(self.path.resolve())


class TarArchive(NamedTuple):
    """Images inside of a tar file, by row number.

    Attributes:
        path: The archive.
        offsets: int64 [N], offset of each image's first byte.
        sizes: int64 [N], size of each image in bytes.
    """

    path: Path
    offsets: np.ndarray
    sizes: np.ndarray

    def place(self, number: int, name: str) -> ArchivePlace:
        """Returns a place, see `Places`."""
        member = archives.Member(name, int(self.offsets[number]), int(self.sizes[number]))
        return ArchivePlace(os.fspath(self.path), member)

    def fingerprint(self) -> str:
        """Returns the archive's path, size and time, and a digest of the places in it."""
        status = self.path.stat()
        places = hashlib.sha256(self.offsets.tobytes() + self.sizes.tobytes()).hexdigest()
        return f"{self.path.resolve()}, {status.st_size} bytes, {status.st_mtime_ns}, {places}"
