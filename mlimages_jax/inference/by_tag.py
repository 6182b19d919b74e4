# SPDX-License-Identifier: BSD-3-Clause
"""Images by tag: FOLDER/<tag>/<path of the image>, as hard links where possible, else as copies.

FOLDER/.mlimages_by_tag.jsonl has a line for each image with the files made for it, and what
identifies them. Only those are ever replaced or removed. A line is written before its files are, so
that files made by a run that was killed are known too; of several lines for an image the last
counts.
"""

import collections
import contextlib
import functools
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import json_line
from mlimages_jax.files.safe_paths import UnsafeNameError, inside
from mlimages_jax.inference.image_source import ImageSource
from mlimages_jax.inference.line_index import LineIndex, key_of, keys_of
from mlimages_jax.inference.tag_files import Row
from mlimages_jax.labels.hierarchy import Hierarchy

LIST = ".mlimages_by_tag.jsonl"

# What identifies a file we made: inode (0 for a copy), size, modification time.
Stamp = list[int]
Made = dict[str, list[Stamp]]  # by path below the folder; several where a run was killed

_LONGEST = 100  # bytes of a folder's name, which an id may follow
# What Windows refuses in names, control characters, and marks that reorder or break text.
_UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


def folder_names(hierarchy: Hierarchy) -> list[str]:
    """Returns a name for each class that every file system takes; no two differ only in case."""
    names = [_safe(name.split(",")[0]) for name in hierarchy.names]
    # Ids part the bird crane from the machine; indices part what is still equal after `_safe`.
    for suffixes in (hierarchy.ids, range(len(names))):
        counts = collections.Counter(name.casefold() for name in names)
        names = [
            f"{name} ({_safe(str(suffix))})" if counts[name.casefold()] > 1 else name
            for name, suffix in zip(names, suffixes, strict=True)
        ]
    return names


