# SPDX-License-Identifier: BSD-3-Clause
"""Reads tables of tab-separated text with a line of column names."""

from etils import epath

Row = dict[str, str]


def read_table(path: epath.PathLike) -> list[Row]:
    """Reads the rows by column name; [] without a file. Lines of another length are skipped."""
    try:
        text = epath.Path(path).read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    # Not splitlines, which also splits at marks that names may contain.
    header, *lines = (line.removesuffix("\r").split("\t") for line in text.split("\n"))
    return [dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header)]


def number(text: str | None) -> float | None:
    """Converts a cell; None if it is empty or no number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None  # nan too
