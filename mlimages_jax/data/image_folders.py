# SPDX-License-Identifier: BSD-3-Clause
"""Finds image files in a folder, and the file that a name in a list refers to.

Folders of users contain more than images. Only regular files are ever opened, because opening a
FIFO would block forever. Everything that is skipped is counted by kind, for one line at the end.
"""

import collections
import errno
import functools
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from mlimages_jax.data.images.header import begins_like_image
from mlimages_jax.files.escaping import one_line
from mlimages_jax.files.machine_faults import lacking
from mlimages_jax.labels.image_names import decode_name
from mlimages_jax.labels.same_names import AmbiguousNameError, SameNames

# Includes formats that cannot be decoded: they become errors with a reason instead of being missed.
EXTENSIONS = (
    "jpg", "jpeg", "jpe", "jfif", "jif", "png", "apng", "gif", "webp", "avif", "bmp", "dib",
    "heic", "heif", "ico", "j2k", "jp2", "jpf", "jpx", "pbm", "pgm", "pnm", "ppm", "tif", "tiff",
)  # fmt: skip
# Never opened: files that accompany images, and partial downloads. Files with any other extension,
# or without one, are images if their first bytes say so.
_OTHER_EXTENSIONS = {
    "7z", "arw", "avi", "bak", "bz2", "cr2", "crdownload", "csv", "db", "dng", "doc", "docx", "eps",
    "gz", "h5", "hdf5", "htm", "html", "ini", "ipynb", "json", "jsonl", "lnk", "log", "mat", "md",
    "mov", "mp4", "nef", "npy", "npz", "orf", "parquet", "part", "partial", "pdf", "pickle", "pkl",
    "ps", "psd", "pt", "pth", "py", "rar", "raw", "rst", "sh", "svg", "swp", "tar", "tgz", "thm",
    "tmp", "toml", "tsv", "txt", "unfinished", "url", "xls", "xlsx", "xml", "xmp", "xz", "yaml",
    "yml", "zip", "zst",
}  # fmt: skip
_SYSTEM = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "$recycle.bin",
    "system volume information", "@eadir", "lost+found",
}  # fmt: skip
_KINDS = {
    stat.S_ISFIFO: "FIFO", stat.S_ISSOCK: "socket", stat.S_ISBLK: "device", stat.S_ISCHR: "device",
}  # fmt: skip
_ENDING = re.compile(rf"\.(?:{'|'.join(EXTENSIONS)})\Z", re.IGNORECASE)
_LONGEST_EXTENSION = 12  # characters; longer text after the last dot is part of the name
_SHOWN = 12  # kinds listed in one line
_START_BYTES = 64
_REMEMBERED_FOLDERS = 64


class ImageListing(NamedTuple):
    """The image files in a folder.

    Attributes:
        images: Relative paths with "/" between folders, sorted; bytes that are not UTF-8 are
            surrogates, as usual in Python. `labels.image_names` makes names for lists from them.
        ignored: Number of other entries by kind: "hidden", ".xml", "FIFO", "broken link", ...
    """

    images: list[str]
    ignored: collections.Counter[str]


def list_images(
    folder: str | os.PathLike[str], *, by_content: bool = True, follow_links: bool = True
) -> ImageListing:
    """Lists the image files in a folder, recursively.

    Args:
        folder: Folder to search.
        by_content: Whether files with an unknown extension, or with none, are images if their first
            bytes say so. Otherwise only the extension counts.
        follow_links: Whether to follow links to folders, except to one that contains the link;
            links to files are always followed.

    Raises:
        OSError: If the folder itself is missing or unreadable; unreadable subfolders are counted.
    """
    images: list[str] = []
    ignored: collections.Counter[str] = collections.Counter()
    top = os.fspath(folder)
    # With each folder go the folders above it. One set of all visited folders would not do: a
    # folder that is linked twice is no loop.
    searched = [(top, "", frozenset([_identity(os.stat(top))]))]
    while searched:
        path, prefix, above = searched.pop()
        for entry in _scan(path, ignored, is_top=not prefix):
            if (kind := _kind_by_name(entry.name)) is not None:
                ignored[kind] += 1
                continue
            try:
                if not entry.is_dir():
                    kind = _kind_of_file(entry, by_content=by_content)
                    if kind is None:
                        images.append(prefix + entry.name)
                elif entry.is_symlink() and not follow_links:
                    kind = "link to a folder"
                elif (identity := _identity(entry.stat())) in above:
                    kind = "link loop"
                else:
                    searched.append((entry.path, f"{prefix}{entry.name}/", above | {identity}))
            except OSError as error:
                if lacking(error):
                    raise
                kind = "link loop" if entry.is_symlink() else "unreadable"
            ignored.update([kind] if kind else [])
    return ImageListing(sorted(images), ignored)


def is_image(path: str | os.PathLike[str]) -> bool:
    """Returns whether a regular file is an image, by its extension or its first bytes."""
    name = os.path.basename(path)
    return bool(_ENDING.search(name)) or _begins_like_an_image(os.fspath(path))


