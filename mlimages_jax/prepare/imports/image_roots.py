# SPDX-License-Identifier: BSD-3-Clause
"""Where the images of a list are: which folder, and what its paths have before or lack behind.

Paths in tables are written relative to the table, to a folder beside it, or to a disk that is not
here; some lack the suffix, some have backslashes. Some of them are looked for below the folders
around the list, with their first parts left out one after the other; the place that has most wins.
"""

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mlimages_jax.labels.image_names import encode_name

SAMPLE = 100  # paths that are looked for
_MAX_FOLDERS = 300  # that are looked into
_DEPTH = 3
_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".tif", ".bmp")
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
# A path that is its own parts: relative, without ".", "..", empty parts and backslashes.
_PLAIN = re.compile(r"(?:[^./\\:][^/\\:]*/)*[^./\\:][^/\\:]*")
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class ImageRoot(NamedTuple):
    """Turns the paths of a list into paths below a folder.

    Attributes:
        folder: that holds the images.
        prefix: folders below it that the paths of the list lack, such as "train2017".
        drop: the first parts of the paths to leave out, such as those of another disk.
        suffix: that the paths lack.
        dropped: what these first parts must be, where the paths are absolute and of this machine.
        found: how many of those looked for are there.
        looked_for: how many these were.
    """

    folder: Path
    prefix: str = ""
    drop: int = 0
    suffix: str = ""
    dropped: tuple[str, ...] = ()
    found: int = 0
    looked_for: int = 0

    def name(self, path: str) -> str:
        """The path below `folder` of a path of the list.

        Raises:
            ValueError: it leads out of the folder, or is an address.
        """
        if not self.drop and _PLAIN.fullmatch(path):
            return (f"{self.prefix}/{path}" if self.prefix else path) + self.suffix
        parts = path_parts(path)
        first, parts = parts[: self.drop], parts[self.drop :]
        if not parts:
            raise ValueError(f"the path {path!r} has fewer folders than the others; correct it")
        is_elsewhere = self.dropped and tuple(first) != self.dropped
        if is_elsewhere or (is_absolute(path) and not self.drop and self.folder != Path("/")):
            raise ValueError(f"the path {path!r} is not below {self.folder}; correct it")
        return "/".join([self.prefix, *parts] if self.prefix else parts) + self.suffix


class Located(NamedTuple):
    """Where the images of several lists are.

    Attributes:
        folder: that all their names are relative to; None: not found.
        roots: of each list; None: not found.
        are_urls: whether the lists hold addresses instead of paths.
    """

    folder: Path | None
    roots: Sequence[ImageRoot | None]
    are_urls: bool = False

    def namers(self) -> list[Callable[[str], str]]:
        """Of each list, what turns a path into the name that a label list has for it.

        They raise a ValueError that says why a path has none.
        """
        if self.are_urls:
            return [str.strip for _ in self.roots]
        paths = [_plain_path if root is None else root.name for root in self.roots]
        return [functools.partial(_encoded, path_of) for path_of in paths]


def is_url(path: str) -> bool:
    """Whether it is an address of the web, or of another store."""
    return bool(_URL.match(path))


def path_parts(path: str) -> list[str]:
    """The parts of a path of any system, without the drive, the root and "."; not below "..".

    Raises:
        ValueError: it is an address, or leads out of its folder.
    """
    if ":" in path:  # else it is no address and has no drive: for millions of paths
        if is_url(path) and not path.lower().startswith("file://"):
            raise ValueError(f"the path {path!r} is an address: download the images first")
        path = _DRIVE.sub("/", re.sub("^file://", "", path, flags=re.IGNORECASE))
    path = path.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise ValueError(f"the path {path!r} is empty or leads out of its folder; correct it")
    return parts


def is_absolute(path: str) -> bool:
    """Whether a path begins at the root or a drive, of any system."""
    return path.startswith(("/", "\\", "file:")) or bool(_DRIVE.match(path))


def find_images(
    paths: Iterable[str], around: Sequence[Path], *, hint: str = ""
) -> ImageRoot | None:
    """Looks for some paths of a list below folders.

    Args:
        paths: of the list; a sample of them is looked for.
        around: folders in which the images may be, at most `_DEPTH` levels below.
        hint: of two places with as many, that with this word in its path wins, such as "train".

    Returns:
        The best place; None if none has a single image.
    """
    sample = _sample(paths)
    if not sample:
        return None
    depth = max(len(path_parts(path)) for path in sample)
    suffixes = ("",) if all(PurePosixPath(path).suffix for path in sample) else _SUFFIXES
    folders = _folders(around)
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
    """Looks for the images of several lists, and gives all of them names below one folder.

    Args:
        lists: paths of each list, or some of them.
        around: folders in which those of each may be.
        hints: a word for each, see `find_images`.
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
            f"the path {path!r} is absolute, and there is no such image; say with --images which "
            "folder holds the images"
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
    """These folders and those below them, nearest first; hidden ones and too many are left out."""
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
    except (OSError, ValueError):  # too long a name, a NUL
        return False


def _below_the_root(root: ImageRoot, sample: Sequence[str]) -> ImageRoot:
    """The same place as seen from the folder that all paths share."""
    folders = [Path("/", *path_parts(path)[root.drop : -1]) for path in sample]
    shared = Path(os.path.commonpath(folders))
    if root.drop:
        return root._replace(folder=shared, drop=root.drop + len(shared.parts) - 1)
    dropped = shared.parts[1:]
    return root._replace(folder=shared, drop=len(dropped), dropped=dropped)
