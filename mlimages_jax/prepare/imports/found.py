# SPDX-License-Identifier: BSD-3-Clause
"""The data that `import any` found, the user's options, and the search for files and splits."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.prepare.imports.building import NO_OPTIONS, Build, BuildOptions
from mlimages_jax.prepare.imports.columns import SPLIT_WORDS
from mlimages_jax.prepare.imports.manual_dir import MissingLabels
from mlimages_jax.prepare.imports.set_aside import SetAside
from mlimages_jax.prepare.imports.table_rows import TableOptions

SHOWN_ROWS = 5
DEFAULT_VAL_FRACTION = 0.1
_MAX_FILES = 1_000
_FIRST_ENTRIES = 10_000
_WORDS = re.compile(r"[A-Za-z]+")


class Wish(NamedTuple):
    """The user's options.

    Attributes:
        table: Options for tables.
        class_list: Class list of the labels.
        missing_labels: Meaning of classes that an image does not list.
        images: Folder of the images.
        val_fraction: Fraction to use for val; None: `DEFAULT_VAL_FRACTION` if the data has no
            splits.
        name: Name of the data set.
        max_skipped: Fraction of the rows that may be set aside.
        image_column: Column of the images themselves; None: detect it.
        build_options: What was said about the build that follows.
    """

    table: TableOptions
    class_list: Path | None
    missing_labels: MissingLabels
    images: Path | None
    val_fraction: float | None
    name: str
    max_skipped: float
    image_column: str | None = None
    build_options: BuildOptions = NO_OPTIONS


class Found(NamedTuple):
    """Data in a format that can be imported.

    Attributes:
        kind: Name of the format, such as "COCO instances".
        why: What it was recognised by, one item per line.
        rows: The first rows as they were understood.
        counts: Counts of images, classes and rows set aside.
        write: Writes lists to a folder, prints what is next, and returns the build if it can be
            next; None: nothing has to be written.
        build: The build that is next, if nothing has to be written.
        commands: Other next commands.
        aside: Unusable rows.
    """

    kind: str
    why: Sequence[str]
    rows: Sequence[str] = ()
    counts: Sequence[str] = ()
    write: Callable[[Path], Build | None] | None = None
    build: Build | None = None
    commands: Sequence[str] = ()
    aside: SetAside | None = None


def split_of(path: Path, top: Path) -> str | None:
    """Returns the split of a file, from its name or a folder between it and `top`."""
    names = [path.stem, *(parent.name for parent in path.relative_to(top).parents if parent.name)]
    for name in names:
        for word in _WORDS.findall(name.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def files_below(top: Path, *, depth: int) -> Iterator[Path]:
    """Yields files in a folder and below, nearest first; skips hidden ones, limits their number."""
    level, count = [top], 0
    for _ in range(depth + 1):
        deeper: list[Path] = []
        for folder in level:
            try:
                entries = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
                # Roboflow calls the COCO file of a split _annotations.coco.json.
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


def shards_below(top: Path, suffixes: tuple[str, ...], *, depth: int = 2) -> list[Path]:
    """Returns all files with some suffixes in a folder and below, sorted; skips hidden ones.

    Sets have thousands of shards in a folder, and other folders have millions of images. A folder
    whose first entries are all something else is taken for one of these and left.
    """
    found: list[Path] = []
    level = [top]
    for _ in range(depth + 1):
        deeper: list[Path] = []
        for folder in level[:_MAX_FILES]:
            files, folders = _scan(folder, suffixes)
            found += files
            deeper += folders
        level = sorted(deeper)
    return sorted(path for path in found if path.is_file())


def _scan(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Path]]:
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if entry.name.startswith((".", "_")):
                    continue
                if entry.name.lower().endswith(suffixes):
                    files.append(Path(entry.path))
                elif entry.is_dir():
                    folders.append(Path(entry.path))
                if number >= _FIRST_ENTRIES and not files:
                    break
    except OSError:
        return [], []
    return files, folders
