# SPDX-License-Identifier: BSD-3-Clause
"""Reads tables of delimited text: detects delimiter and header, yields rows as lists of fields.

If a quote is never closed, a CSV reader takes all lines up to the next quote for one field. Such
rows are complete but wrong, so the lines inside of a field are examined: if they are rows by
themselves, the quote was not meant to reach that far, and the file is rejected with the line.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.text_lines import Lines, check_decoded

DELIMITERS = ",;\t|"
SAMPLE_LINES = 200
_IMAGE = re.compile(
    r"\.(jpe?g|jfif|png|gif|webp|bmp|tiff?|avif|heic|heif|ppm|pgm|jp2|ico)$", re.IGNORECASE
)
_EXCEL_HINT = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # a first line that tells Excel how to split
_FIELD_LIMIT = 1 << 24


class Format(NamedTuple):
    """The format of a table of delimited text.

    Attributes:
        delimiter: Delimiter between columns.
        columns: Names of the columns; "column 2" for one without a name, "a (2)" for the second
            "a".
        has_header: Whether the first row contains the names.
    """

    delimiter: str
    columns: tuple[str, ...]
    has_header: bool


def is_image_path(text: object) -> bool:
    """Returns whether a text ends like the file name or URL of an image."""
    return isinstance(text, str) and bool(_IMAGE.search(text.strip().partition("?")[0]))


def find_format(
    path: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    known: Sequence[str] = (),
) -> Format:
    """Detects the format from the first lines of a table.

    Args:
        path: The table.
        encoding: As for `text_lines.open_text`.
        delimiter: The delimiter, if the user gave it.
        known: Names of columns by which a header can be recognised.

    Raises:
        PrepareError: The table is empty.
    """
    lines = list(Lines(path, encoding=encoding, limit=SAMPLE_LINES))
    if lines and (hint := _EXCEL_HINT.fullmatch(lines[0].lstrip("\ufeff"))):
        delimiter = delimiter or hint[1]
        lines = lines[1:]
    if delimiter is None:
        scores = [(*_score(lines, one, known), -i) for i, one in enumerate(DELIMITERS)]
        delimiter = DELIMITERS[-max(scores)[-1]]  # -i: the earlier one of equals
    elif len(delimiter) != 1:
        raise PrepareError(f"--delimiter {delimiter!r} is not one character")
    first = next(iter(_parsed(lines, delimiter)), None)
    if first is None:
        raise PrepareError(f"{path}:1: the table is empty; start it with the names of its columns")
    has_header = not any(map(is_image_path, first))
    names = [name.strip() for name in first] if has_header else [""] * len(first)
    if has_header and len(names) > 1 and not names[-1]:
        rows = _parsed(lines, delimiter)[1:]
        if all(len(row) < len(names) or not row[len(names) - 1].strip() for row in rows):
            names = names[:-1]  # every line ends with a delimiter: not a column
    return Format(delimiter, _unique(names), has_header)


def read_records(
    path: Path, form: Format, *, encoding: str | None = None, limit: int | None = None
) -> Iterator[tuple[int, list[str] | str]]:
    """Yields the rows below the header; skips empty ones.

    Args:
        path: The table.
        form: Format, from `find_format`.
        encoding: As for `find_format`.
        limit: Stop after this many lines; None: never.

    Yields:
        The line where a row starts, from 1, and its fields, at least one per column; or an error
        message instead of the fields.

    Raises:
        PrepareError: A quote is not closed; the message names the line with the quote.
    """
    lines = Lines(path, encoding=encoding, limit=limit)
    csv.field_size_limit(_FIELD_LIMIT)
    # strict, because the reader otherwise accepts a quote that is open at the end of the file, and
    # text after a closed one.
    reader = csv.reader(iter(lines), delimiter=form.delimiter, skipinitialspace=True, strict=True)
    headers, count = int(form.has_header), len(form.columns)
    while True:
        lines.needed = begin = reader.line_num + 1
        try:
            row, error = next(reader), ""
        except StopIteration:
            return
        except csv.Error as problem:
            end = reader.line_num
            if end > begin or "end of data" in str(problem):
                if limit is not None and end >= limit:
                    return  # the sample ends inside of a field
                raise _unclosed(path, begin, end) from problem
            (line,) = lines.between(begin, end)
            row, error = _without_blanks_behind_quotes(line, form.delimiter, problem)
        if not error and not any(map(str.strip, row)):
            continue
        if begin == 1 and _EXCEL_HINT.fullmatch(lines.between(1, 1)[0].lstrip("\ufeff")):
            continue
        if begin <= lines.not_text:
            error = error or _not_text(row)
        if headers:
            headers = 0
            if error:
                raise PrepareError(f"{path}:{begin}: {error}")
            continue
        if (end := reader.line_num) > begin:
            _check_quotes(path, begin, lines.between(begin, end), row, form)
        if len(row) != count:
            error = error or _other_count(row, form)
        yield begin, error or row


def _without_blanks_behind_quotes(
    line: str, delimiter: str, problem: csv.Error
) -> tuple[list[str], str]:
    """Rereads a line rejected for `"a" ,b`; returns the row, or why it stays rejected."""
    # Python's reader in strict mode takes the blank for text behind a closing quote.
    mended = re.sub(rf'"[ \t]+(?={re.escape(delimiter)}|$)', '"', line.rstrip("\n"))
    try:
        return next(
            csv.reader([mended], delimiter=delimiter, skipinitialspace=True, strict=True)
        ), ""
    except csv.Error:
        return [], f'{problem}; double a quote inside of a quoted text: ""'


def _not_text(row: Sequence[str]) -> str:
    """Returns why a row is not text; empty if it is."""
    try:
        check_decoded("".join(row))
    except ValueError as problem:
        return str(problem)
    return ""


def _other_count(row: Sequence[str], form: Format) -> str:
    """Returns why a row's column count is wrong; empty if it just ends with more delimiters."""
    count = len(form.columns)
    if len(row) < count:
        return f"{len(row)} columns, but the header has {count}; is the line complete?"
    if not any(map(str.strip, row[count:])):
        return ""
    return (
        f"{len(row)} columns, but the header has {count}; put a text with "
        f'{form.delimiter!r} into quotes: "a{form.delimiter}b"'
    )


