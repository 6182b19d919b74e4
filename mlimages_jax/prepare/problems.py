# SPDX-License-Identifier: BSD-3-Clause
"""What was wrong with single records of a long job: counted, shown at first, listed in a table."""

import collections
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from mlimages_jax.files.escaping import one_line, tsv_row
from mlimages_jax.prepare import PrepareError

_SHOWN = 20


class Problem(NamedTuple):
    """A row of the table.

    Attributes:
        file: that holds the record, or is itself the problem.
        record: its number in the file, from 0; None: the file, or the set, as a whole.
        name: of the image, where it is known.
        problem: one countable word.
        message: for people.
    """

    file: str
    record: int | None
    name: str
    problem: str
    message: str

    def __str__(self) -> str:
        record = "" if self.record is None else f" record {self.record}"
        name = f" ({self.name})" if self.name else ""
        return f"{self.file}{record}{name}: {self.problem}: {self.message}"


class ProblemList:
    """Takes problems one by one; holds none of them in memory.

    A context manager. The table appears under its name when the block ends, by itself or by a
    `PrepareError`: then all was found that could be. The first problems are printed as they come.

    Args:
        path: of the table, tab-separated columns under a header line; None: there is none.

    Attributes:
        path: the same.
        counts: by `Problem.problem`.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.counts: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> "ProblemList":
        if self.path is not None:
            self._unfinished = self.path.with_name(f"{self.path.name}.unfinished")
            self._file = self._unfinished.open("w", encoding="utf-8", newline="\n")
            self._file.write(tsv_row(Problem._fields))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.path is None:
            return
        self._file.close()
        if kind is None or issubclass(kind, PrepareError):
            self._unfinished.replace(self.path)
        else:
            self._unfinished.unlink()

    def add(self, problem: Problem) -> None:
        """Counts a problem, and shows and writes it."""
        self.counts[problem.problem] += 1
        if self.path is not None:
            self._file.write(tsv_row("" if column is None else column for column in problem))
        if self.counts.total() <= _SHOWN:
            tqdm.write(one_line(str(problem)))  # to standard output, past the progress bar
        elif self.counts.total() == _SHOWN + 1:
            place = f"will be in {self.path}" if self.path else "are only counted"
            tqdm.write(f"... the others {place}")

    def summary(self) -> str:
        """Such as "12 image, 1 name"; the most frequent first."""
        return ", ".join(f"{count:,} {problem}" for problem, count in self.counts.most_common())
