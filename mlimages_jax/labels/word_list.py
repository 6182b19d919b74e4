# SPDX-License-Identifier: BSD-3-Clause
"""Reads class lists without ids: an index, then the words of the name, each preceded by a tab.

The release's imagenet2012_dictionary.txt is one. Its classes are those of ILSVRC 2012 in the usual
order, by ascending WordNet id, and are recognised by their words. Eleven of its names are in quotes
and have lost their apostrophes, and nothing separates the synonyms. The classes of other lists get
made-up ids: class0, class1, ...
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

MADE_UP = "class"  # prefix of the index

_IMAGENET = Path(__file__).with_name("imagenet2012.tsv")
_LOST = str.maketrans("", "", "\"',")
_INTEGER = re.compile(r"-?[0-9]{1,9}")


def is_first_line(row: str) -> bool:
    """Returns whether a list of words starts like this; rows with a missing header have parents."""
    index, *words = row.split("\t")
    return index == "0" and bool(words) and not any(map(_INTEGER.fullmatch, words))


def are_made_up(ids: Sequence[str], names: Sequence[str]) -> bool:
    """Returns whether ids are class0, class1, ...; class folders may be too, and names equal."""
    return all(
        id_ == f"{MADE_UP}{index}" != name
        for index, (id_, name) in enumerate(zip(ids, names, strict=True))
    )


def lacks_ids(text: str) -> bool:
    """Returns whether a class list has no ids: a list of words, or one that was rewritten."""
    first, *rest = text.removeprefix("\ufeff").splitlines()[:2]
    return is_first_line(first) or [line.split("\t")[:2] for line in rest] == [["0", f"{MADE_UP}0"]]


def of_imagenet(names: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """Returns WordNet ids and names with commas if these are the classes of ILSVRC 2012, or None.

    Args:
        names: Names of all classes in order, with words separated by spaces.
    """
    if len(names) != 1_000:  # spares other lists the reading of the file
        return None
    classes = _classes()
    # Without the quotes, apostrophes and commas that one of the two lists lacks.
    if [_words(name) for name in names] != [_words(name) for _, name in classes]:
        return None
    return [id_ for id_, _ in classes], [name for _, name in classes]


def _words(name: str) -> list[str]:
    return name.translate(_LOST).split()


@functools.cache
def _classes() -> list[tuple[str, str]]:
    """Returns (WordNet id, name) of every class of ILSVRC 2012."""
    lines = _IMAGENET.read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return [(id_, name) for id_, name in rows]
