# SPDX-License-Identifier: BSD-3-Clause
"""Finds the files that the user puts into `manual_dir`, and explains what is missing."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.files.text_files import read_text
from mlimages_jax.image_shards.layout import SHARDS

CLASS_LISTS = ("dictionary.txt", "dictionary_and_semantic_hierarchy.txt")
LIST_SUFFIX = "_image_list.txt"
MISSING_LABELS = "unlisted.txt"
MISSING_LABEL_TARGETS = {"absent": 0, "unknown": -1}

LAYOUT = """\
manual_dir contains:

  dictionary.txt (or dictionary_and_semantic_hierarchy.txt, as published)
      One class per line after a header line, separated by tabs: its index from 0, its id, the index
      of its parent class (-1: none), its names.
          category_index  category_id  index_of_parent_category  category name
          0               n00002684    -1                        object, physical object
  train_image_list.txt, val_image_list.txt
      One image per line: its file under images/, then its labels as class index:confidence. Each
      <split>_image_list.txt becomes a split; one is enough.
          n04310904/n04310904_8388.JPEG   2367:1  2172:1  1831:0.9
  images/
      The image files, also in subfolders and in tars: `a.tar/1.jpg` is the file 1.jpg in the tar
      images/a.tar.
  shards/ (instead of images/, or beside it)
      Image shards, as `mlimages data download --shards` writes them; --image-shards names others.
  unlisted.txt (optional)
      One word: the meaning of classes that an image's row does not list: `absent` (the default), or
      `unknown`, if annotators looked for some classes only.
"""


class ManualFiles(NamedTuple):
    """The files found by `find_manual_files`.

    Attributes:
        class_list: The class list.
        lists: The label list of each split, in alphabetical order of the splits.
        images: The folder that the names in the lists are relative to.
        missing_labels: Target of classes that a row does not list: 0 (absent) or -1 (unknown).
        image_shards: Folders of image shards, paths or URLs.
    """

    class_list: Path
    lists: dict[str, Path]
    images: Path
    missing_labels: int
    image_shards: tuple[str, ...]


def find_manual_files(manual_dir: Path, image_shards: Sequence[str] = ()) -> ManualFiles:
    """Looks for the files of `LAYOUT`.

    Args:
        manual_dir: The folder of the user.
        image_shards: Further folders of image shards.

    Raises:
        FileNotFoundError: A file is missing; the message says what it looks like.
        ValueError: A list's name is not a valid split, or `unlisted.txt` has another word.
    """
    class_lists = [manual_dir / name for name in CLASS_LISTS if (manual_dir / name).is_file()]
    if not class_lists:
        raise _missing(manual_dir, " or ".join(CLASS_LISTS), "the class list")
    lists = {
        path.name.removesuffix(LIST_SUFFIX): path for path in manual_dir.glob(f"*{LIST_SUFFIX}")
    }
    if not lists:
        raise _missing(manual_dir, f"train{LIST_SUFFIX} or val{LIST_SUFFIX}", "a label list")
    for split, path in lists.items():
        # TFDS reads "all" as all splits together.
        if split == "all" or not re.fullmatch("[a-zA-Z][a-zA-Z0-9_]*", split):
            raise ValueError(f"{path}: {split!r} cannot be the name of a split: rename the file")
    images = manual_dir / "images"
    if (manual_dir / SHARDS).is_dir():
        image_shards = (os.fspath(manual_dir), *image_shards)
    if not images.is_dir() and not image_shards:
        raise _missing(manual_dir, "images/ or shards/", "the folder of images")
    missing_labels = _read_missing_labels(manual_dir / MISSING_LABELS)
    return ManualFiles(
        class_lists[0], dict(sorted(lists.items())), images, missing_labels, tuple(image_shards)
    )


def _read_missing_labels(path: Path) -> int:
    if not path.exists():
        return MISSING_LABEL_TARGETS["absent"]
    text = read_text(path).strip()
    if text not in MISSING_LABEL_TARGETS:
        words = " or ".join(MISSING_LABEL_TARGETS)
        raise ValueError(f"{path}: {text[:80]!r} is not one of {words}: correct or delete it")
    return MISSING_LABEL_TARGETS[text]


def _missing(manual_dir: Path, name: str, what: str) -> FileNotFoundError:
    return FileNotFoundError(f"{what}, {name}, is not in {manual_dir}: put it there.\n\n{LAYOUT}")
