# SPDX-License-Identifier: BSD-3-Clause
"""Finds the images of a list: their folder, and how the list's paths differ from theirs.

Paths in tables are relative to the table, to a folder next to it, or to a disk that does not exist
here; some lack the suffix, some have backslashes. A sample of them is searched for in the folders
around the list, with more and more of their first parts removed; the place with most images wins.
"""

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mlimages_jax.labels.image_names import encode_name

SAMPLE = 100  # paths to search for
_MAX_FOLDERS = 300  # folders to search
_DEPTH = 3
_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".tif", ".bmp")
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
# A path that needs no normalisation: relative, without ".", "..", empty parts and backslashes.
_PLAIN = re.compile(r"(?:[^./\\:][^/\\:]*/)*[^./\\:][^/\\:]*")
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class ImageRoot(NamedTuple):
    """Converts the paths of a list into paths below a folder.

    Attributes:
        folder: Folder of the images.
        prefix: Folders below it that the paths of the list lack, such as "train2017".
        drop: Number of first parts of the paths to remove, such as those of another disk.
        suffix: Suffix that the paths lack.
        dropped: What these first parts must be, for absolute paths of this machine.
        found: Number of sampled images that exist.
        looked_for: Number of images in the sample.
    """

    folder: Path
    prefix: str = ""
    drop: int = 0
    suffix: str = ""
    dropped: tuple[str, ...] = ()
    found: int = 0
    looked_for: int = 0

    def name(self, path: str) -> str:
        """Returns the path below `folder` for a path of the list.

        Raises:
            ValueError: The path leads out of the folder, or is a URL.
        """
        if not self.drop and _PLAIN.fullmatch(path):
            return (f"{self.prefix}/{path}" if self.prefix else path) + self.suffix
        parts = path_parts(path)
        first, parts = parts[: self.drop], parts[self.drop :]
        if not parts:
            raise ValueError(f"the path {path!r} has fewer folders than the others; correct it")
        is_elsewhere = self.dropped and tuple(first) != self.dropped
        if is_elsewhere or (is_absolute(path) and not self.drop and self.folder != Path("/")):
            raise ValueError(f"the path {path!r} is not in {self.folder}; correct it")
        return "/".join([self.prefix, *parts] if self.prefix else parts) + self.suffix


class Located(NamedTuple):
    """The places of the images of several lists.

    Attributes:
        folder: Folder that all names are relative to; None: not found.
        roots: Place of each list; None: not found.
        are_urls: Whether the lists contain URLs instead of paths.
    """

    folder: Path | None
    roots: Sequence[ImageRoot | None]
    are_urls: bool = False

    def namers(self) -> list[Callable[[str], str]]:
        """Returns for each list a function that converts a path into its name in a label list.

        The functions raise ValueError if a path has no valid name; the message says why.
        """
        if self.are_urls:
            return [str.strip for _ in self.roots]
        paths = [_plain_path if root is None else root.name for root in self.roots]
        return [functools.partial(_encoded, path_of) for path_of in paths]


def is_url(path: str) -> bool:
    """Returns whether a path is a URL, of the web or of an object store."""
    return bool(_URL.match(path))


def path_parts(path: str) -> list[str]:
    """Returns the parts of a path of any system, without drive, root and "."; rejects "..".

    Raises:
        ValueError: It is a URL, or leads out of its folder.
    """
    if ":" in path:  # fast path for millions of paths: without a colon, neither URL nor drive
        if is_url(path) and not path.lower().startswith("file://"):
            raise ValueError(f"the path {path!r} is a URL: download the images first")
        path = _DRIVE.sub("/", re.sub("^file://", "", path, flags=re.IGNORECASE))
    path = path.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise ValueError(f"the path {path!r} is empty or leads out of its folder; correct it")
    return parts


def is_absolute(path: str) -> bool:
    """Returns whether a path starts at the root or a drive, on any system."""
    return path.startswith(("/", "\\", "file:")) or bool(_DRIVE.match(path))


