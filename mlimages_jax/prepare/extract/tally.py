# SPDX-License-Identifier: BSD-3-Clause
"""What happened with one archive, for people."""

import collections
import dataclasses
from pathlib import Path

from mlimages_jax.data.archives import ArchiveError, DamagedArchiveError
from mlimages_jax.files.escaping import one_line

_SHOWN_PROBLEMS = 10  # of an archive


@dataclasses.dataclass
class Tally:
    """What happened with one archive.

    Attributes:
        path: of the archive.
        members: files that were passed or taken.
        inner_tars: that were entered.
        finished_before: inner tars that were not, because an earlier run finished them.
        stored: images.
        failed: images that are not usable, by error.
        problems: what in the archive is not usable, for people.
        damage: the first of them that means that members are lost.
        seconds: the time it took.
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
        """Notes what is not usable."""
        self.problems.append(one_line(str(error)))
        if isinstance(error, DamagedArchiveError) and self.damage is None:
            self.damage = self.problems[-1]

    def counts(self) -> str:
        """For one line."""
        return f"{self.stored:,} stored, {self.failed.total():,} failed"

    def __str__(self) -> str:
        failed = ", ".join(f"{count:,} {error}" for error, count in self.failed.most_common())
        lines = [
            f"{self.path}: {self.members:,} files; {self.inner_tars:,} inner tars, and "
            f"{self.finished_before:,} that were finished before",
            f"    stored {self.stored:,} in {self.seconds:,.1f} s; failed: {failed or 'none'}",
            *(f"    {problem}" for problem in self.problems[:_SHOWN_PROBLEMS]),
        ]
        if len(self.problems) > _SHOWN_PROBLEMS:
            lines.append(f"    and {len(self.problems) - _SHOWN_PROBLEMS:,} more such problems")
        return "\n".join(lines)