def _check_quotes(
    path: Path, begin: int, lines: Sequence[str], row: Sequence[str], form: Format
) -> None:
    """Rejects a row over several lines if one of these is a row by itself."""
    suffixes = {_suffix(field) for field in row} - {None}
    for inner in lines[1:]:
        fields = next(iter(_parsed([inner], form.delimiter)), [])
        looks_alike = len(fields) >= len(form.columns) > 1
        if looks_alike and (any(map(is_image_path, fields)) or not suffixes):
            raise _unclosed(path, begin, begin + len(lines) - 1)


def _unclosed(path: Path, begin: int, end: int) -> PrepareError:
    return PrepareError(
        f"{path}:{begin}: a quote opened here is not closed before line {end}, so everything in "
        'between would be one field; close it, or remove it (inside of quotes write "")'
    )


def _suffix(field: str) -> str | None:
    match = _IMAGE.search(field.strip())
    return match[0].lower() if match else None


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Parses each line by itself; drops empty rows."""
    rows = []
    for line in lines:
        try:
            row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        except (csv.Error, StopIteration):
            continue
        if any(field.strip() for field in row):
            rows.append([field.lstrip("\ufeff") for field in row])
    return rows


def _score(lines: Sequence[str], delimiter: str, known: Sequence[str]) -> tuple[int, float, int]:
    """Scores a delimiter: known names in the first row, image paths, rows of equal length."""
    rows = _parsed(lines, delimiter)
    if not rows:
        return 0, 0.0, 0
    width = len(rows[0])
    same = sum(len(row) == width or not any(row[width:]) for row in rows) / len(rows)
    paths = sum(any(map(is_image_path, row)) for row in rows[1:] or rows) / len(rows)
    return len(_among(rows[0], known)), (same + paths) * (width > 1), min(width, 2)


def _among(names: Sequence[str], known: Sequence[str]) -> set[str]:
    return {name.strip().lower() for name in names} & {name.lower() for name in known}


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    result = []
    for i, name in enumerate(names, start=1):
        name = name or f"column {i}"
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(result)
