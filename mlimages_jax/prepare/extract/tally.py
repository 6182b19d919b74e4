# SPDX-License-Identifier: BSD-3-Clause
"""Counts and reports what happened with one archive."""

import collections
import dataclasses
from pathlib import Path

from mlimages_jax.data.archives import ArchiveError, DamagedArchiveError
from mlimages_jax.files.escaping import one_line

_SHOWN_PROBLEMS = 10  # of an archive


@dataclasses.dataclass
class Tally:
    """Counts of one archive, printed for the user.

    Attributes:
        path: Path of the archive.
        members: Number of files seen.
        inner_tars: Number of inner tars read.
        finished_before: Number of inner tars skipped, because an earlier run finished them.
        stored: Number of images stored.
        failed: Number of unusable images, by error.
        problems: Messages about unusable parts of the archive.
        damage: The first of them that means that members are lost.
        seconds: Time taken.
    """

    path: Path
    members: int = 0
    inner_tars: int = 0
    finished_before: int = 0
    stored: int = 0
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    problems: list[str] = dataclasses.field(default_factory=list)
    damage: str | None = None
    seconds: float = 0

    def problem(self, error: ArchiveError) -> None:
        """Records an unusable part of the archive."""
        self.problems.append(one_line(str(error)))
        if isinstance(error, DamagedArchiveError) and self.damage is None:
            self.damage = self.problems[-1]

    def add(self, other: "Tally") -> None:
        """Adds the counts of another part of the same archive."""
        self.members += other.members
        self.inner_tars += other.inner_tars
        self.finished_before += other.finished_before
        self.stored += other.stored
        self.failed += other.failed
        self.problems = list(dict.fromkeys(self.problems + other.problems))
        self.damage = self.damage or other.damage
        self.seconds += other.seconds

    def counts(self) -> str:
        """Returns a short text for the progress bar."""
        return f"{self.stored:,} stored, {self.failed.total():,} failed"

    def __str__(self) -> str:
        failed = ", ".join(f"{count:,} {error}" for error, count in self.failed.most_common())
        lines = [
            f"{self.path}: {self.members:,} files; {self.inner_tars:,} inner tars, and "
            f"{self.finished_before:,} finished before",
            f"    stored {self.stored:,} in {self.seconds:,.1f} s; failed: {failed or 'none'}",
            *(f"    {problem}" for problem in self.problems[:_SHOWN_PROBLEMS]),
        ]
        if len(self.problems) > _SHOWN_PROBLEMS:
            lines.append(f"    and {len(self.problems) - _SHOWN_PROBLEMS:,} more problems")
        return "\n".join(lines)
