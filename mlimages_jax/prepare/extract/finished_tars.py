# SPDX-License-Identifier: BSD-3-Clause
"""Which inner tars a later run need not look into."""

from pathlib import Path

from mlimages_jax.data.archives import Archive, Member
from mlimages_jax.prepare.storing import writing


class FinishedTars:
    """Inner tars that need not be entered again: a text file of one line each.

    Args:
        path: of the file; what cannot be read in it (its last line, after a kill) does not count.
        fingerprint: of the wanted names; lines of other names do not count.
    """

    def __init__(self, path: Path, *, fingerprint: str):
        self._path = path
        self._fingerprint = fingerprint
        self._lines: set[str] = set()
        if path.exists():
            self._lines.update(path.read_text("utf-8", "replace").split("\n")[:-1])

    def __contains__(self, tar: tuple[Archive, Member]) -> bool:
        return self._line(*tar) in self._lines

    def add(self, archive: Archive, tar: Member) -> None:
        """Notes that all wanted images of an inner tar have their rows."""
        line = self._line(archive, tar)
        self._lines.add(line)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def forget(self) -> None:
        """Makes all tars be entered again."""
        self._lines.clear()
        with writing(self._path):
            self._path.unlink(missing_ok=True)

    def _line(self, archive: Archive, tar: Member) -> str:
        place = f"{archive.path.name}\t{archive.size}\t{tar.offset}\t{tar.name}"
        return f"{self._fingerprint}\t{place}"
