# SPDX-License-Identifier: BSD-3-Clause
"""The files a person puts into `manual_dir`, and what to tell them when one is missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"

LAYOUT = """\
manual_dir holds ImageNet (ILSVRC2012) as it is distributed; nothing is unpacked:

  ILSVRC2012_img_train.tar        a tar of one tar a class
  ILSVRC2012_img_val.tar          the pictures; their classes are in the development kit,
  ILSVRC2012_devkit_t12.tar.gz      also as it is distributed, which has their names too; or in
  ILSVRC2012_validation_ground_truth.txt
      the class of picture 1, 2, ..., one a line: its WordNet id, or its number in that kit.
      Neither is needed where the archive has a folder for each class.

Instead of an archive there may be a folder with the pictures, also of classes of your own:

  train/<class>/<picture file>
  val/<class>/<picture file>

For the names of the classes, which otherwise are those of the folders, perhaps one of

  dictionary.txt          a header, then: index<TAB>id<TAB>index of the parent or -1<TAB>names
  LOC_synset_mapping.txt  n01440764 tench, Tinca tinca
"""


class Source(NamedTuple):
    """Where the pictures of a split are.

    Attributes:
      path: A tar file or a folder with one folder a class.
      labels: For a tar file without folders: the file of `TRUTH` or `DEVKIT`, if there is one.
    """

    path: Path
    labels: Path | None


def find_source(manual_dir: Path, split: str) -> Source:
    """Look for the archive or the folder of a split.

    Raises:
      FileNotFoundError: There is neither; says what to do.
      ValueError: There are both.
    """
    archive, folder = manual_dir / ARCHIVES[split], manual_dir / split
    if archive.is_file() and folder.is_dir():
        raise ValueError(f"both {archive} and {folder} are there: move one of them elsewhere")
    if folder.is_dir():
        return Source(folder, None)
    if not archive.is_file():
        raise FileNotFoundError(
            f"split {split}: neither {archive.name} nor {split}/ is in {manual_dir}: put one of"
            f" them there, or leave the split out with --splits.\n\n{LAYOUT}"
        )
    if split != "val":
        return Source(archive, None)
    return Source(archive, first_of(manual_dir, (TRUTH, DEVKIT)))


def first_of(manual_dir: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that exists."""
    return next((manual_dir / name for name in names if (manual_dir / name).is_file()), None)
