# SPDX-License-Identifier: BSD-3-Clause
"""Rows of other people's files that cannot be used: counted, listed with a reason, and limited.

One odd row of a million must not end an import, and a file that is read in a wrong way must not
pass as a small one: so a few rows may be set aside, and no more.
"""

from pathlib import Path
from typing import NamedTuple

from mlimages_jax.files.counting import counted
from mlimages_jax.files.escaping import one_line
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports import full_disk

FILE = "set_aside.tsv"
FEW = 5  # rows that any import may lose, however small it is
_SHOWN = 10
_HELD = 100_000  # of them in memory; the others are only counted


class BadRow(NamedTuple):
    """A row that is set aside.

    Attributes:
        file: that holds it.
        place: line number from 1, or a place in JSON such as "annotations[3]".
        message: what is wrong, and what to do.
    """

    file: str
    place: str
    message: str

    def __str__(self) -> str:
        colon = ":" if self.place[:1].isdigit() else ": "
        return one_line(f"{self.file}{colon}{self.place}: {self.message}")


class SetAside:
    """Takes bad rows, and says when they are too many.

    Args:
        max_skipped: share of all rows that may be set aside; `FEW` may always.

    Attributes:
        count: of the rows set aside.
        total: of all rows, these included; whoever reads rows counts it up.
    """

    def __init__(self, max_skipped: float = 0.01):
        if not 0 <= max_skipped <= 1:
            raise PrepareError(f"--max-skipped {max_skipped} is not from 0 to 1")
        self._share = max_skipped
        self._rows: list[BadRow] = []
        self.count = 0
        self.total = 0

    def add(self, row: BadRow) -> None:
        """Sets a row aside; it counts as one of all rows too."""
        self.total += 1
        self.count += 1
        if len(self._rows) < _HELD:
            self._rows.append(row)

    @property
    def first(self) -> str:
        """The first one, for people; there has to be one."""
        return str(self._rows[0])

    def check(self) -> None:
        """Refuses too many.

        Raises:
            PrepareError: shows the first ones.
        """
        if self.count == 0:
            return
        allowed = max(FEW if self._share else 0, int(self._share * self.total))
        if self.count > allowed or self.count == self.total:
            raise PrepareError(
                f"{self._first()}\n{self.count:,} of {counted(self.total, 'row')} cannot be used; "
                f"{allowed:,} may be set aside (--max-skipped {self._share:g}, or {FEW} rows), and "
                "one row must be left. Correct them, or raise --max-skipped"
            )

    def write(self, folder: Path) -> None:
        """Writes the table of them, or removes that of an earlier import."""
        path = folder / FILE
        if not self._rows:
            path.unlink(missing_ok=True)
            return
        lines = ["\t".join(BadRow._fields)]
        lines += ["\t".join(map(one_line, row)) for row in self._rows]
        unfinished = path.with_name(f"{FILE}.unfinished")
        text = "\n".join(lines) + "\n"
        with full_disk.names_folder(folder):
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
            unfinished.replace(path)

    def summary(self, folder: Path | None = None) -> str:
        """For people: the first ones and their count; empty if there are none."""
        if not self.count:
            return ""
        where = f"; all of them are in {one_line(str(folder / FILE))}" if folder else ""
        be = "is" if self.count == 1 else "are"
        rows = f"{self.count:,} of {counted(self.total, 'row')}"
        return f"{self._first()}\n{rows} {be} set aside{where}"

    def _first(self) -> str:
        shown = [str(row) for row in self._rows[:_SHOWN]]
        if self.count > _SHOWN:
            shown.append("...")
        return "\n".join(shown)