def find_images(
    paths: Iterable[str], around: Sequence[Path], *, hint: str = ""
) -> ImageRoot | None:
    """Searches folders for some paths of a list.

    Args:
        paths: Paths of the list; a sample of them is searched for.
        around: Folders that may contain the images, at most `_DEPTH` levels below.
        hint: Breaks ties: the place with this word in its path wins, such as "train".

    Returns:
        The best place; None if none has any image.
    """
    sample = _sample(paths)
    if not sample:
        return None
    depth = max(len(path_parts(path)) for path in sample)
    suffixes = ("",) if all(PurePosixPath(path).suffix for path in sample) else _SUFFIXES
    folders = _folders(around)
    # An absolute path that exists as it is needs no folder around the list.
    if any(map(is_absolute, sample)):
        folders = itertools.chain(folders, [Path("/")])
    best, best_rank = None, (0, False, 0)
    for folder, drop, suffix in itertools.product(folders, range(depth), suffixes):
        root = ImageRoot(folder, "", drop, suffix, looked_for=len(sample))
        found = sum(_is_there(root, path) for path in sample)
        rank = (found, bool(hint) and hint in str(folder).lower(), -drop)
        if found and rank > best_rank:
            best, best_rank = root._replace(found=found), rank
    if best is not None and best.folder == Path("/"):
        return _below_the_root(best, sample)
    return best


def locate(
    lists: Sequence[Sequence[str]], around: Sequence[Sequence[Path]], hints: Sequence[str] = ()
) -> Located:
    """Searches for the images of several lists, and gives all of them names below one folder.

    Args:
        lists: Paths of each list, or some of them.
        around: Folders that may contain the images, for each list.
        hints: A word for each list, see `find_images`.
    """
    paths = [path for one in lists for path in one]
    if paths and sum(map(is_url, paths)) * 2 > len(paths):
        return Located(None, [None] * len(lists), are_urls=True)
    words = hints or [""] * len(lists)
    roots = [
        find_images(one, folders, hint=hint)
        for one, folders, hint in zip(lists, around, words, strict=True)
    ]
    found = [root.folder.absolute() for root in roots if root is not None]
    if not found:
        return Located(None, roots)
    shared = Path(os.path.commonpath(found))
    return Located(shared, [root and _seen_from(shared, root) for root in roots])


def _seen_from(folder: Path, root: ImageRoot) -> ImageRoot:
    below = root.folder.absolute().relative_to(folder).as_posix()
    return root._replace(folder=folder, prefix="" if below == "." else below)


def _encoded(path_of: Callable[[str], str], path: str) -> str:
    return encode_name(path_of(path))


def _plain_path(path: str) -> str:
    if _PLAIN.fullmatch(path):
        return path
    if is_absolute(path):
        raise ValueError(
            f"the path {path!r} is absolute, and no such image exists; give the folder of the "
            "images with --images"
        )
    return "/".join(path_parts(path))


def _sample(paths: Iterable[str]) -> list[str]:
    usable = []
    for path in dict.fromkeys(paths):
        try:
            path_parts(path)
        except ValueError:
            continue
        usable.append(path)
    return usable[:: max(1, len(usable) // SAMPLE)][:SAMPLE]


def _folders(around: Sequence[Path]) -> Iterator[Path]:
    """Yields these folders and those below, nearest first; skips hidden ones, limits the number."""
    level = list(dict.fromkeys(folder for folder in around if folder.is_dir()))
    count = 0
    for _ in range(_DEPTH + 1):
        deeper: list[Path] = []
        for folder in level:
            yield folder
            count += 1
            if count >= _MAX_FOLDERS:
                return
            deeper += _subfolders(folder)
        level = [folder for folder in dict.fromkeys(deeper) if folder not in level]


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
    except OSError:
        return []
    return [folder / name for name in sorted(names)[:_MAX_FOLDERS]]


def _is_there(root: ImageRoot, path: str) -> bool:
    try:
        return (root.folder / root.name(path)).is_file()
    except (OSError, ValueError):  # a name that is too long, or a NUL
        return False


def _below_the_root(root: ImageRoot, sample: Sequence[str]) -> ImageRoot:
    """Returns the same place relative to the folder that all paths share."""
    folders = [Path("/", *path_parts(path)[root.drop : -1]) for path in sample]
    shared = Path(os.path.commonpath(folders))
    if root.drop:
        return root._replace(folder=shared, drop=root.drop + len(shared.parts) - 1)
    dropped = shared.parts[1:]
    return root._replace(folder=shared, drop=len(dropped), dropped=dropped)
