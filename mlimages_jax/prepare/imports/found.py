# SPDX-License-Identifier: BSD-3-Clause
"""What the one door for all imports recognised, and what somebody said on the command line."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.prepare.imports.manual_dir import Unlisted
from mlimages_jax.prepare.imports.set_aside import SetAside
from mlimages_jax.prepare.imports.table_rows import TableOptions

SHOWN_ROWS = 5
DEFAULT_VAL_SHARE = 0.1
SPLIT_OF_WORD = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
_MAX_FILES = 1_000
_WORDS = re.compile(r"[A-Za-z]+")


class Wish(NamedTuple):
    """What somebody said about the data.

    Attributes:
        table: about tables.
        dictionary: the category file of the labels.
        unlisted: what a class is that an image does not list.
        images: the folder of the images.
        val_share: that becomes val; None: `DEFAULT_VAL_SHARE` where nothing tells splits apart.
        name: of the data set.
        max_skipped: share of the rows that may be set aside.
    """

    table: TableOptions
    dictionary: Path | None
    unlisted: Unlisted
    images: Path | None
    val_share: float | None
    name: str
    max_skipped: float


class Found(NamedTuple):
    """Data of a kind that can be imported.

    Attributes:
        kind: such as "COCO instances".
        why: what it was recognised by, line by line.
        rows: the first rows as they were understood.
        counts: of images, classes and what is set aside.
        write: writes lists to a folder and prints what is next; None: nothing needs to be written.
        commands: what to do next, where nothing is written.
        aside: rows that cannot be used.
    """

    kind: str
    why: Sequence[str]
    rows: Sequence[str] = ()
    counts: Sequence[str] = ()
    write: Callable[[Path], None] | None = None
    commands: Sequence[str] = ()
    aside: SetAside | None = None


def split_of(path: Path, top: Path) -> str | None:
    """The split that a file belongs to, by its name, or by a folder between it and `top`."""
    names = [path.stem, *(parent.name for parent in path.relative_to(top).parents if parent.name)]
    for name in names:
        for word in _WORDS.findall(name.lower()):
            if word in SPLIT_OF_WORD:
                return SPLIT_OF_WORD[word]
    return None


def files_below(top: Path, *, depth: int) -> Iterator[Path]:
    """Files in a folder and those below it, nearest first; without hidden ones and too many."""
    level, count = [top], 0
    for _ in range(depth + 1):
        deeper: list[Path] = []
        for folder in level:
            try:
                entries = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
                entries += sorted(folder.glob("_annotations*.json"))
            except OSError:
                continue
            for path in entries[:_MAX_FILES]:
                if path.is_dir():
                    deeper.append(path)
                elif path.is_file():
                    yield path
            count += len(entries)
            if count > 10 * _MAX_FILES:
                return
        level = deeper
