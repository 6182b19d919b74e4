# SPDX-License-Identifier: BSD-3-Clause
r"""Text that comes from data - names of files and classes, reasons - where others will read it.

A file name may hold a line end, a terminal's commands or a spreadsheet's formula. Each function is
for one kind of reader; a character that it cannot take becomes `\n`, `\x1b` or `\u202e`. None of
them changes plain text, of whatever language.
"""

import json
import logging
import os
import re
from collections.abc import Iterable

from absl import logging as absl_logging

# Controls, line ends, marks that reorder or hide what stands behind them, and surrogates, which no
# encoding takes. Zero-width joiners stay: emoji and several scripts need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff]"
)
_NAMED = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def one_line(text: str) -> str:
    """For terminals, logs, messages, and columns between tabs: one line that says what it says."""
    return _UNSAFE.sub(_shown, text)


def several_lines(text: str) -> str:
    """For what is printed and may have line ends of its own, such as the message of an error."""
    return "\n".join(map(one_line, text.split("\n")))


def csv_cell(text: str) -> str:
    """For a cell of a CSV file: one line, and no formula when a spreadsheet opens it.

    What begins with = + - @ (of full width, too), a tab or a line end gets a `'` before it, which
    spreadsheets take for "this is text"; numbers do not.
    """
    is_formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return ("'" if is_formula else "") + one_line(text)


def tsv_row(cells: Iterable[object]) -> str:
    """A line of a table with tabs, with its end."""
    return "\t".join(one_line(str(cell)) for cell in cells) + "\n"


def json_line(values: object) -> str:
    """A value as JSON of one line, without its end; strings are read back exactly."""
    # This escapes only what is below a blank.
    text = json.dumps(values, ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _EscapedArguments(logging.Filter):
    """Escapes what the arguments of a log line take from data; their line ends stay."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                several_lines(str(one)) if isinstance(one, str | os.PathLike | Exception) else one
                for one in record.args
            )
        return True


def escape_log_lines() -> None:
    """From now on no name in a log line commands a terminal, or is one that no encoding takes."""
    logger = absl_logging.get_absl_logger()
    if not any(isinstance(one, _EscapedArguments) for one in logger.filters):
        logger.addFilter(_EscapedArguments())


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
