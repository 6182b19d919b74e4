# SPDX-License-Identifier: BSD-3-Clause
"""Decides which images of an archive to extract, in little memory.

ML-Images names 10.7 million images of ImageNet. Here a name costs 17 bytes of memory: a 64-bit
hash of its last part, used to find it, its position in a temporary file of all names, and its
state. The full name is compared once the hash is found, so hash collisions do no harm.
"""

import array
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mlimages_jax.files.safe_paths import UnsafeNameError, first_unsafe, inside
from mlimages_jax.files.text_files import open_lines
from mlimages_jax.image_shards.outcome import OK, Image
from mlimages_jax.labels.lists import ANY_CLASS, iter_label_list
from mlimages_jax.labels.rows import row_names
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.storing import writing

MISSING = "missing"  # the error of an image that is in no archive
_OPEN, _MISSED, _FAILED, _DONE = range(4)  # untried, in no archive so far, unusable, extracted
_LONGEST_NAME = 255  # bytes; the limit of file systems, and how much is read to find a name's end


class Selection(Protocol):
    """Decides which members of archives are extracted."""

    fingerprint: str
    """Identifies the set of names: inner tars finished for the same names need not be reread."""

    def claim(self, member: str) -> str | None:
        """Returns the name to store a member under, or None if it is unwanted or already taken."""

    def failed(self, name: str) -> None:
        """Releases a claim, so that another copy of the image can be used."""


class Everything:
    """Wants every member, under its own name, unless the manifest already has it."""

    fingerprint = "everything"

    def __init__(self, manifest: Manifest, images: Path):
        self._manifest = manifest
        self._images = images

    def claim(self, member: str) -> str | None:
        """See `Selection`."""
        image = self._manifest.get([member]).get(member)
        if image is None or image.status != OK:
            return member
        try:
            return None if inside(self._images, member).is_file() else member
        except UnsafeNameError:
            return member  # storing it will fail with the right message

    def failed(self, name: str) -> None:
        """See `Selection`."""