def describe_ignored(ignored: collections.Counter[str]) -> str:
    """Returns "ignored 12 other files and folders (9 .xml, 3 hidden)"; "" if there are none."""
    if not ignored.total():
        return ""
    kinds = [f"{count:,} {one_line(kind)}" for kind, count in ignored.most_common(_SHOWN)]
    if len(ignored) > _SHOWN:
        kinds.append("...")
    what = "file or folder" if ignored.total() == 1 else "files and folders"
    return f"ignored {ignored.total():,} other {what} ({', '.join(kinds)})"


class ImageFolder(NamedTuple):
    """Finds files in a folder by their names in a list; usable from any thread or process.

    Attributes:
        root: Path of the folder.
    """

    root: str

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file; raises as `find`, or OSError if it cannot be read."""
        # Nearly all names are exact, and `find` would take a system call more for each.
        try:
            return read_regular(self._join(decode_name(name)))
        except (FileNotFoundError, NotADirectoryError):
            return read_regular(self.find(name))

    def find(self, name: str) -> str:
        r"""Returns the path of the file that a name refers to.

        Tries in this order: the name with its escapes undone (see `labels.image_names`), the
        literal name, and the name with "/" for each backslash of Windows; then each of them in
        another Unicode normalisation.

        Raises:
            FileNotFoundError: If there is none; says so if only the case differs.
            OSError: If several files differ only in their Unicode normalisation.
        """
        forms = list(dict.fromkeys([decode_name(name), name, name.replace("\\", "/")]))
        for form in forms:
            if os.path.lexists(path := self._join(form)):  # even a broken link is the file meant
                return path
        for form in forms:
            if not form.isascii() and (path := self._other_form(form)):
                return path
        folder, _, last = forms[-1].rpartition("/")
        question = _names_in(self._join(folder)).question(last)
        raise FileNotFoundError(f"there is no such file{question}")

    def _join(self, form: str) -> str:
        path = os.path.join(self.root, form)
        try:
            possible = b"\0" not in os.fsencode(path)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise FileNotFoundError("no file can have this name: it has zero bytes or surrogates")
        return path

    def _other_form(self, form: str) -> str:
        """Returns the path with parts in another Unicode normalisation; "" if there is none."""
        path = "/" if form.startswith("/") else self.root
        for part in form.strip("/").split("/"):
            try:
                found = part if part in (".", "..") else _names_in(path).find(part)
            except AmbiguousNameError as error:
                raise OSError(str(error)) from error
            if found is None:
                return ""
            path = os.path.join(path, found)
        return path


def _names_in(folder: str) -> SameNames:
    """Returns the names in a folder, cached until the folder changes."""
    try:
        # The modification time is an argument only to be part of the cache's key.
        return _names_at(folder, os.stat(folder).st_mtime_ns)
    except OSError as error:
        if lacking(error):
            raise  # names that are there would be missing
        return SameNames([])


@functools.lru_cache(_REMEMBERED_FOLDERS)
def _names_at(folder: str, _: int) -> SameNames:
    return SameNames(os.listdir(folder))


def read_regular(path: str) -> bytes:
    """Reads a regular file and nothing else: opening a FIFO would block, a device may do anything.

    Raises:
        OSError: If it is not a regular file, or cannot be read.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    # `open(path).read()` makes eight system calls instead of four, and threads wait for Python's
    # lock after each.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.read(descriptor, status.st_size + 1)
        if len(data) == status.st_size:
            return data
        with open(descriptor, "rb", buffering=0, closefd=False) as rest:
            return data + rest.read()
    finally:
        os.close(descriptor)


def _scan(
    path: str, ignored: collections.Counter[str], *, is_top: bool
) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        if is_top or lacking(error):
            raise
        ignored["unreadable folder"] += 1


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _kind_by_name(name: str) -> str | None:
    """Returns the kind of an entry that is always skipped because of its name, or None."""
    if name.lower() in _SYSTEM:
        return name
    return "hidden" if name.startswith(".") else None


def _kind_of_file(entry: os.DirEntry[str], *, by_content: bool) -> str | None:
    """Returns the kind of a file that is not an image; None if it is an image."""
    if not entry.is_file():
        return _kind_of_others(entry)
    # Judged without opening it: folders may have millions of files.
    if _ENDING.search(entry.name):
        return None
    _, point, extension = entry.name.rpartition(".")
    extension = extension.lower()
    if by_content and extension not in _OTHER_EXTENSIONS and _begins_like_an_image(entry.path):
        return None
    has_one = point and extension.isalnum() and len(extension) <= _LONGEST_EXTENSION
    return f".{extension}" if has_one else "without extension"


def _kind_of_others(entry: os.DirEntry[str]) -> str:
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return "broken link" if isinstance(error, FileNotFoundError) else "link loop"
    return next((kind for is_kind, kind in _KINDS.items() if is_kind(mode)), "special file")


def _begins_like_an_image(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return begins_like_image(file.read(_START_BYTES))
    except OSError:
        return False
