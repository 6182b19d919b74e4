# SPDX-License-Identifier: BSD-3-Clause
"""Finds the files that the user puts into `manual_dir`, and explains what is missing."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"
TINY_TRUTH = "val_annotations.txt"
TRUTHS = (
    TRUTH, DEVKIT, "ILSVRC2012_validation_synset_labels.txt", "synset_labels.txt",
    "imagenet_2012_validation_synset_labels.txt", SOLUTION, TINY_TRUTH,
)  # fmt: skip
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_PARTS = {  # names on Hugging Face
    "train": re.compile(r"train_images_[0-9]+\.tar(\.gz)?"),
    "val": re.compile(r"val_images(_[0-9]+)?\.tar(\.gz)?"),
}
_HUGGING_FACE = "data"  # folder in its repository
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_KAGGLE_FOLDERS = {"CLS-LOC", "Data", "ILSVRC"}

LAYOUT = """\
manual_dir contains ImageNet (ILSVRC2012) as it is distributed; nothing is unpacked:

  ILSVRC2012_img_train.tar        a tar with one tar per class
  ILSVRC2012_img_val.tar          the images; their classes are in the development kit,
  ILSVRC2012_devkit_t12.tar.gz      also as it is distributed, which has their names too; or in
  ILSVRC2012_validation_ground_truth.txt
      the class of image 1, 2, ..., one per line: its WordNet id, or its number in that kit.
      Neither is needed if the archive has a folder for each class. Instead, there may be
      LOC_val_solution.csv, synset_labels.txt or val_annotations.txt (of Tiny ImageNet).

or the folders of Kaggle, starting at the top or at CLS-LOC:

  ILSVRC/Data/CLS-LOC/train/<WordNet id>/, ILSVRC/Data/CLS-LOC/val/, LOC_val_solution.csv

or the archives of Hugging Face, also in data/, which are unpacked once to .tar files next to them:

  train_images_0.tar.gz, ..., val_images.tar.gz     n01440764_10026_n01440764.JPEG, ...

Instead of an archive there may be a folder with the images, also of your own classes:

  train/<class>/<image file>
  val/<class>/<image file>      or valid/, validation/; a val/ without folders needs one of the
                                  files above with the class of each image

Class names are those of the folders, or come from one of these optional files:

  dictionary.txt          a header, then: index<TAB>id<TAB>index of the parent or -1<TAB>names
  LOC_synset_mapping.txt  n01440764 tench, Tinca tinca
  words.txt               n01440764<TAB>tench, Tinca tinca
"""


class Source(NamedTuple):
    """The archives or the folder with the images of a split.

    Attributes:
        path: A tar file, or a folder with one folder per class.
        labels: For images that are not in folders: the first of `TRUTHS` that exists, if any.
        more: Further tar files of the split.
    """

    path: Path
    labels: Path | None
    more: tuple[Path, ...] = ()


def find_source(manual_dir: Path, split: str) -> Source:
    """Looks for the archive or the folder of a split.

    Raises:
        FileNotFoundError: Neither exists; the message says what to do.
        ValueError: Both exist.
    """
    found = [
        source for root in _roots(manual_dir) for source in _sources_in(root, manual_dir, split)
    ]
    if len(found) > 1:
        raise ValueError(
            f"both {found[0].path} and {found[1].path} exist: move one of them elsewhere"
        )
    if found:
        return found[0]
    archive = f"{ARCHIVES[split]} nor " if split in ARCHIVES else ""
    raise FileNotFoundError(
        f"split {split}: neither {archive}{split}/ is in {manual_dir}: put one of"
        " them there, or leave the split out with --splits; for your own classes, --val-fraction"
        f" makes val.\n\n{LAYOUT}"
    )


def find_splits(manual_dir: Path) -> tuple[str, ...]:
    """Returns the splits with a folder or an archive; raises as `find_source` if there are both."""
    splits = []
    for split in SPLIT_FOLDERS:
        try:
            find_source(manual_dir, split)
        except FileNotFoundError:
            continue
        splits.append(split)
    return tuple(splits)


def first_of(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Returns the first of these files that is in one of the folders."""
    paths = (folder / name for name in names for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def around(manual_dir: Path) -> list[Path]:
    """Returns the folders that may contain files about the images, such as those above Kaggle's."""
    folders = list(_roots(manual_dir))
    folder = manual_dir.absolute()
    while folder.name in _KAGGLE_FOLDERS:
        folder = folder.parent
        folders.append(folder)
    return folders


def _roots(manual_dir: Path) -> Iterator[Path]:
    """Yields the folder, or what Kaggle or Hugging Face has inside of it."""
    yield manual_dir
    data = manual_dir / _HUGGING_FACE
    if data.is_dir() and any(map(_is_part, data.iterdir())):  # otherwise data/ may be a class
        yield data
    below = (manual_dir / path for path in _KAGGLE)
    yield from (path for path in below if path.is_dir())


def _is_part(path: Path) -> bool:
    return any(pattern.fullmatch(path.name) for pattern in _PARTS.values())


def _sources_in(root: Path, manual_dir: Path, split: str) -> Iterator[Source]:
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    beside = around(manual_dir)
    truth = first_of(beside, TRUTHS) if split == "val" else None
    if split in ARCHIVES and (root / ARCHIVES[split]).is_file():
        yield Source(root / ARCHIVES[split], truth)
    for name in names:
        if name.lower() in SPLIT_FOLDERS[split] and (root / name).is_dir():
            inside = root / name / TINY_TRUTH
            yield Source(root / name, inside if inside.is_file() else truth)
    if split in _PARTS:
        matching = [name for name in names if _PARTS[split].fullmatch(name)]
        # If an archive was unpacked, use that instead of the compressed one.
        parts = [root / name for name in matching if name.removesuffix(".gz") == name
                 or name.removesuffix(".gz") not in matching]  # fmt: skip
        if parts:
            yield Source(parts[0], None, tuple(parts[1:]))
