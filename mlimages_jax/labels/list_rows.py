# SPDX-License-Identifier: BSD-3-Clause
"""Defines one row of a label list, in plain Python: the reference parser, and all error messages.

A row is a name followed by labels, `class` or `class:confidence`; a bare class means confidence 1.
A confidence is -1 (unknown) or between 0 and 1. Columns are separated by runs of white space, here
all bytes up to 0x20 except NUL, which is an error: it comes from a damaged file. In a row with a
tab the name may contain single spaces: it ends at the first tab or at two spaces. Other characters
in file names are escaped, see `image_names`; bytes of a name that are not UTF-8 are escaped when
they are read. A row may have no labels.

`list_chunks` reads many rows much faster, and falls back to this module for unusual ones.
"""

import operator
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlimages_jax.labels.image_names import is_plain, like_a_label

WORD = re.compile(rb"[^\x00-\x20]+")
SPACED_NAME = re.compile(rb"[^\x00-\x20]+(?: [^\x00-\x20]+)*")
NUL_FOUND = "the line contains a NUL byte: the file is damaged, or not text; make it again"
_LABEL = re.compile(rb"([0-9]{1,18})(?::([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))?")


class LabelRow(NamedTuple):
    """One image: name, classes int32 [n], confidences float32 [n]."""

    name: str
    classes: np.ndarray
    confidences: np.ndarray


def parse_row(line: bytes, num_classes: int) -> LabelRow:
    """Parses a line that is not blank; raises ValueError if it is malformed."""
    if b"\0" in line:
        raise ValueError(NUL_FOUND)
    match = (SPACED_NAME if b"\t" in line else WORD).match(line)
    if match is None:
        raise ValueError("the name is missing: the line starts with white space; put a name first")
    name = decode_bytes(match.group())
    labels = [parse_label(word) for word in WORD.findall(line, match.end())]
    return check_row(
        name,
        [class_ for class_, _ in labels],
        [confidence for _, confidence in labels],
        num_classes=num_classes,
    )


def check_row(
    name: str, classes: Sequence[int], confidences: Sequence[float], *, num_classes: int
) -> LabelRow:
    """Returns the row as arrays; raises ValueError if it is invalid."""
    check_name(name)
    seen: set[int] = set()
    for class_, confidence in zip(classes, confidences, strict=True):
        if not 0 <= operator.index(class_) < num_classes:
            raise ValueError(
                f"class {class_} is out of range 0..{num_classes - 1}; "
                "does the list belong to another hierarchy?"
            )
        if not (confidence == -1 or 0 <= confidence <= 1):
            raise ValueError(
                f"confidence {confidence} of class {class_} is neither -1 (unknown) nor between "
                "0 and 1; correct it or remove the label"
            )
        if class_ in seen:
            raise ValueError(f"class {class_} occurs twice in the row; keep one of its labels")
        seen.add(class_)
    return LabelRow(name, np.array(classes, np.int32), np.array(confidences, np.float32))


def check_name(name: str) -> None:
    """Checks that a list can contain a name; raises ValueError if not."""
    if is_plain(name):
        return
    if not SPACED_NAME.fullmatch(name.encode("utf-8", "surrogatepass")):
        raise ValueError(
            f"the name {name!r} is missing or contains white space other than single spaces: write "
            r"other spaces as \x20, tabs as \x09"
        )
    last_word = name.rsplit(" ", 1)[-1]
    if like_a_label(last_word):
        raise ValueError(
            f"the name is missing, or no tab follows it: {last_word!r} looks like a label"
        )


def parse_label(word: bytes) -> tuple[int, float]:
    """Parses `class` or `class:confidence`, without checking their range.

    Raises:
        ValueError: It is neither.
    """
    match = _LABEL.fullmatch(word)
    if match is None:
        raise ValueError(
            f"{word.decode(errors='replace')!r} is not a label; write class or class:confidence; "
            "if it is part of a name, use single spaces in the name and tabs between all columns"
        )
    class_, confidence = match.groups()
    return int(class_), 1.0 if confidence is None else float(confidence)


def decode_bytes(name: bytes) -> str:
    """Decodes the name of a row; escapes bytes that are not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("utf-8", "backslashreplace")
