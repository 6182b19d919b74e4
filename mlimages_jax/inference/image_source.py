# SPDX-License-Identifier: BSD-3-Clause
"""Images by position, from a folder, a list, a built data set or a single file.

A list names one image per line. If the line has a tab, the path ends there and may contain
spaces; otherwise it ends after the first image extension that is followed by a space
("my photo.jpg 3"), or else at the first space. The text after the path is kept verbatim as the
image's labels. Paths may be escaped as in label lists (see `labels.image_names`);
`ImageFolder.find` resolves them.

Nothing is decoded here. A missing file is an error of its image, raised when the image is read.
"""

import functools
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging
from etils import epath

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.image_folders import (
    EXTENSIONS,
    ImageFolder,
    describe_ignored,
    is_image,
    list_images,
)
from mlimages_jax.data.images.header import BadImage
from mlimages_jax.files.text_files import TextFileError, unix_line_ends, without_mark
from mlimages_jax.inference.file_stamps import THREADS, file_stamps
from mlimages_jax.inference.images_of_set import ImagesOfSet
from mlimages_jax.inference.names import Names, PackedNames
from mlimages_jax.labels.image_names import decode_name, encode_bytes
from mlimages_jax.labels.list_rows import decode_bytes

_SHOWN = 5  # examples in a message
# Only ASCII spaces and control characters separate; Unicode spaces may be part of a name.
_SPACED_PATH = re.compile(rf".*?\.(?:{'|'.join(EXTENSIONS)})(?=[\0- ]|\Z)", re.IGNORECASE)
_WORD = re.compile(r"[^\0- ]+")
_BLANKS = "".join(map(chr, range(0x21)))


class ImageSourceError(ValueError):
    """Raised when a path is not a usable folder, list, data set or file of images."""


class NoImagesError(ImageSourceError):
    """Raised when a folder contains, or a list names, no image."""


class ImageSource(Protocol):
    """Images by position, from 0; every method may be called from many threads.

    Attributes:
        built: Whether the images come from a built set, which training reads too.
        has_labels: Whether any image may have labels.
    """

    built: bool
    has_labels: bool

    def __len__(self) -> int: ...

    @property
    def names(self) -> Names:
        """Display names by position; not always unique."""
        ...

    @property
    def digest(self) -> str:
        """A digest that changes when the images of a path or their order change."""
        ...

    def read(self, index: int) -> bytes:
        """Returns the bytes of an image file.

        Raises:
            BadImage: If the file is missing or unreadable.
        """
        ...

    def identity(self, index: int) -> list[str | int]:
        """Returns JSON values that differ between images, and change when an image does."""
        ...

    def path(self, index: int) -> Path | None:
        """Returns the path of an image file, which may be missing; None for a built set."""
        ...

    def labels(self, index: int) -> str:
        """Returns the tab-separated `class:confidence` labels, the text of a list, or ""."""
        ...


def open_images(
    path: epath.PathLike, *, split: str | None = None, images_root: epath.PathLike | None = None
) -> ImageSource:
    """Opens the images at a path.

    Args:
        path: A folder, searched recursively without following links to other folders; a list
            file; an image file; or the folder of a built set, which contains dataset_info.json.
        split: Split of a built set.
        images_root: Folder that the paths of a list are relative to; None means the list's own.

    Returns:
        The images, ordered by relative path, or as in the list or the set.

    Raises:
        FileNotFoundError: If there is nothing at this path, or the set lacks a file.
        ImageSourceError: If there are no images, or an argument is missing or does not apply.
        DataSetError: If the set has no such split.
    """
    if (epath.Path(path) / "dataset_info.json").exists():
        if images_root:
            raise ImageSourceError(f"{path} is a built set: images_root is for lists only")
        return _open_set(path, split)
    local = Path(path).expanduser()
    if not local.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give a folder of images, a list of them, one image, or the "
            "folder of a built set"
        )
    if split:
        raise ImageSourceError(
            f"{path} is not a built set (dataset_info.json is missing), so it has no split "
            f"{split!r}: omit the split, or give the set's version folder"
        )
    mode = local.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ImageSourceError(f"{path} is neither a file nor a folder: give one of these")
    is_list = stat.S_ISREG(mode) and not is_image(local)
    if images_root and not is_list:
        raise ImageSourceError(f"{path} is not a list: images_root is for lists only")
    if is_list:
        return _open_list(local, local.parent if images_root is None else Path(images_root))
    return (
        _open_folder(local)
        if stat.S_ISDIR(mode)
        else ImageFiles(local.parent, [encode_bytes(local.name)])
    )


