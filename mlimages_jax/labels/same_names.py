# SPDX-License-Identifier: BSD-3-Clause
"""Finds names that may be encoded differently: "é" as one character or as two.

Linux keeps a name as given, macOS usually decomposes it (NFD), keyboards compose it (NFC). Users
see a single name, so lists, labels and class folders treat them as one. Names that differ only in
case are not the same, but the error message suggests them.
"""

import collections
import functools
import unicodedata
from collections.abc import Iterable


class AmbiguousNameError(ValueError):
    """Two names differ only in their Unicode form; the message has both."""


def normal(name: str) -> str:
    """Returns the composed form (NFC), which is equal for names that are the same."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class SameNames:
    """A set of names to search.

    Args:
        names: Names of files, classes or the like.
    """

    def __init__(self, names: Iterable[str]):
        self._names = dict.fromkeys(names)  # a set that keeps the order

    def find(self, name: str) -> str | None:
        """Returns the equal name, else the same name in another Unicode form, else None.

        Raises:
            AmbiguousNameError: Several names are the same, and none of them is equal.
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
        """Returns `; is it 'Cat.JPG'?` if a name differs only in case, else ""."""
        # A question and not an answer: on Linux both files may exist.
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
