# SPDX-License-Identifier: BSD-3-Clause
"""Finds a name among others that may be written differently: "é" as one character or as two.

Linux keeps a name as it came, macOS mostly decomposes it (NFD), keyboards compose it (NFC). For
people they are one name, so for lists, labels and class folders they are, too. Names that differ in
upper and lower case are not the same, but worth a question.
"""

import collections
import functools
import unicodedata
from collections.abc import Iterable


class AmbiguousNameError(ValueError):
    """Two names are the same but for their Unicode form; the message has both."""


def normal(name: str) -> str:
    """Returns a name composed (NFC): equal for names that are the same."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class SameNames:
    """Names to find others among.

    Args:
        names: of files, classes or the like.
    """

    def __init__(self, names: Iterable[str]):
        self._names = dict.fromkeys(names)  # a set that keeps the order

    def find(self, name: str) -> str | None:
        """Returns the equal one, or else the same one in another Unicode form; None: neither.

        Raises:
            AmbiguousNameError: several are the same, none of them equal.
        """
        if name in self._names:
            return name
        same = self._normal.get(normal(name), ())
        if len(same) > 1:
            raise AmbiguousNameError(
                f"{name!a} could be {' or '.join(map(ascii, same))}, which are the same text in "
                "different Unicode forms (NFC, NFD): write one of them exactly, or rename one"
            )
        return same[0] if same else None

    def question(self, name: str) -> str:
        """Returns `; is it 'Cat.JPG'?` where a name differs in upper and lower case, else ""."""
        alike = self._folded.get(normal(name).casefold(), ())
        return f"; is it {' or '.join(map(repr, alike))}?" if alike else ""

    @functools.cached_property
    def _normal(self) -> dict[str, list[str]]:
        return _grouped((normal(name), name) for name in self._names)

    @functools.cached_property
    def _folded(self) -> dict[str, list[str]]:
        return _grouped((normal(name).casefold(), name) for name in self._names)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for key, name in pairs:
        groups[key].append(name)
    return dict(groups)
