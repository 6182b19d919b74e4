# SPDX-License-Identifier: BSD-3-Clause
"""Where the bytes of images lie: in files below a folder, or inside an archive."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mlimages_jax.data import archives
from mlimages_jax.data.image_folders import ImageFolder
from mlimages_jax.labels.image_names import decode_name


class Place(Protocol):
    """Of one image; small, and worth the same on every machine that sees the files."""

    def read(self) -> bytes:
        """The bytes, from any thread; OSError or ArchiveError where they cannot be had."""
        ...


class Places(Protocol):
    """Of the images of one split."""

    def place(self, number: int, name: str) -> Place:
        """Where the image of row `number`, called `name` in the list, lies."""
        ...

    def fingerprint(self) -> str:
        """Changes where the images may have changed; only for comparison with an earlier one."""
        ...


class FilePlace(NamedTuple):
    """A file of its own.

    Attributes:
      folder: That the names of the list begin in.
      name: In the list; `ImageFolder.find` says which file it means.
    """

    folder: str
    name: str

    @property
    def path(self) -> str:
        """Where the file is, if it has exactly this name."""
        return os.path.join(self.folder, decode_name(self.name))  # noqa: PTH118 20 times as fast

    def read(self) -> bytes:
        """See `Place`."""
        return ImageFolder(self.folder).read(self.name)


def changed_since(place: Place, time: float) -> bool:
    """Whether a file came, went or changed after a time, in seconds; an archive did not."""
    if not isinstance(place, FilePlace):
        return False  # a changed one is another input
    try:
        status = Path(place.path).stat()
    except (OSError, ValueError):
        return True
    # The latter tells of a file that was moved here with an old time.
    return max(status.st_mtime, status.st_ctime) >= time


class ArchivePlace(NamedTuple):
    """A stretch of an archive."""

    archive: str
    member: archives.Member

    def read(self) -> bytes:
        """See `Place`."""
        return archives.read(self.archive, self.member)


class Folder(NamedTuple):
    """Images in files below a folder, by the names of the list."""

    path: Path

    def place(self, number: int, name: str) -> FilePlace:
        """See `Places`."""
        return FilePlace(os.fspath(self.path), name)

    def fingerprint(self) -> str:
        """The folder alone: a look at millions of files would take too long."""
        return os.fspath(self.path.resolve())


class TarArchive(NamedTuple):
    """Images inside a tar file, by the number of the row.

    Attributes:
      path: The archive.
      offsets: int64 [N], of the images' first bytes in it.
      sizes: int64 [N], in bytes.
    """

    path: Path
    offsets: np.ndarray
    sizes: np.ndarray

    def place(self, number: int, name: str) -> ArchivePlace:
        """See `Places`."""
        member = archives.Member(name, int(self.offsets[number]), int(self.sizes[number]))
        return ArchivePlace(os.fspath(self.path), member)

    def fingerprint(self) -> str:
        """The archive's path, size and time, and the places in it."""
        status = self.path.stat()
        places = hashlib.sha256(self.offsets.tobytes() + self.sizes.tobytes()).hexdigest()
        return f"{self.path.resolve()}, {status.st_size} bytes, {status.st_mtime_ns}, {places}"
