# SPDX-License-Identifier: BSD-3-Clause
"""A folder of whole files, on a disk or in a bucket: gs://, s3:// and whatever fsspec has.

A file appears whole or not at all. Nothing is appended to and nothing is renamed in a bucket, where
neither exists.
"""

import contextlib
import datetime
import errno
import io
import os
import posixpath
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from mlimages_jax.files import remote
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import one_line
from mlimages_jax.files.scratch import TemporaryFolder

_BLOCK = 1 << 22  # bytes
_BUFFER = 1 << 16  # bytes
_LONGEST = 300  # characters of a message
_NOT_INSTALLED = {"gs": "gcsfs", "az": "adlfs"}  # what fsspec needs for a scheme


class ObjectFolderError(OSError):
    """The folder cannot be used; the message says why and what to do."""


class ObjectFolder:
    """A folder of whole files; may be pickled.

    Whatever a bucket's library raises comes as an OSError with an errno, from reads of an open file
    too: what has none is about the content of a file, as from Arrow.

    Args:
        place: Path or URL, such as gs://bucket/ml_images. It need not exist.

    Raises:
        ObjectFolderError: fsspec has no file system for such URLs, or cannot open it.
    """

    def __init__(self, place: str | os.PathLike[str]):
        text = os.fspath(place) or "."
        self.place = text.rstrip("/") or "/"
        self._system: fsspec.AbstractFileSystem | None = None
        self._root = self.place
        if remote.is_remote(self.place):
            self._system, self._root = _open_system(self.place)

    def __str__(self) -> str:
        return self.place

    def __reduce__(self) -> tuple[type["ObjectFolder"], tuple[str]]:
        return ObjectFolder, (self.place,)

    @property
    def local(self) -> Path | None:
        """The folder as a path; None for a bucket."""
        return Path(self.place) if self._system is None else None

    def path(self, name: str) -> str:
        """Returns path or URL of a file."""
        return f"{self.place}/{name}"

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Returns names and sizes in bytes of the files right in a folder inside of this one."""
        if self._system is None:
            return _sizes_on_disk(Path(self.place, folder))
        self._system.invalidate_cache()  # other processes write here
        with contextlib.suppress(FileNotFoundError), _reaching(self.path(folder)):
            entries = self._system.ls(self._inside(folder), detail=True)
            return {
                posixpath.basename(one["name"]): int(one["size"] or 0)
                for one in entries
                if one["type"] == "file"
            }
        return {}

    def size(self, name: str) -> int | None:
        """Returns the size of a file in bytes; None if there is none."""
        with contextlib.suppress(FileNotFoundError):
            if self._system is None:
                return Path(self.place, name).stat().st_size
            with _reaching(self.path(name)):
                found = self._system.info(self._inside(name))
            return int(found["size"]) if found["type"] == "file" else None
        return None

    def modified(self, name: str) -> float:
        """Returns when a file was written, in seconds since 1970 by the clock of disk or bucket.

        Raises:
            FileNotFoundError: There is none.
        """
        if self._system is None:
            return Path(self.place, name).stat().st_mtime
        with _reaching(self.path(name)):
            time = self._system.modified(self._inside(name))
        return cast(datetime.datetime, time).timestamp()

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file to read it, also in pieces; raises FileNotFoundError if there is none."""
        if self._system is None:
            with Path(self.place, name).open("rb") as file:
                yield file
            return
        with _reaching(self.path(name)):
            opened = self._system.open(self._inside(name), "rb")
        with opened, io.BufferedReader(_Reading(opened, self.path(name)), _BUFFER) as file:
            yield file

    def read(self, name: str) -> bytes:
        """Reads a small file; raises FileNotFoundError if there is none."""
        if self._system is None:
            return Path(self.place, name).read_bytes()
        # In one request: between those for the size and the bytes another process may replace it.
        with _reaching(self.path(name)):
            return bytes(self._system.cat_file(self._inside(name)))

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file, or replaces it."""
        if self._system is not None:
            with _reaching(self.path(name)):
                self._system.pipe_file(self._inside(name), data)
            return
        path = Path(self.place, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete_file(path) as unfinished:
            unfinished.write_bytes(data)

    @contextlib.contextmanager
    def creating(self, name: str) -> Iterator[Path]:
        """Yields a local path; what is written there becomes the file, whole or not at all."""
        if self._system is None:
            path = Path(self.place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with complete_file(path) as unfinished:
                yield unfinished
            return
        with TemporaryFolder() as scratch:
            path = Path(scratch, posixpath.basename(name))
            yield path
            self.put(path, name)

    def put(self, scratch: Path, name: str) -> None:
        """Moves a finished local file to its place; a disk must have both on one file system."""
        if self._system is not None:
            with _reaching(self.path(name)):
                self._system.put_file(os.fspath(scratch), self._inside(name))
            scratch.unlink()
            return
        path = Path(self.place, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A power failure must not leave a manifest beside a file that never reached the disk.
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)

    def copy_to(self, name: str, target: Path) -> None:
        """Copies a file to a local path, where it appears whole or not at all."""
        with (
            self.open(name) as source,
            complete_file(target) as unfinished,
            unfinished.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, _BLOCK)

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        """Yields a path of the file for libraries that need one; of a bucket's a copy."""
        if self._system is None:
            yield Path(self.place, name)
            return
        with TemporaryFolder() as scratch:
            path = Path(scratch, posixpath.basename(name))
            self.copy_to(name, path)
            yield path

    def remove(self, name: str) -> None:
        """Removes a file, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            if self._system is None:
                Path(self.place, name).unlink()
                return
            with _reaching(self.path(name)):
                self._system.rm_file(self._inside(name))

    def _inside(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


class _Reading(io.RawIOBase):
    """An open file of a bucket, with the errors of `_reaching`."""

    def __init__(self, file: BinaryIO, url: str):
        self._file, self._url = file, url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        with _reaching(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turns what a bucket's library raises into an OSError with an errno that names the URL."""
    try:
        yield
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # of gcsfs, aiohttp, google.auth, pyarrow or others
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = one_line(f"{type(error).__name__}: {error}"[:_LONGEST])
        raise OSError(errno.EIO, reason, url) from error


def _sizes_on_disk(folder: Path) -> dict[str, int]:
    sizes = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            # One by one: other processes create, rename and remove files while this one looks.
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file():
                    sizes[entry.name] = entry.stat().st_size
    return sizes


def local_copy(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[Path]:
    """Yields a local path of a file; of one in a bucket a copy in `TMPDIR` until the block ends."""
    folder, _, name = os.fspath(path).rpartition("/")
    return ObjectFolder(folder).local_copy(name)


def _open_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    scheme = url.partition("://")[0]
    try:
        system, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _NOT_INSTALLED.get(scheme, scheme)
        raise ObjectFolderError(
            f"{url}: {scheme}:// needs another package: pip install {package}"
        ) from error
    except ValueError as error:  # fsspec knows no such scheme
        raise ObjectFolderError(
            f"{url}: {error}; give a folder, gs://bucket/name or s3://bucket/name"
        ) from error
    return system, root.rstrip("/")
