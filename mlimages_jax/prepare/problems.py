# SPDX-License-Identifier: BSD-3-Clause
"""Problems with single records of a long job: counted, printed at first, listed in a table."""

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
        file: The file that contains the record, or is itself the problem.
        record: Number of the record in the file, from 0; None: the complete file or set.
        name: Name of the image, if known.
        problem: Machine-readable kind, one word.
        message: Explanation for the user.
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
    """Counts and lists problems as they come; keeps none of them in memory.

    A context manager. The table gets its final name when the block ends normally or with a
    `PrepareError`, that is, once everything that could be found was found. The first problems are
    also printed.

    Args:
        path: The table to write: tab-separated columns with a header line. None: no table.

    Attributes:
        path: The same.
        counts: Number of problems by `Problem.problem`.
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
        """Counts a problem, writes it to the table and prints it if it is one of the first."""
        self.counts[problem.problem] += 1
        if self.path is not None:
            self._file.write(tsv_row("" if column is None else column for column in problem))
        if self.counts.total() <= _SHOWN:
            tqdm.write(one_line(str(problem)))  # to standard output, above the progress bar
        elif self.counts.total() == _SHOWN + 1:
            rest = f"will be in {self.path}" if self.path else "are only counted"
            tqdm.write(f"... the others {rest}")

    def summary(self) -> str:
        """Returns a text such as "12 image, 1 name", the most frequent first."""
        return ", ".join(f"{count:,} {problem}" for problem, count in self.counts.most_common())
