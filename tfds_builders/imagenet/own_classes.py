# SPDX-License-Identifier: BSD-3-Clause
"""Users' own images in one folder per class: finds the splits, or makes them."""

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from mlimages_jax.data import image_folders
from mlimages_jax.files.remote import is_remote

from . import manual_files
from .content_split import split_by_content
from .listing import Listing, list_images

DEFAULT_VAL_FRACTION = 0.1  # fraction of images without folders of splits

LAYOUT = """\
manual_dir contains one folder per class, named after it; images may be in subfolders:

  <class>/<image file>                       a fraction of them becomes val, see --val-fraction

or such folders for every split, in upper or lower case:

  train/<class>/<image file>
  val/<class>/<image file>                   or valid/, validation/
  test/<class>/<image file>                  val and test are optional

Other files are skipped and counted. Class names are those of the folders, or come from an optional
dictionary.txt: a header, then
index<TAB>id<TAB>index of the parent or -1<TAB>names.
"""


class OwnImages:
    """The images of a folder, by split.

    Args:
        manual_dir: See `LAYOUT`.
        splits: Splits to use; None: all that exist.
        val_fraction: Fraction of the images without a split, or of train, that becomes val; 0: all
            are train; None: `DEFAULT_VAL_FRACTION` if there are no splits, otherwise nothing is
            moved.

    Attributes:
        paths: The folder of each split.
        listings: The images of each split.

    Raises:
        FileNotFoundError: There are no such folders.
        ValueError: An option is invalid, or the folders are not one per class.
    """

    def __init__(
        self, manual_dir: Path, *, splits: Sequence[str] | None, val_fraction: float | None
    ):
        if val_fraction is not None and not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction={val_fraction:g} is not at least 0 and below 1")
        self.paths: dict[str, Path] = {}
        self.listings: dict[str, Listing] = {}
        found = manual_files.find_splits(manual_dir)
        if not found:
            folder = class_folder(manual_dir)
            if folder is None:
                raise _nothing_there(manual_dir)
            self._divide(folder, DEFAULT_VAL_FRACTION if val_fraction is None else val_fraction)
        elif val_fraction and "val" in found:
            source = manual_files.find_source(manual_dir, "val")
            raise ValueError(
                f"{source.path} exists, so val_fraction={val_fraction:g} has no effect"
            )
        else:
            self._read(manual_dir, found, splits)
            if val_fraction:
                train = manual_files.find_source(manual_dir, "train")  # raises if it is missing
                self._divide(train.path, val_fraction)
        self._keep(splits, manual_dir)

    def _read(self, manual_dir: Path, found: Sequence[str], splits: Sequence[str] | None) -> None:
        for split in found:
            source = manual_files.find_source(manual_dir, split)
            try:
                listing = list_images(source, subset=True)
            except ValueError as error:
                if split != "test" or (splits and split in splits):
                    raise
                logging.warning("%s is left out: %s", source.path, error)  # usually no labels
                continue
            self.paths[split], self.listings[split] = source.path, listing

    def _divide(self, folder: Path, val_fraction: float) -> None:
        listing = list_images(manual_files.Source(folder, None), subset=True)
        if not val_fraction:
            self.paths["train"], self.listings["train"] = folder, listing
            return
        numbers = split_by_content(listing, val_fraction)
        if not numbers["val"]:
            raise ValueError(
                f"{folder}: no class has two different images, so none can be used for val: add"
                " some, or put all into train/"
            )
        for split, chosen in numbers.items():
            names = [listing.names[i] for i in chosen]
            classes = [listing.classes[i] for i in chosen]
            self.paths[split] = folder
            self.listings[split] = Listing(names, classes, listing.places)
        logging.info(
            "%s: %s images for train and %s for val (val_fraction=%g, by a hash of the content)",
            folder, f"{len(numbers['train']):,}", f"{len(numbers['val']):,}", val_fraction,
        )  # fmt: skip

    def _keep(self, splits: Sequence[str] | None, manual_dir: Path) -> None:
        for split in splits or ():
            if split not in self.listings:
                manual_files.find_source(manual_dir, split)  # raises with what is missing
                raise FileNotFoundError(f"split {split}: {manual_dir} has no images for it")
        if splits:
            self.paths = {split: self.paths[split] for split in splits}
            self.listings = {split: self.listings[split] for split in splits}


def check_folders(manual_dir: Path, data_dir: str | Path) -> None:
    """Refuses folders from which nothing can be built, before anything is written.

    Raises:
        FileNotFoundError: `manual_dir` is missing or empty.
        ValueError: `data_dir` is inside of the folder of classes, and would become one of them.
    """
    if not manual_dir.is_dir() or not any(manual_dir.iterdir()):
        raise _nothing_there(manual_dir)
    if is_remote(data_dir):
        return
    splits = manual_files.find_splits(manual_dir)
    folders = [manual_files.find_source(manual_dir, split).path for split in splits]
    for folder in folders or [manual_dir]:
        if Path(data_dir).resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"data_dir {data_dir} is in {folder}, where each folder is a class: give another"
            )


def _nothing_there(manual_dir: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{manual_dir}: no folders with images.\n\n{LAYOUT}")


def class_folder(manual_dir: Path) -> Path | None:
    """Returns the folder with one folder per class: this one, or one nested in it; else None.

    Unpacked archives often have everything in a single folder, and that in another.
    """
    folder = manual_dir
    for _ in range(3):  # deeper than any archive that was seen
        if not folder.is_dir():
            return None
        images, _ = image_folders.list_images(folder)
        tops = {path.partition("/")[0] for path in images if "/" in path}
        if len(tops) != 1:
            return folder if tops else None
        below = folder / tops.pop()
        if not any(path.count("/") > 1 for path in images):
            return folder  # a single class
        folder = below
    return None
