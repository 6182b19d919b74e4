# SPDX-License-Identifier: BSD-3-Clause
"""Writes a job's rows to its manifest in batches, and finds the same bytes under many URLs.

A server that has lost its images answers every URL with the same placeholder. The first answers
look like any image; once the same bytes have come often enough, all their rows become failures and
their files are deleted.
"""

import collections
import contextlib
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mlimages_jax.files.safe_paths import UnsafeNameError, inside
from mlimages_jax.image_shards.outcome import FAILED, OK, Image, printable
from mlimages_jax.prepare import locked_file
from mlimages_jax.prepare.manifest import Manifest, ManifestError
from mlimages_jax.prepare.sink import Kept
from mlimages_jax.prepare.storing import (
    Expected,
    StorageError,
    UnwantedFileError,
    store,
    unless_of_one_name,
    writing,
)


class Recorder:
    """A `Sink` of files: collects rows and writes them to the manifest on `flush`.

    Args:
        manifest: The manifest to write to.
        images: The folder of images.
        max_copies: The same bytes under this many names are a placeholder; 0 turns this off.

    Attributes:
        pending: Rows not yet written, by name.
        written: Number of rows written, by status.
    """

    def __init__(self, manifest: Manifest, images: Path, *, max_copies: int):
        self._manifest = manifest
        self._images = images
        self._max_copies = max_copies
        self.pending: dict[str, Image] = {}
        self.written: collections.Counter[str] = collections.Counter()
        self._locked_since: float | None = None

    def keep(
        self, unfinished: Path, file: str, *, expected: Expected, short_side: int | None
    ) -> Kept:
        """Moves an image to its file, see `Sink`."""
        try:
            path = inside(self._images, file)
        except UnsafeNameError as error:
            raise UnwantedFileError("unsafe_name", str(error)) from error
        try:
            return Kept(store(unfinished, path, expected=expected, short_side=short_side))
        except StorageError as error:
            raise unless_of_one_name(error, self._images) from error

    def discard(self, file: str) -> None:
        """Removes the file of an image, see `Sink`."""
        with contextlib.suppress(OSError, UnsafeNameError):
            inside(self._images, file).unlink()

    def add(self, image: Image, kept: Kept | None = None) -> None:
        """Adds a row, whose file, if it has one, must be complete.

        Text from servers, tables and decoders is escaped, put on one line and truncated.
        """
        self.pending[image.name] = printable(image)

    def fail(self, name: str, error: str, message: str, **fields: Any) -> None:
        """Adds the row of an image that is not available; `fields` are further ones of `Image`."""
        self.add(
            Image(
                name=name, status=FAILED, time=time.time(), error=error, message=message, **fields
            )
        )

    def flush(self, *, wait: bool = True) -> None:
        """Writes the pending rows, all or none.

        Args:
            wait: Wait for another program that has locked the manifest. If false, the rows stay
                pending for the next call, until the lock has lasted too long.

        Raises:
            StorageError: The manifest cannot be written; the rows stay pending.
        """
        try:
            if not wait and self._must_come_again():
                return
            self._manifest.put(self.pending.values())
            written = list(self.pending.values())
            self.pending.clear()
            self.written.update(image.status for image in written)
            if self._max_copies:
                self._fail_repeated(written)
        except ManifestError as error:
            raise StorageError(str(error)) from error
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._manifest.path}: {error}. Free some space or choose another folder, then "
                "run the same command again to resume"
            ) from error

    def _must_come_again(self) -> bool:
        if not self._manifest.is_locked():
            self._locked_since = None
            return False
        now = time.monotonic()
        if self._locked_since is None:
            self._locked_since = now
            locked_file.tell(self._manifest.path)
        elif now - self._locked_since > locked_file.LOCKED_SECONDS:
            raise StorageError(locked_file.locked_too_long(self._manifest.path))
        return True

    def settle(self) -> None:
        """Completes what a job killed between two writes left undone; call it first."""
        if self._max_copies:
            self._fail(self._manifest.repeated_contents(self._max_copies))
        self._remove_files()

    def _fail_repeated(self, written: list[Image]) -> None:
        contents = {p.sha256 for p in written if p.status == OK and p.sha256 is not None}
        copies = self._manifest.copies(contents)
        self._fail(content for content in contents if copies[content] >= self._max_copies)
        self._remove_files()

    def _fail(self, contents: Iterable[bytes]) -> None:
        message = f"the same bytes came from {self._max_copies} or more URLs"
        for content in contents:
            self._manifest.fail_content(content, error="placeholder", message=message)

    def _remove_files(self) -> None:
        """Deletes the files of failures; the manifest may come from an untrusted source."""
        while files := self._manifest.files_of_failed():
            for name, file in files:
                try:
                    path = inside(self._images, file)
                except UnsafeNameError as error:
                    tqdm.write(f"{self._manifest.path}: {name!r}: did not delete its file: {error}")
                    continue
                with writing(path), contextlib.suppress(IsADirectoryError, NotADirectoryError):
                    path.unlink(missing_ok=True)
            self._manifest.forget_files(name for name, _ in files)