class ListedNames:
    """Wants the names of lists; matches members by the last part of the name. A context manager.

    Args:
        lists: Label lists.
        folder: Folder for a temporary file as large as all names together.

    Raises:
        LabelListError: A row cannot be read.
        PrepareError: A name is not a safe relative path, two names have the same last part, or the
            folder cannot be written to.
    """

    def __init__(self, lists: Sequence[Path], *, folder: Path):
        with writing(folder):
            self._names = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed by __exit__
        hashes, offsets = array.array("Q"), array.array("q")
        fingerprint = hashlib.blake2b(digest_size=16)
        for path in lists:
            for part in iter_label_list(path, num_classes=ANY_CLASS):
                names = row_names(part)
                _check(names, path)
                hashes.frombytes(b"".join(map(_digest, names)))
                before = self._names.tell() + np.arange(len(names))  # with a line end for each name
                offsets.frombytes((before + part.name_offsets[:-1]).astype(np.int64).tobytes())
                text = b"\n".join([*names, b""])
                fingerprint.update(text)
                with writing(folder):
                    self._names.write(text)
                    # For `_name`: pread does not see what is still in Python's buffer.
                    self._names.flush()
        self.fingerprint = fingerprint.hexdigest()
        order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
        self._hashes = np.frombuffer(hashes, np.uint64)[order]
        self._offsets = np.frombuffer(offsets, np.int64)[order]
        self._drop_repetitions()
        self._states = np.full(len(self._hashes), _OPEN, np.uint8)

    def __enter__(self) -> "ListedNames":
        return self

    def __exit__(self, *_: object) -> None:
        self._names.close()

    def __len__(self) -> int:
        return len(self._hashes)

    def claim(self, member: str) -> str | None:
        """See `Selection`."""
        index = self._find(member)
        if index is None or self._states[index] == _DONE:
            return None
        self._states[index] = _DONE
        return self._name(index).decode()

    def failed(self, name: str) -> None:
        """See `Selection`."""
        index = self._find(name)
        assert index is not None, name
        self._states[index] = _FAILED

    def missing(self) -> Iterator[str]:
        """Yields the names found in no archive, and marks them as such."""
        for index in np.flatnonzero(self._states == _OPEN).tolist():
            self._states[index] = _MISSED
            yield self._name(index).decode()

    def recall(self, rows: Iterable[Image], images: Path) -> int:
        """Restores the state of earlier runs; rows whose file was deleted are ignored.

        Args:
            rows: Rows of a manifest, sorted by name.
            images: The folder of images.

        Returns:
            The number of deleted files.
        """
        gone, folder, files = 0, "", frozenset[str]()
        for image in rows:
            index = self._find(image.name)
            if index is None or self._name(index).decode() != image.name:
                continue
            if image.status != OK or image.file is None:
                self._states[index] = _MISSED if image.error == MISSING else _FAILED
                continue
            parent, file = os.path.split(image.file)
            if parent != folder or not files:  # rows are sorted: each folder is listed once
                folder, files = parent, _files(images, parent)
            self._states[index] = _DONE if file in files else _OPEN
            gone += file not in files
        return gone

    def count(self) -> dict[str, int]:
        """Counts the names by state, once all archives have been read."""
        states = {"present": _DONE, "failed": _FAILED, "missing": _MISSED}
        return {name: int((self._states == state).sum()) for name, state in states.items()}

    def _find(self, name: str) -> int | None:
        last = name.rpartition("/")[2].encode()
        digest = np.frombuffer(_digest(last), np.uint64)[0]
        index = int(np.searchsorted(self._hashes, digest))
        while index < len(self._hashes) and self._hashes[index] == digest:
            if self._name(index).rpartition(b"/")[2] == last:
                return index
            index += 1
        return None

    def _name(self, index: int) -> bytes:
        data = os.pread(self._names.fileno(), _LONGEST_NAME + 1, int(self._offsets[index]))
        return data.partition(b"\n")[0]

    def _drop_repetitions(self) -> None:
        """Keeps the first of equal names; they have equal hashes, so sorting made them adjacent."""
        keep = np.ones(len(self._hashes), bool)
        for index in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist():
            one, other = self._name(index), self._name(index + 1)
            if one == other:
                keep[index + 1] = False
            elif one.rpartition(b"/")[2] == other.rpartition(b"/")[2]:
                raise PrepareError(
                    f"the lists name {one.decode()} and {other.decode()}; images are found by "
                    "their file name alone, so put the two into separate lists and runs"
                )
        if not keep.all():
            self._hashes, self._offsets = self._hashes[keep], self._offsets[keep]


def _digest(name: bytes) -> bytes:
    return hashlib.blake2b(name.rpartition(b"/")[2], digest_size=8).digest()


def _check(names: list[bytes], path: Path) -> None:
    name = first_unsafe(names) or next((n for n in names if len(n) > _LONGEST_NAME), None)
    if name is None:
        return
    hint = "fetch URLs with `download`" if b"://" in name else "correct it or remove the row"
    raise PrepareError(
        f"{path}:{_line_of(name, path)}: {name.decode()!r} is not a safe file name; {hint}"
    )


def _line_of(name: bytes, path: Path) -> int:
    with open_lines(path) as file:
        for number, row in enumerate(file, start=1):
            if row.startswith(name) and not row[len(name) : len(name) + 1].strip():
                return number
    raise AssertionError(f"{path} changed while it was read: {name!r} is gone")


def _files(images: Path, folder: str) -> frozenset[str]:
    """Returns the file names in a folder of images; none if the path leads outside of it."""
    try:
        parent = inside(images, f"{folder}/file" if folder else "file").parent
        return frozenset(file.name for file in parent.iterdir())
    except (FileNotFoundError, NotADirectoryError, UnsafeNameError):
        return frozenset()
