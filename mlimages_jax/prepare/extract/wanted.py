# SPDX-License-Identifier: BSD-3-Clause
"""Which images of an archive are still to be taken out, in little memory.

ML-Images names 10.7 million images of ImageNet. Here a name costs 17 bytes of memory: a 64-bit
hash of its last part, by which it is found, its place in a temporary file that holds all names, and
what is known of it. A found name is compared as a whole, so hashes that collide do no harm.
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
from mlimages_jax.labels.lists import ANY_CLASS, iter_label_list
from mlimages_jax.labels.rows import row_names
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.manifest import OK, Image, Manifest
from mlimages_jax.prepare.storing import writing

MISSING = "missing"  # the error of an image that no archive held
_OPEN, _MISSED, _FAILED, _DONE = range(4)  # nothing known, in no archive so far, unusable, taken
_LONGEST_NAME = 255  # bytes that are read to find the end of a name


class Wanted(Protocol):
    """Decides which members of archives are taken."""

    fingerprint: str
    """Of all names: whoever finished an inner tar for the same names need not enter it again."""

    def claim(self, member: str) -> str | None:
        """The name under which a member is to be stored; None if it is not wanted, or was taken."""

    def failed(self, name: str) -> None:
        """Takes back a claim: another copy of this image would be welcome."""


class Everything:
    """Every member, under its own name, unless the manifest has it already."""

    fingerprint = "everything"

    def __init__(self, manifest: Manifest, images: Path):
        self._manifest = manifest
        self._images = images

    def claim(self, member: str) -> str | None:
        """See `Wanted`."""
        image = self._manifest.get([member]).get(member)
        if image is None or image.status != OK:
            return member
        try:
            return None if inside(self._images, member).is_file() else member
        except UnsafeNameError:
            return member  # whoever stores it will say why it cannot

    def failed(self, name: str) -> None:
        """See `Wanted`."""


class ListedNames:
    """The names of lists; a member is matched by the last part of its name. A context manager.

    Args:
        lists: label lists.
        folder: for a temporary file of the size of all names.

    Raises:
        LabelListError: a row cannot be read.
        PrepareError: a name is no safe relative path, two names have the same last part, or the
            folder cannot be written to.
    """

    def __init__(self, lists: Sequence[Path], *, folder: Path):
        with writing(folder):
            self._names = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed by __exit__
        hashes, places = array.array("Q"), array.array("q")
        fingerprint = hashlib.blake2b(digest_size=16)
        for path in lists:
            for part in iter_label_list(path, num_classes=ANY_CLASS):
                names = row_names(part)
                _check(names, path)
                hashes.frombytes(b"".join(map(_digest, names)))
                before = self._names.tell() + np.arange(len(names))  # with a line end for each name
                places.frombytes((before + part.name_offsets[:-1]).astype(np.int64).tobytes())
                text = b"\n".join([*names, b""])
                fingerprint.update(text)
                with writing(folder):
                    self._names.write(text)
                    self._names.flush()
        self.fingerprint = fingerprint.hexdigest()
        order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
        self._hashes = np.frombuffer(hashes, np.uint64)[order]
        self._places = np.frombuffer(places, np.int64)[order]
        self._drop_repetitions()
        self._states = np.full(len(self._hashes), _OPEN, np.uint8)

    def __enter__(self) -> "ListedNames":
        return self

    def __exit__(self, *_: object) -> None:
        self._names.close()

    def __len__(self) -> int:
        return len(self._hashes)

    def claim(self, member: str) -> str | None:
        """See `Wanted`."""
        place = self._find(member)
        if place is None or self._states[place] == _DONE:
            return None
        self._states[place] = _DONE
        return self._name(place).decode()

    def failed(self, name: str) -> None:
        """See `Wanted`."""
        place = self._find(name)
        assert place is not None, name
        self._states[place] = _FAILED

    def missing(self) -> Iterator[str]:
        """See `Wanted`."""
        for place in np.flatnonzero(self._states == _OPEN).tolist():
            self._states[place] = _MISSED
            yield self._name(place).decode()

    def recall(self, rows: Iterable[Image], images: Path) -> int:
        """Learns what earlier runs did; a row whose file is gone counts for nothing.

        Args:
            rows: of a manifest, by name.
            images: the folder of images.

        Returns:
            How many files are gone.
        """
        gone, folder, files = 0, "", frozenset[str]()
        for image in rows:
            place = self._find(image.name)
            if place is None or self._name(place).decode() != image.name:
                continue
            if image.status != OK or image.file is None:
                self._states[place] = _MISSED if image.error == MISSING else _FAILED
                continue
            parent, file = os.path.split(image.file)
            if parent != folder or not files:  # rows come by name, so a folder is listed once
                folder, files = parent, _files(images, parent)
            self._states[place] = _DONE if file in files else _OPEN
            gone += file not in files
        return gone

    def count(self) -> dict[str, int]:
        """How many names are there, failed and missing, when all archives have been read."""
        states = {"there": _DONE, "failed": _FAILED, "missing": _MISSED}
        return {name: int((self._states == state).sum()) for name, state in states.items()}

    def _find(self, name: str) -> int | None:
        last = name.rpartition("/")[2].encode()
        digest = np.frombuffer(_digest(last), np.uint64)[0]
        place = int(np.searchsorted(self._hashes, digest))
        while place < len(self._hashes) and self._hashes[place] == digest:
            if self._name(place).rpartition(b"/")[2] == last:
                return place
            place += 1
        return None

    def _name(self, place: int) -> bytes:
        data = os.pread(self._names.fileno(), _LONGEST_NAME + 1, int(self._places[place]))
        return data.partition(b"\n")[0]

    def _drop_repetitions(self) -> None:
        """Keeps the first of equal names, which have equal hashes and so are neighbours now."""
        keep = np.ones(len(self._hashes), bool)
        for place in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist():
            one, other = self._name(place), self._name(place + 1)
            if one == other:
                keep[place + 1] = False
            elif one.rpartition(b"/")[2] == other.rpartition(b"/")[2]:
                raise PrepareError(
                    f"the lists name {one.decode()} and {other.decode()}; images are found by "
                    "their file name alone, so give lists with one of the two to separate runs"
                )
        if not keep.all():
            self._hashes, self._places = self._hashes[keep], self._places[keep]


def _digest(name: bytes) -> bytes:
    return hashlib.blake2b(name.rpartition(b"/")[2], digest_size=8).digest()


def _check(names: list[bytes], path: Path) -> None:
    name = first_unsafe(names) or next((n for n in names if len(n) > _LONGEST_NAME), None)
    if name is None:
        return
    hint = "fetch URLs with `download`" if b"://" in name else "correct it or remove the row"
    raise PrepareError(
        f"{path}:{_line_of(name, path)}: {name.decode()!r} is not a safe name of a file; {hint}"
    )


def _line_of(name: bytes, path: Path) -> int:
    with open_lines(path) as file:
        for number, row in enumerate(file, start=1):
            if row.startswith(name) and not row[len(name) : len(name) + 1].strip():
                return number
    raise AssertionError(f"{path} has changed while it was read: {name!r} is gone")


def _files(images: Path, folder: str) -> frozenset[str]:
    """The names in a folder of images; none where a manifest names one that lies elsewhere."""
    try:
        place = inside(images, f"{folder}/file" if folder else "file").parent
        return frozenset(file.name for file in place.iterdir())
    except (FileNotFoundError, NotADirectoryError, UnsafeNameError):
        return frozenset()