class ByTag:
    """A folder of images by tag.

    Args:
        folder: The folder, created if missing.
        names: See `folder_names`.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self._folder, self._names = folder, names
        self._list = folder / LIST
        self.placed = self.removed = 0
        self.left_alone: list[str] = []

    def update(self, source: ImageSource, rows: Iterable[Row], changed: np.ndarray) -> None:
        """Makes the files that the tags ask for, and removes those whose images lost a tag.

        Files of images that are gone go too, except if the image would be lost with them.

        Args:
            source: The images.
            rows: The row of each image.
            changed: Whether an image has to be looked at, bool [n].
        """
        self.placed = self.removed = 0
        self.left_alone = []
        self._folder.mkdir(parents=True, exist_ok=True)
        paths = [os.fspath(source.path(position) or "") for position in range(len(source))]
        keys = keys_of(map(os.path.abspath, paths))
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._list.open("ab+"))
            places = _index(log)
            new = stack.enter_context(stack.enter_context(complete_file(self._list)).open("wb"))
            for line in self._gone(log, places, keys):
                new.write(line)
            for position, row in enumerate(rows):
                path = os.path.abspath(paths[position])  # noqa: PTH100  # fast, for every image
                place = int(places.places(keys[position : position + 1])[0])
                before = _made(log, place, path)
                after = before
                if "error" not in row and (changed[position] or place < 0):
                    after = self._update(Path(path), row, before, log)
                if after:
                    new.write(_line(path, after))

    def _update(self, image: Path, row: Row, before: Made, log: BinaryIO) -> Made:
        try:
            status = image.stat()
            relative = _relative(row["image"])
        except OSError:
            return before
        linkable = status.st_dev == self._folder.stat().st_dev
        stamp = [status.st_ino if linkable else 0, status.st_size, status.st_mtime_ns]
        wanted = dict.fromkeys(f"{self._names[tag['index']]}/{relative}" for tag in row["tags"])
        new = [
            name
            for name in wanted
            if before.get(name) != [stamp] or not os.path.lexists(self._folder / name)
        ]
        lost = before.keys() - wanted.keys()
        if not new and not lost:
            return before
        planned = {name: [*before.get(name, ()), stamp] for name in new}
        log.write(_line(os.fspath(image), before | planned))
        log.flush()
        after = {name: before[name] for name in wanted if name in before and name not in new}
        for name in lost:
            self._try(name, functools.partial(self._remove, name, before[name]))
        for name in new:
            made = before.get(name, [])
            if self._try(name, functools.partial(self._place, image, name, stamp, made)):
                after[name] = [stamp]
        return after

    def _place(self, image: Path, name: str, stamp: Stamp, made: list[Stamp]) -> None:
        target = inside(self._folder, name)
        there = _status(target)
        if there and not _is_one_of(there, made):
            raise FileExistsError("another file is there")
        if there and _is_one_of(there, [stamp]):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with complete_file(target) as unfinished:
            unfinished.unlink()  # link(2) makes new names only
            try:
                # The resolved path, as link(2) does not follow symbolic links.
                os.link(os.path.realpath(image), unfinished)
            except OSError:  # another disk, one without links, or too many of them
                shutil.copy2(image, unfinished)  # with the time, which the stamp contains
        self.placed += 1

    def _remove(self, name: str, made: list[Stamp]) -> None:
        target = inside(self._folder, name)
        there = _status(target)
        if there is None:
            return
        if not _is_one_of(there, made):
            raise FileExistsError("it is another file now")
        target.unlink()
        self.removed += 1
        with contextlib.suppress(OSError):  # not empty
            for parent in target.parents:
                if parent == self._folder:
                    break
                parent.rmdir()

    def _gone(self, log: BinaryIO, places: LineIndex, keys: np.ndarray) -> Iterator[bytes]:
        """Removes the files of images that are gone; yields lines of images to remember."""
        current = LineIndex((int(key), 0) for key in keys)
        log.seek(0)
        offset = 0
        lines = []
        for line in log:
            key = np.array([key_of(json.loads(line)["image"])], np.uint64)
            if places.places(key)[0] == offset and current.places(key)[0] < 0:
                lines.append(line)
            offset += len(line)
        for line in lines:
            image, made = json.loads(line)["image"], json.loads(line)["files"]
            # An image that is still there belongs to another folder or list of images.
            if os.path.lexists(image) or not self._is_elsewhere(made):
                yield line
                continue
            for name, stamps in made.items():
                self._try(name, functools.partial(self._remove, name, stamps))

    def _is_elsewhere(self, made: Made) -> bool:
        """Returns whether the image exists outside the folder, by its number of links."""
        found = [_status(self._folder / name) for name in made]
        links = [one for one in found if one]
        return all(one.st_nlink > len(links) for one in links)

    def _try(self, name: str, action: Callable[[], None]) -> bool:
        """Returns whether an action succeeded; otherwise its file is left alone, and named."""
        try:
            action()
        except (OSError, UnsafeNameError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.left_alone.append(f"{name}: {reason}")
            return False
        return True


def _safe(name: str) -> str:
    # Windows drops dots and spaces at the end of a name; a leading dot hides it elsewhere.
    plain = _UNSAFE.sub("_", name).encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return plain or "_"


def _relative(name: str) -> str:
    """Returns the path of an image below the folder of a tag; `inside` checks it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(_UNSAFE.sub("_", part) for part in parts)


def _index(log: BinaryIO) -> LineIndex:
    """Indexes the lines by image; removes one that a killed run left incomplete."""
    log.seek(0)
    offset = 0
    lines = []
    for line in log:
        if not line.endswith(b"\n"):
            log.truncate(offset)
            break
        lines.append((key_of(json.loads(line)["image"]), offset))
        offset += len(line)
    return LineIndex(lines)


def _made(log: BinaryIO, place: int, image: str) -> Made:
    if place < 0:
        return {}
    log.seek(place)
    line = json.loads(log.readline())
    return line["files"] if line["image"] == image else {}


def _line(image: str, made: Made) -> bytes:
    return f"{json_line({'image': image, 'files': made})}\n".encode()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_one_of(there: os.stat_result, made: list[Stamp]) -> bool:
    """Returns whether a file is one that was made here and has not changed since."""
    return stat.S_ISREG(there.st_mode) and any(
        there.st_ino == inode or (there.st_size, there.st_mtime_ns) == (size, time)
        for inode, size, time in made
    )
