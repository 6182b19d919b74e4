# SPDX-License-Identifier: BSD-3-Clause
"""Remembers the inner tars that later runs can skip."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mlimages_jax.data.archives import Archive, Member
from mlimages_jax.prepare.storing import writing


class Finished(Protocol):
    """The inner tars that need not be read again."""

    def __contains__(self, tar: tuple[Archive, Member]) -> bool: ...

    def add(self, archive: Archive, tar: Member) -> None:
        """Records that all wanted images of an inner tar have been added to the sink."""


class FinishedTars:
    """Those of a folder of files: a text file with one line each.

    Args:
        path: Path of the file. An incomplete last line, left by a kill, is ignored.
        fingerprint: Fingerprint of the wanted names; lines for other names are ignored.
        flush: Writes all rows added.
    """

    def __init__(self, path: Path, *, fingerprint: str, flush: Callable[[], None]):
        self._path = path
        self._fingerprint = fingerprint
        self._flush = flush
        self._lines: set[str] = set()
        if path.exists():
            self._lines.update(path.read_text("utf-8", "replace").split("\n")[:-1])

    def __contains__(self, tar: tuple[Archive, Member]) -> bool:
        return line_of(self._fingerprint, *tar) in self._lines

    def add(self, archive: Archive, tar: Member) -> None:
        """Records an inner tar, once the rows of its images are written; see `Finished`."""
        self._flush()
        line = line_of(self._fingerprint, archive, tar)
        self._lines.add(line)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def forget(self) -> None:
        """Forgets everything, so that all tars are read again."""
        self._lines.clear()
        with writing(self._path):
            self._path.unlink(missing_ok=True)


def line_of(fingerprint: str, archive: Archive, tar: Member) -> str:
    """Returns the line of an inner tar, from which certain names were extracted."""
    place = f"{archive.path.name}\t{archive.size}\t{tar.offset}\t{tar.name}"
    return f"{fingerprint}\t{place}"
