# SPDX-License-Identifier: BSD-3-Clause
"""Recognises ImageNet as it is distributed, and class folders, which the builders read directly."""

import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mlimages_jax.data import archives
from mlimages_jax.files.counting import counted
from mlimages_jax.prepare.imports.building import Build
from mlimages_jax.prepare.imports.found import SHOWN_ROWS, Found, Wish

if TYPE_CHECKING:
    from tfds_builders.imagenet.listing import Listing
    from tfds_builders.imagenet.manual_files import Source

_WHOLE_BYTES = 5e9  # smaller archives are parts of ImageNet: val alone has 6 GB


def find_imagenet(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for ImageNet's archives, or folders of WordNet ids, in any of the usual layouts."""
    # Imported here: TFDS takes seconds.
    from tfds_builders.imagenet import imagenet_dataset_builder, manual_files

    if not source.is_dir():
        return None
    try:
        splits = [split for split in manual_files.find_splits(source) if split != "test"]
        if not splits or imagenet_dataset_builder.is_own(source, splits):
            return None
        sources = {split: manual_files.find_source(source, split) for split in splits}
        counts, rows, is_whole = [], [], True
        for split, one in sources.items():
            if one.path.is_dir():
                listing = _listing(one)
                counts.append(_count(split, listing, one.path))
                rows += _first_rows(split, listing)
            else:
                counts.append(f"{split}: {1 + len(one.more)} archives, starting with {one.path}")
                rows += _first_members(split, one.path)
                is_whole = is_whole and one.path.stat().st_size > _WHOLE_BYTES
    except (ValueError, OSError) as error:
        notes.append(f"ImageNet: {error}")
        return None
    why = [f"{one.path} contains {split}" + (f", classes in {one.labels}" if one.labels else "")
           for split, one in sources.items()]  # fmt: skip
    options = (f"--splits={','.join(splits)}", *(() if is_whole else ("--subset",)))
    build = Build("imagenet", source, wish.name, options)
    return Found("ImageNet (WordNet ids)", why, rows, counts, build=build)


def find_class_folders(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for one folder per class, with or without folders of splits."""
    from tfds_builders.imagenet import own_classes  # imported here: TFDS takes seconds

    if not source.is_dir():
        return None
    try:
        found = own_classes.OwnImages(source, splits=None, val_fraction=wish.val_fraction)
    except FileNotFoundError:
        notes.append("class folders: no folder here has images in subfolders")
        return None
    except (ValueError, OSError) as error:
        notes.append(f"class folders: {error}")
        return None
    if not found.listings or len({c for one in found.listings.values() for c in one.classes}) < 2:
        notes.append("class folders: there are fewer than two folders with images")
        return None
    counts = [_count(split, one, found.paths[split]) for split, one in found.listings.items()]
    rows = [row for split, one in found.listings.items() for row in _first_rows(split, one)]
    shared = len(set(found.paths.values())) == 1 and len(found.paths) > 1
    fraction = own_classes.DEFAULT_VAL_FRACTION if wish.val_fraction is None else wish.val_fraction
    why = [f"{path} has one folder per class" for path in dict.fromkeys(found.paths.values())]
    if shared:
        why.append(f"no folders of splits: {fraction:g} of the images become val, by their content")
    divided = shared or wish.val_fraction is not None
    options = (f"--val-fraction={fraction:g}",) if divided else ()
    build = Build("image-folder", source, wish.name, options)
    return Found("one folder per class", why, rows, counts, build=build)


def _listing(source: "Source") -> "Listing":
    from tfds_builders.imagenet.listing import list_images

    return list_images(source, subset=True)


def _count(split: str, listing: "Listing", path: Path) -> str:
    classes = Counter(listing.classes)
    images, of = counted(len(listing.names), "image"), counted(len(classes), "class")
    return f"{split}: {images} of {of} in {path}"


def _first_rows(split: str, listing: "Listing") -> list[str]:
    pairs = zip(listing.names, listing.classes, strict=True)
    return [f"{split}: {name} -> {one}" for name, one in itertools.islice(pairs, SHOWN_ROWS)]


def _first_members(split: str, path: Path) -> list[str]:
    with archives.Archive(path) as archive:
        entries = archive.entries(on_error=lambda error: None)
        return [f"{split}: {entry.name}" for entry in itertools.islice(entries, SHOWN_ROWS)]
