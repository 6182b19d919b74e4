# SPDX-License-Identifier: BSD-3-Clause
"""Lists of classes without ids: an index, then the words of the name, a tab before each.

The release's imagenet2012_dictionary.txt is one. Its classes are those of ILSVRC 2012 in the usual
order, by rising WordNet id, hence known by their words. Eleven of its names are in quotes and have
lost their apostrophes, and nothing parts the synonyms. The classes of other lists get made-up ids:
class0, class1, ...
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

MADE_UP = "class"  # before the index

_IMAGENET = Path(__file__).with_name("imagenet2012.tsv")
_LOST = str.maketrans("", "", "\"',")
_INTEGER = re.compile(r"-?[0-9]{1,9}")


def is_first_line(row: str) -> bool:
    """Whether a list of words begins so; a row whose header is missing has a parent."""
    index, *words = row.split("\t")
    return index == "0" and bool(words) and not any(map(_INTEGER.fullmatch, words))


def are_made_up(ids: Sequence[str], names: Sequence[str]) -> bool:
    """Whether ids are class0, class1, ...; folders of people may be called so, then names too."""
    return all(
        id_ == f"{MADE_UP}{index}" != name
        for index, (id_, name) in enumerate(zip(ids, names, strict=True))
    )


def lacks_ids(text: str) -> bool:
    """Whether a category file has none of its own: a list of words, or one that was rewritten."""
    first, *rest = text.removeprefix("\ufeff").splitlines()[:2]
    return is_first_line(first) or [line.split("\t")[:2] for line in rest] == [["0", f"{MADE_UP}0"]]


def of_imagenet(names: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """WordNet ids and names with commas, if these are the classes of ILSVRC 2012; else None.

    Args:
        names: of all classes in order, words with spaces between them.
    """
    if len(names) != 1_000:  # others need no file
        return None
    classes = _classes()
    if [_words(name) for name in names] != [_words(name) for _, name in classes]:
        return None
    return [id_ for id_, _ in classes], [name for _, name in classes]


def _words(name: str) -> list[str]:
    return name.translate(_LOST).split()


@functools.cache
def _classes() -> list[tuple[str, str]]:
    """(WordNet id, name) of every class of ILSVRC 2012."""
    lines = _IMAGENET.read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return [(id_, name) for id_, name in rows]
