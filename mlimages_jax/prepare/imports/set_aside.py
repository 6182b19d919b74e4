# SPDX-License-Identifier: BSD-3-Clause
"""Sets unusable rows of an import aside: counts them, lists them with a reason, limits them.

One odd row in a million must not stop an import, and a file that is misread must not pass as a
small one: so a few rows may be set aside, and no more.
"""

from pathlib import Path
from typing import NamedTuple

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.counting import counted
from mlimages_jax.files.escaping import one_line
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports import full_disk

FILE = "set_aside.tsv"
FEW = 5  # rows that any import may set aside, however small it is
_SHOWN = 10
_HELD = 100_000  # rows kept in memory; further ones are only counted


class BadRow(NamedTuple):
    """A row that was set aside.

    Attributes:
        file: The file that contains it.
        place: Line number from 1, or a position in JSON such as "annotations[3]".
        message: What is wrong, and what to do.
    """

    file: str
    place: str
    message: str

    def __str__(self) -> str:
        colon = ":" if self.place[:1].isdigit() else ": "
        return one_line(f"{self.file}{colon}{self.place}: {self.message}")


class SetAside:
    """Collects bad rows, and raises an error if there are too many.

    Args:
        max_skipped: Fraction of all rows that may be set aside; `FEW` rows always may.

    Attributes:
        count: Number of rows set aside.
        total: Number of all rows, including these; increased by whoever reads rows.
    """

    def __init__(self, max_skipped: float = 0.01):
        if not 0 <= max_skipped <= 1:
            raise PrepareError(f"--max-skipped {max_skipped} is not from 0 to 1")
        self._fraction = max_skipped
        self._rows: list[BadRow] = []
        self.count = 0
        self.total = 0

    def add(self, row: BadRow) -> None:
        """Sets a row aside; it also counts in `total`."""
        self.total += 1
        self.count += 1
        if len(self._rows) < _HELD:
            self._rows.append(row)

    @property
    def first(self) -> str:
        """The first row set aside, as a text; there must be one."""
        return str(self._rows[0])

    def check(self) -> None:
        """Checks that not too many rows were set aside.

        Raises:
            PrepareError: There are too many; the message shows the first ones.
        """
        if self.count == 0:
            return
        allowed = max(FEW if self._fraction else 0, int(self._fraction * self.total))
        if self.count > allowed or self.count == self.total:
            raise PrepareError(
                f"{self._first()}\n{self.count:,} of {counted(self.total, 'row')} unusable; "
                f"at most {allowed:,} may be set aside (--max-skipped {self._fraction:g}, or {FEW} "
                "rows), and at least one row must remain. Correct them, or raise --max-skipped"
            )

    def write(self, folder: Path) -> None:
        """Writes the table of bad rows, or deletes that of an earlier import."""
        path = folder / FILE
        if not self._rows:
            path.unlink(missing_ok=True)
            return
        lines = ["\t".join(BadRow._fields)]
        lines += ["\t".join(map(one_line, row)) for row in self._rows]
        text = "\n".join(lines) + "\n"
        with full_disk.names_folder(folder), complete_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")

    def summary(self, folder: Path | None = None) -> str:
        """Returns the first bad rows and their count as a text; empty if there are none."""
        if not self.count:
            return ""
        where = f"; see {one_line(str(folder / FILE))} for all of them" if folder else ""
        rows = f"{self.count:,} of {counted(self.total, 'row')}"
        return f"{self._first()}\n{rows} set aside{where}"

    def _first(self) -> str:
        shown = [str(row) for row in self._rows[:_SHOWN]]
        if self.count > _SHOWN:
            shown.append("...")
        return "\n".join(shown)
