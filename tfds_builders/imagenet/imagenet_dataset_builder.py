# SPDX-License-Identifier: BSD-3-Clause
"""The TFDS builder of ImageNet (ILSVRC2012) from its archives, and of any set of class folders."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from mlimages_jax.data.images.decode import Chroma, Orientation
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.counting import counted
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, LabelListError
from tfds_builders.images import config as images
from tfds_builders.images.builder import ImageBuilder
from tfds_builders.images.content import Content
from tfds_builders.images.prepare import prepare

from . import classes, manual_files, own_classes
from .listing import Listing, list_images

SPLITS = ("train", "val")
OWN_SPLITS = (*SPLITS, "test")
NUM_CLASSES = 1_000
NUM_IMAGES = {"train": 1_281_167, "val": 50_000}

_WORDNET_ID = re.compile("n[0-9]{8}")


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(images.Config):
    """The form in which images are stored; each choice has its own folder.

    Attributes:
        short_side: Larger images are shrunk to this short side; None: images keep their size, since
            the crops of finetuning may be as small as 5% of an image.
        orientation: `stored`, as the original training reads images; `exif` turns them upright.
        name: `original` or, for example, `short_side_320`, `short_side_320_chroma420`.
    """

    name: str = dataclasses.field(default="", init=False)
    labels: str = dataclasses.field(default="released", init=False)  # classes have no ancestors
    short_side: int | None = None
    orientation: Orientation = "stored"

    def __post_init__(self) -> None:
        self.name = f"short_side_{self.short_side}" if self.short_side else "original"
        super().__post_init__()


@dataclasses.dataclass(eq=False, kw_only=True)
class OwnConfig(Config):
    """The same for users' own images, which are turned upright: phones store many on their side.

    Attributes:
        orientation: `exif`, or `stored`.
    """

    orientation: Orientation = "exif"


class Builder(ImageBuilder):
    """Reads the files of `manual_files.LAYOUT`.

    Attributes:
        splits: Some of `SPLITS`.
        subset: Whether archives may contain fewer classes and images than ImageNet has.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [Config()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_files.LAYOUT
    HOMEPAGE = "https://www.image-net.org/challenges/LSVRC/2012/"

    def __init__(self, *, splits: Sequence[str] = SPLITS, subset: bool = False, **kwargs: Any):
        self.splits = _checked_splits(splits)
        self.subset = subset
        super().__init__(**kwargs)

    def _content(self, dl_manager: tfds.download.DownloadManager) -> Content:
        manual_dir = Path(dl_manager.manual_dir)
        listings, paths = self._listings(manual_dir)
        ids = set(next(iter(listings.values())).classes)
        hierarchy = classes.flat_hierarchy(ids, classes.read_names(manual_dir))
        _check_classes(listings, hierarchy, paths)
        return Content(
            hierarchy=hierarchy,
            lists={
                split: _label_list(listing, hierarchy, paths[split])
                for split, listing in listings.items()
            },
            places={split: listing.places for split, listing in listings.items()},
        )

    def _listings(self, manual_dir: Path) -> tuple[dict[str, Listing], dict[str, Path]]:
        """Returns the images of each split, and their paths for messages."""
        sources = {split: manual_files.find_source(manual_dir, split) for split in self.splits}
        listings = {}
        for split, source in sources.items():
            listings[split] = list_images(source, subset=self.subset)
            if not source.path.is_dir() and not self.subset:
                _check_counts(listings[split], split, source.path)
        return listings, {split: source.path for split, source in sources.items()}


class OwnBuilder(Builder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """The same for folders of users' own classes, see `own_classes.LAYOUT`.

    Attributes:
        splits: Some of train, val and test; empty: those that exist.
        val_fraction: See `own_classes.OwnImages`.
    """

    name = "own_classes"  # TFDS would derive a name; every set gets its own
    pkg_dir_path = Builder.pkg_dir_path
    BUILDER_CONFIGS: ClassVar[list[Config]] = [OwnConfig()]

    def __init__(
        self, *, splits: Sequence[str] = (), val_fraction: float | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.splits = _checked_splits(splits, OWN_SPLITS) if splits else ()
        self.val_fraction = val_fraction

    def _listings(self, manual_dir: Path) -> tuple[dict[str, Listing], dict[str, Path]]:
        splits = self.splits or None
        found = own_classes.OwnImages(manual_dir, splits=splits, val_fraction=self.val_fraction)
        return found.listings, found.paths


def is_own(manual_dir: Path, splits: Sequence[str] | None = SPLITS) -> bool:
    """Returns whether there is a class folder whose name is not one of ImageNet's.

    Raises:
        FileNotFoundError: There is neither an archive nor a folder.
    """
    if not manual_files.find_splits(manual_dir):
        folder = own_classes.class_folder(manual_dir)
        if folder is not None:
            return True
    path = manual_files.find_source(manual_dir, _checked_splits(splits or SPLITS)[0]).path
    if not path.is_dir():
        return False
    folders = [entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != "."]
    return not all(_WORDNET_ID.fullmatch(name) for name in folders)


def build(
    manual_dir: str | Path,
    data_dir: str | Path,
    *,
    name: str = "imagenet",
    short_side: int | None = None,
    chroma: Chroma = "444",
    restart_markers: bool = False,
    orientation: Orientation | None = None,
    splits: Sequence[str] | None = SPLITS,
    val_fraction: float | None = None,
    own: bool | None = None,
    subset: bool = False,
    num_shards: int | None = None,
    max_skipped: float = 0.01,
    engine: EngineOptions = EngineOptions(),
    threads: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Builds a data set from the files described in `manual_files.LAYOUT`.

    Args:
        manual_dir: Folder of these files.
        data_dir: Folder or URL of data sets; this one goes to data_dir/name/original/1.0.0.
        name: Name of the data set.
        short_side: In pixels or None, see `Config`.
        chroma: See `Config`.
        restart_markers: See `Config`.
        orientation: See `Config`; None: `stored` for ImageNet, in archives or in folders of WordNet
            ids, and `exif` for folders of other classes. The other choice has its own folder.
        splits: train, val or both; for your own classes, None uses those that exist, also test.
        val_fraction: For your own classes without a val/, see `own_classes.OwnImages`.
        own: Whether these are your own classes; None: decide by their names, see `is_own`.
        subset: Whether archives may contain fewer classes and images than ImageNet has.
        num_shards: As for `ml_images.build`.
        max_skipped: As for `ml_images.build`.
        engine: As for `ml_images.build`.
        threads: As for `ml_images.build`.
        overwrite: As for `ml_images.build`.

    Returns:
        The folder of the finished data set; in a bucket an `epath.Path`.

    Raises:
        FileNotFoundError: A file is missing from `manual_dir`.
        OSError: `data_dir` cannot be written to, or another process builds the same set.
        StaleSetError: A ValueError: the finished set was built from other input or options.
        ValueError: An option or a file is invalid, or too many images are unusable.
    """
    own = is_own(Path(manual_dir), splits) if own is None else own
    if own:
        own_classes.check_folders(Path(manual_dir), data_dir)
    else:
        if val_fraction is not None:
            raise ValueError(
                "val_fraction is for classes of your own: ImageNet has a val of its own"
            )
        for split in _checked_splits(splits or SPLITS):
            manual_files.find_source(Path(manual_dir), split)  # before anything is created
    # Two classes, as they differ in a default that is part of the folder's name.
    config_class, builder_class = (OwnConfig, OwnBuilder) if own else (Config, Builder)
    options = {"val_fraction": val_fraction} if own else {}
    chosen = {} if orientation is None else {"orientation": orientation}
    config = config_class(
        short_side=short_side, chroma=chroma, restart_markers=restart_markers, **chosen
    )
    builder = builder_class(
        name=name,
        splits=splits or (),
        subset=subset,
        max_skipped=max_skipped,
        engine=engine,
        threads=threads,
        **options,
        config=builder_class.builder_configs.get(config.name, config),
        data_dir=os.fspath(data_dir),
    )
    return prepare(
        builder,
        manual_dir,
        num_shards=num_shards,
        overwrite=overwrite,
    )


def _checked_splits(splits: Sequence[str], possible: Sequence[str] = SPLITS) -> tuple[str, ...]:
    if not splits or not set(splits) <= set(possible):
        choice = "train, val, or train,val" if possible == SPLITS else "some of train,val,test"
        raise ValueError(f"splits={','.join(splits)!r}: give {choice}")
    return tuple(split for split in possible if split in splits)


def _check_counts(listing: Listing, split: str, path: Path) -> None:
    found = len(listing.names), len(set(listing.classes))
    expected = NUM_IMAGES[split], NUM_CLASSES
    if found != expected:
        images, classes = counted(found[0], "image"), counted(found[1], "class")
        raise ValueError(
            f"{path} holds {images} of {classes}, ImageNet's has"
            f" {expected[0]:,} of {expected[1]:,}: get it again, or accept that with --subset"
        )


def _check_classes(
    listings: Mapping[str, Listing],
    hierarchy: Hierarchy,
    paths: Mapping[str, Path],
) -> None:
    """Refuses a class that is in the second split only: nothing could learn it."""
    for split, listing in listings.items():
        unknown = sorted(set(listing.classes) - set(hierarchy.ids))
        if unknown:
            be = "is" if len(unknown) == 1 else "are"
            raise ValueError(
                f"{counted(len(unknown), 'class')} of {paths[split]}, such as {unknown[0]!r}, {be}"
                f" missing from {next(iter(paths.values()))}: add their images there, or remove"
                f" them from {split}"
            )


def _label_list(listing: Listing, hierarchy: Hierarchy, path: Path) -> LabelList:
    rows = zip(listing.names, listing.classes, strict=True)
    try:
        return LabelList.from_rows(
            ((name, [hierarchy.index(one)], [1.0]) for name, one in rows),
            num_classes=len(hierarchy),
        )
    except LabelListError as error:
        raise ValueError(f"{path}: {error}") from error
