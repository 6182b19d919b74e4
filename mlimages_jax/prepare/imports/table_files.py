# SPDX-License-Identifier: BSD-3-Clause
"""Finds the Parquet and Arrow files of a set, and their splits, by the names that `datasets` gives.

data/train-00000-of-00002.parquet     as on the Hub; train/0000.parquet, too
name-train-00000-of-00002.arrow       in the cache
train/data-00000-of-00002.arrow       from save_to_disk, listed in train/state.json and, above,
                                      in dataset_dict.json
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlimages_jax.files.safe_paths import UnsafeNameError, inside
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.arrow_files import SUFFIXES
from mlimages_jax.prepare.imports.columns import SPLIT_WORDS
from mlimages_jax.prepare.imports.found import shards_below, split_of

STATE, DICT = "state.json", "dataset_dict.json"
_PART = re.compile(r"(.*?)[-_]?([0-9]{5})-of-([0-9]{5})")
_CACHES = ("cache-", "tmp")  # files that `map` and others leave beside the set
_MAX_BYTES = 1 << 24


class TableFile(NamedTuple):
    """A file of a set.

    Attributes:
        path: The file.
        split: Its split; None: nothing says which.
    """

    path: Path
    split: str | None


def saved_files(folder: Path) -> list[TableFile] | None:
    """Returns the files of a set that save_to_disk wrote, in order; None if the folder is none.

    Raises:
        PrepareError: A file is missing, or names others outside of the folder.
    """
    if (folder / DICT).is_file():
        splits = _read(folder / DICT, "splits")
        return [one._replace(split=split_name(str(split))) for split in splits
                for one in _state_files(_inside(folder, split, folder / DICT))]  # fmt: skip
    return _state_files(folder) if (folder / STATE).is_file() else None


def other_files(folder: Path) -> list[TableFile]:
    """Returns the Parquet files below a folder, or else the Arrow files, with their splits.

    Raises:
        PrepareError: Several folders have files of the same split and name: they are several sets.
    """
    paths = [path for path in shards_below(folder, SUFFIXES) if not path.name.startswith(_CACHES)]
    kind = next((suffix for suffix in SUFFIXES if any(_is(suffix, path) for path in paths)), "")
    files = _with_splits([path for path in paths if _is(kind, path)], folder)
    places = defaultdict(set)
    for one in files:
        places[one.split, one.path.name].add(one.path.parent)
    if several := next((found for found in places.values() if len(found) > 1), None):
        some = ", ".join(sorted(map(str, several))[:5])
        raise PrepareError(f"{folder}: contains several sets, in {some}: give one of these folders")
    return files


def split_name(name: str) -> str:
    """Returns the name of a split here: val for validation; others as they are, if they can be."""
    return SPLIT_WORDS.get(name.lower(), re.sub(r"\W", "_", name, flags=re.ASCII))


def missing_parts(files: Iterable[TableFile]) -> list[str]:
    """Returns a line for each group of files, called 00000-of-00002, of which some are missing."""
    found: dict[tuple[Path, str, int], set[int]] = defaultdict(set)
    for path, _ in files:
        if match := _PART.fullmatch(path.stem):
            found[path.parent, match[1], int(match[3])].add(int(match[2]))
    return [
        f"{folder / name}: {total - len(numbers):,} of {total:,} files are missing"
        for (folder, name, total), numbers in found.items()
        if len(numbers) < total
    ]


def _with_splits(paths: Sequence[Path], top: Path) -> list[TableFile]:
    splits = [split_of(path, top) for path in paths]
    own = [_own_split(path) for path in paths]
    # The name of a part says its split ("extra-00000-of-00003"), in a set that names its splits.
    if "train" in own:
        splits = [name or split for name, split in zip(own, splits, strict=True)]
    return list(map(TableFile, paths, splits))


def _own_split(path: Path) -> str | None:
    """Returns the split in a name such as train-00000-of-00002 or food-train-00000-of-00002."""
    match = _PART.fullmatch(path.stem)
    return split_name(match[1].rpartition("-")[2]) if match and match[1] else None


def _state_files(folder: Path) -> list[TableFile]:
    entries = _read(folder / STATE, "_data_files")
    names = [one.get("filename") if isinstance(one, dict) else None for one in entries]
    paths = [_inside(folder, name, folder / STATE) for name in names]
    for path in paths:
        if not path.is_file():
            raise PrepareError(f"{path}: missing, though {folder / STATE} names it; copy it again")
    return [TableFile(path, None) for path in paths]


def _read(path: Path, key: str) -> list[Any]:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_BYTES))
        if content.get("_indices_data_files"):
            raise ValueError(
                "its rows are chosen by indices: call flatten_indices() and save again"
            )
        entries = content[key]
        if not isinstance(entries, list):
            raise ValueError(f"{key} is not a list")
    except (OSError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise PrepareError(f"{path}: not as save_to_disk writes it ({error!r})") from error
    return entries


def _inside(folder: Path, name: object, where: Path) -> Path:
    try:
        return inside(folder, str(name))
    except UnsafeNameError as error:
        raise PrepareError(f"{where}: {error}") from error


def _is(suffix: str, path: Path) -> bool:
    return path.suffix.lower() == suffix