class ImageFiles:
    """Image files in a folder, by name.

    Args:
        root: The folder.
        names: Absolute paths, or paths relative to `root`; bytes that are not UTF-8 are escaped.
        labels: One text per name; None if there are no labels.
        stamps: Size and modification time of the files; None reads them.
    """

    built = False

    def __init__(
        self,
        root: Path,
        names: list[str],
        labels: list[str] | None = None,
        *,
        stamps: np.ndarray | None = None,
    ):
        self._folder = ImageFolder(os.fspath(root))
        self._names = names
        self._labels = labels
        self._known_stamps = stamps
        self.has_labels = labels is not None

    def __getstate__(self) -> dict[str, Any]:
        # For worker processes, which read files: without labels, sizes and times.
        state = {"_labels": None, "_known_stamps": None, "has_labels": False}
        return {"_folder": self._folder, "_names": self._packed, **state}

    @functools.cached_property
    def _packed(self) -> PackedNames:
        return PackedNames(self._names)  # kept, as every worker of every pass gets them

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> Names:
        """Relative paths; `labels.image_names.decode_name` undoes their escapes."""
        return self._names

    @functools.cached_property
    def digest(self) -> str:
        """A digest of the names, in order, and of the file sizes."""
        digest = hashlib.sha256("\n".join(self._names).encode())
        # Of every 32nd file in turn, as the sizes were once read in as many threads: exports and
        # tags that were begun then have recorded this digest.
        for first in range(THREADS):
            digest.update(f"\n{self.stamps[first::THREADS, 0].tolist()}".encode())
        return digest.hexdigest()

    @functools.cached_property
    def stamps(self) -> np.ndarray:
        """Size and modification time of the files, int64 [n, 2], see `file_stamps`."""
        if self._known_stamps is not None:
            return self._known_stamps
        return file_stamps(self._folder, self._names)

    def some(self, positions: list[int], stamps: np.ndarray) -> "ImageFiles":
        """Returns some of the images, with stamps of their own, int64 [m, 2]."""
        names = [self._names[position] for position in positions]
        labels = self._labels and [self._labels[position] for position in positions]
        return ImageFiles(Path(self._folder.root), names, labels, stamps=stamps)

    def identity(self, index: int) -> list[str | int]:
        """Returns name, size in bytes and modification time in nanoseconds."""
        return [self._names[index], *self.stamps[index].tolist()]

    def path(self, index: int) -> Path:
        """See `ImageSource`."""
        name = self._names[index]
        try:
            return Path(self._folder.find(name))
        except OSError:
            return Path(self._folder.root, decode_name(name))

    def read(self, index: int) -> bytes:
        """See `ImageSource`."""
        _check_index(index, len(self))
        try:
            return self._folder.read(self._names[index])
        except FileNotFoundError as error:  # our own messages come without strerror
            message = "there is no such file" if error.strerror else str(error)
            raise BadImage("missing", message) from error
        except OSError as error:
            raise BadImage("unreadable", error.strerror or str(error)) from error

    def labels(self, index: int) -> str:
        """See `ImageSource`."""
        return self._labels[index] if self._labels else ""


def _open_set(path: epath.PathLike, split: str | None) -> ImagesOfSet:
    data = DataSet.open(path)
    if not split:
        splits = ", ".join(sorted(data.shards()))
        raise ImageSourceError(f"{path} is a built set: name one of its splits ({splits})")
    return ImagesOfSet(data, split)


def _open_folder(folder: Path) -> ImageFiles:
    """Opens all files in a folder that have an image extension, except hidden ones."""
    try:
        found = list_images(folder, by_content=False, follow_links=False)
    except OSError as error:
        raise ImageSourceError(
            f"cannot list the folder {folder} ({error.strerror}): make it readable, or give a "
            "list of images"
        ) from error
    ignored = describe_ignored(found.ignored)
    if not found.images:
        raise NoImagesError(
            f"{folder} contains no image{ignored and f'; {ignored}'}: give a folder of files named "
            f"{', '.join(f'.{name}' for name in EXTENSIONS[:7])}"
        )
    if ignored:
        logging.info("%s: %s", folder, ignored)
    return ImageFiles(folder, [encode_bytes(path) for path in found.images])


def _open_list(path: Path, root: Path) -> ImageFiles:
    """Opens the images named in a list."""
    try:
        text = unix_line_ends(without_mark(path.read_bytes(), where=str(path)))
    except TextFileError as error:
        raise ImageSourceError(str(error)) from error
    if b"\0" in text[:4096]:  # as grep decides what is a binary file
        raise ImageSourceError(
            f"{path} is neither an image nor a text file: give a list with one path per line"
        )
    if not root.is_dir():
        raise ImageSourceError(f"images_root={root}, the root of the list's paths, is not a folder")
    lines = decode_bytes(text).split("\n")
    rows = [_row(stripped) for line in lines if (stripped := line.strip(_BLANKS))]
    if not rows:
        raise NoImagesError(f"{path} names no image: put one path on each line")
    names, labels = (list(column) for column in zip(*rows, strict=True))
    _warn_where_all_are_missing(path, root, names[:_SHOWN])
    return ImageFiles(root, names, labels if any(labels) else None)


def _warn_where_all_are_missing(path: Path, root: Path, names: list[str]) -> None:
    folder = ImageFolder(os.fspath(root))
    for name in names:
        try:
            folder.find(name)
        except FileNotFoundError:
            continue
        except OSError:  # ambiguous: several files match, so it is not missing
            pass
        return
    logging.warning(
        "%s: none of its first %d images is in %s; check images_root", path, len(names), root
    )


def _row(line: str) -> tuple[str, str]:
    """Splits a stripped line into the name and the text after it."""
    if "\t" in line:
        name, _, rest = line.partition("\t")
    else:
        match = _SPACED_PATH.match(line) or _WORD.match(line)
        assert match
        name, rest = match[0], line[match.end() :]
    return name.rstrip(_BLANKS), rest.strip(_BLANKS)


def _check_index(index: int, length: int) -> None:
    if not 0 <= index < length:
        raise IndexError(f"image {index} of {length}")
