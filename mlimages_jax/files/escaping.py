# SPDX-License-Identifier: BSD-3-Clause
r"""Escapes text from data, such as names of files and classes, for output.

A file name may contain a line break, terminal escape sequences or a spreadsheet formula. Each
function is for one kind of output; characters that are unsafe there are escaped as `\n`, `\x1b` or
`\u202e`. Ordinary text in any language is left unchanged. Numbers that JSON lacks become null.
"""

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging as absl_logging

# Control characters, line breaks, marks that reorder or hide text, and surrogates, which cannot be
# encoded. Zero-width joiners are allowed because emoji and several scripts need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff]"
)
_NAMED = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
# What spreadsheets evaluate (OWASP, "CSV injection"); the last four are full-width = + - @.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def one_line(text: str) -> str:
    """Escapes text for terminals, logs, messages and TSV cells: always a single line."""
    return _UNSAFE.sub(_shown, text)


def several_lines(text: str) -> str:
    """Escapes text that may contain line breaks of its own, such as an error message."""
    return "\n".join(map(one_line, text.split("\n")))


def csv_cell(text: str) -> str:
    """Escapes text for a CSV cell: a single line that spreadsheets do not run as a formula.

    Text that starts with = + - @ (also full-width), a tab or a line break is prefixed with `'`,
    which spreadsheets read as "this is text". Numbers are not prefixed.
    """
    is_formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return ("'" if is_formula else "") + one_line(text)


def tsv_row(cells: Iterable[object]) -> str:
    """Formats a row of a TSV file, with the line break."""
    return "\t".join(one_line(str(cell)) for cell in cells) + "\n"


def json_line(values: object) -> str:
    """Formats a value as one line of JSON, without the line break; strings round-trip exactly."""
    # json.dumps itself escapes only characters below U+0020.
    text = json.dumps(values, ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def finite(values: Any) -> Any:
    """Returns JSON values with null for nan and infinity, because JSON has neither."""
    if isinstance(values, Mapping):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


class _EscapedArguments(logging.Filter):
    """Escapes the arguments of log records, which may come from data; keeps line breaks."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            # Only the arguments: line breaks of the format string are ours.
            record.args = tuple(
                several_lines(str(one)) if isinstance(one, str | os.PathLike | Exception) else one
                for one in record.args
            )
        return True


def escape_log_lines() -> None:
    """Escapes the arguments of all log lines from now on; may be called repeatedly."""
    logger = absl_logging.get_absl_logger()
    if not any(isinstance(one, _EscapedArguments) for one in logger.filters):
        logger.addFilter(_EscapedArguments())


def _shown(match: re.Match[str]) -> str:
    character = match[0]
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
