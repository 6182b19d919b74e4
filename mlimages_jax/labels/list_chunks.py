# SPDX-License-Identifier: BSD-3-Clause
"""Parses many rows of a label list at once, as arrays of byte positions.

The grammar is defined by `list_rows`, which also parses unusual labels (1e-3, more than 15 digits)
one by one, and the first bad row: all error messages come from there.
"""

from typing import NamedTuple

import numpy as np

from mlimages_jax.labels.image_names import like_a_label
from mlimages_jax.labels.list_rows import (
    NUL_FOUND,
    SPACED_NAME,
    decode_bytes,
    parse_label,
    parse_row,
)

_NEWLINE, _SPACE, _DASH, _POINT, _ZERO, _COLON = b"\n -.0:"
_POWERS_OF_TEN = 10.0 ** np.arange(16)


class LineError(ValueError):
    """A line is malformed; `line` is its number in the chunk, from 0."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Chunk(NamedTuple):
    """R rows and their L labels."""

    names: list[bytes]  # R, UTF-8
    label_counts: np.ndarray  # int64 [R]
    classes: np.ndarray  # int64 [L]
    confidences: np.ndarray  # float64 [L]


def parse_chunk(lines: bytes, num_classes: int) -> Chunk:
    """Parses complete lines, all with a line end; raises `LineError` at the first bad one."""
    if b"\0" in lines:
        before = lines[: lines.rfind(b"\n", 0, lines.index(b"\0")) + 1]
        parse_chunk(before, num_classes)  # an earlier bad line comes first
        raise LineError(before.count(b"\n"), NUL_FOUND)
    buffer = b"\n" + lines  # now every line has a line end before it
    text = np.frombuffer(buffer, np.uint8)
    rows = _split(buffer, text)
    classes, confidences, plain = _read_labels(text, rows.label_start, rows.label_stop)
    odd = np.flatnonzero(~plain)
    spans = zip(rows.label_start[odd].tolist(), rows.label_stop[odd].tolist(), strict=True)
    for label, (start, stop) in zip(odd.tolist(), spans, strict=True):
        try:
            classes[label], confidences[label] = parse_label(buffer[start:stop])
        except ValueError:
            continue  # it stays marked as not plain, which makes its row bad
        plain[label] = True

    # All rows are checked at once, and only the first bad one is parsed again, for its message.
    bad = _bad_names(buffer, text, rows)  # [R]
    in_range = (confidences == -1) | ((confidences >= 0) & (confidences <= 1))
    bad[rows.label_row[~(plain & (classes < num_classes) & in_range)]] = True
    bad[_rows_with_repetitions(rows.label_row, classes)] = True
    if bad.any():
        row = int(bad.argmax())
        line = buffer[rows.line_start[row] : rows.line_stop[row]]
        raise LineError(int(rows.line[row]), _what_is_wrong(line, num_classes))

    spans = zip(rows.name_start.tolist(), rows.name_stop.tolist(), strict=True)
    names = [buffer[start:stop] for start, stop in spans]
    if not _is_utf8(buffer):
        names = [decode_bytes(name).encode() for name in names]
    counts = np.bincount(rows.label_row, minlength=len(names))
    return Chunk(names, counts, classes, confidences)


def _what_is_wrong(line: bytes, num_classes: int) -> str:
    try:
        parse_row(line, num_classes)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{line!r} is rejected here but accepted by list_rows; please report this")


class _Rows(NamedTuple):
    """Byte positions in the R rows of a chunk, which are its lines except blank ones."""

    line: np.ndarray  # [R] line number
    line_start: np.ndarray  # [R]
    line_stop: np.ndarray  # [R]
    name_start: np.ndarray  # [R]
    name_stop: np.ndarray  # [R]
    last_word: np.ndarray  # [R] start of the last word of the name
    label_row: np.ndarray  # [L] ascending
    label_start: np.ndarray  # [L]
    label_stop: np.ndarray  # [L]


def _split(buffer: bytes, text: np.ndarray) -> _Rows:
    white = text <= _SPACE
    edges = np.flatnonzero(white[1:] != white[:-1]) + 1
    start, stop = edges[0::2], edges[1::2]  # of every word; the text starts and ends with a space
    newline = np.flatnonzero(text == _NEWLINE)
    first_word = np.searchsorted(start, newline)  # [lines + 1]
    words = np.diff(first_word)
    line = np.flatnonzero(words)
    words, first_word = words[line], first_word[line]
    line_start, line_stop = newline[line] + 1, newline[line + 1]

    name_start, name_stop = start[first_word], stop[first_word]
    if b"\t" in buffer:
        _extend_spaced_names(buffer, text, name_start, name_stop, line_stop)
    is_label = start >= np.repeat(name_stop, words)
    return _Rows(
        line=line,
        line_start=line_start,
        line_stop=line_stop,
        name_start=name_start,
        name_stop=name_stop,
        last_word=start[np.searchsorted(stop, name_stop)],
        label_row=np.repeat(np.arange(len(line)), words)[is_label],
        label_start=start[is_label],
        label_stop=stop[is_label],
    )


def _extend_spaced_names(
    buffer: bytes,
    text: np.ndarray,
    name_start: np.ndarray,
    name_stop: np.ndarray,
    line_stop: np.ndarray,
) -> None:
    """Moves `name_stop` past single spaces in the rows that contain a tab."""
    spaced = np.flatnonzero(text[name_stop] == _SPACE)
    spaced = spaced[text[name_stop[spaced] + 1] > _SPACE]
    for row in spaced.tolist():
        if buffer.find(b"\t", name_stop[row], line_stop[row]) >= 0:
            match = SPACED_NAME.match(buffer, name_start[row])
            name_stop[row] = match.end() if match else name_stop[row]


def _bad_names(buffer: bytes, text: np.ndarray, rows: _Rows) -> np.ndarray:
    """Returns bool [R]: whether the name is missing or looks like a label."""
    _, digits_stop = _read_digits(text, rows.last_word, limit=9)
    is_label = (digits_stop > rows.last_word) & (text[digits_stop] == _COLON)
    for row in np.flatnonzero(is_label).tolist():
        word = buffer[rows.last_word[row] : rows.name_stop[row]]
        is_label[row] = like_a_label(decode_bytes(word))
    return is_label | (rows.name_start != rows.line_start)


def _is_utf8(buffer: bytes) -> bool:
    if buffer.isascii():
        return True
    try:
        buffer.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_labels(
    text: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parses `17`, `17:1`, `17:-1` and `17:0.25`, with up to 9 and 15 digits.

    Returns:
        classes int64 [L], confidences float64 [L], and bool [L]: whether the word had one of these
        forms. If not, its numbers are meaningless.
    """
    classes, class_stop = _read_digits(text, start, limit=9)
    bare = class_stop == stop
    whole_start = class_stop + 1 - bare
    negative = text[whole_start] == _DASH
    whole_start += negative
    whole, whole_stop = _read_digits(text, whole_start, limit=2)
    part_start = whole_stop + (text[whole_stop] == _POINT)
    part, part_stop = _read_digits(text, part_start, limit=13)
    # Exact up to the division, which rounds once: the result is the float64 that Python parses.
    power = _POWERS_OF_TEN[part_stop - part_start]
    confidences = (whole * power + part) / power
    confidences[negative] *= -1
    confidences[bare] = 1

    has_digits = (whole_stop > whole_start) | (part_stop > part_start)
    plain = (text[class_stop] == _COLON) & (part_stop == stop) & has_digits
    return classes, confidences, (plain | bare) & (class_stop > start)


def _read_digits(
    text: np.ndarray, start: np.ndarray, *, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the decimal number at each start, int64, and where it ends: after `limit` digits.

    If there is no digit, the number is 0 and ends where it starts.
    """
    value, stop = np.zeros(len(start), np.int64), start.copy()
    for _ in range(limit):
        digit = text[stop] - np.uint8(_ZERO)  # characters below "0" wrap around to large values
        more = digit < 10
        if not more.any():
            break
        value = np.where(more, value * 10 + digit, value)
        stop += more
    return value, stop


def _rows_with_repetitions(label_row: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns the rows with a repeated class; classes beyond int32 are rejected elsewhere."""
    labels = np.sort((label_row << 32) | (classes & 0xFFFF_FFFF))
    return labels[1:][labels[1:] == labels[:-1]] >> 32
