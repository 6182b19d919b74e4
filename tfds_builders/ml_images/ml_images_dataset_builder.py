# SPDX-License-Identifier: BSD-3-Clause
"""The TFDS builder of ML-Images, and of every set of images with the same files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from absl import logging

from mlimages_jax.data.images.decode import Chroma, Orientation
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.counting import counted
from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels.corrections import correct, count_changes, read_corrections
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, read_label_list
from mlimages_jax.labels.repeated_names import find_repeats, first_shared, hashes_of
from tfds_builders.images.builder import ImageBuilder
from tfds_builders.images.config import Config
from tfds_builders.images.content import Content
from tfds_builders.images.image_shards import ShardedImages, find_in_shards
from tfds_builders.images.places import Places
from tfds_builders.images.prepare import prepare
from tfds_builders.images.skipped import allowed
from tfds_builders.images.tars import find_images

from . import manual_files


class Builder(ImageBuilder):
    """Reads the files of `manual_files.LAYOUT`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    # Only one, because `tfds build` without --config builds all of them.
    BUILDER_CONFIGS: ClassVar[list[Config]] = [Config()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = manual_files.LAYOUT
    HOMEPAGE = "https://github.com/Tencent/tencent-ml-images"

    def __init__(
        self,
        *,
        corrections: Path | None = None,
        allow_shared: bool = False,
        image_shards: Sequence[str] = (),
        **kwargs: Any,
    ):
        """Takes the arguments of `ImageBuilder`, and those of `build` that it does not have."""
        self.image_shards = tuple(image_shards)
        self.corrections = corrections
        self.allow_shared = allow_shared
        super().__init__(**kwargs)

    def _manual_dir(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """Returns the folder described in `manual_files.LAYOUT`; a subclass may create it first."""
        return Path(dl_manager.manual_dir)

    def _content(self, dl_manager: tfds.download.DownloadManager) -> Content:
        files = manual_files.find_manual_files(self._manual_dir(dl_manager), self.image_shards)
        hierarchy = Hierarchy.from_file(files.class_list)
        lists = {
            split: read_label_list(path, num_classes=len(hierarchy))
            for split, path in files.lists.items()
        }
        for split, rows in lists.items():
            if not len(rows):
                raise ValueError(f"{files.lists[split]} has no rows: add some or remove it")
        self._check_repeats(files, lists)
        if self.corrections is not None:
            hierarchy = self._corrected(hierarchy, lists)
        places = find_in_shards(files.image_shards, lists, find_images(files.images, lists))
        if not files.images.is_dir():
            self._check_shards(files, places)
        return Content(hierarchy, lists, places, files.missing_labels)

    def _check_shards(self, files: manual_files.ManualFiles, places: Mapping[str, Places]) -> None:
        """Refuses at once what would be refused after hours: too many images that are nowhere."""
        counts = []
        for split, some in places.items():
            assert isinstance(some, ShardedImages)
            rows, missing = len(some.numbers), some.count_elsewhere()
            if missing > allowed(rows, self.max_skipped) or missing == rows:
                counts.append(f"split {split}: {missing:,} of {rows:,} images")
        if counts:
            raise ValueError(
                f"{'; '.join(counts)} are not in the image shards of "
                f"{', '.join(files.image_shards)}, and there is no folder {files.images}. Name the "
                "other folders of image shards with --image-shards; or drop these rows (`mlimages "
                "data labels --manifests`), or raise --max-skipped"
            )

    def _check_repeats(self, files: manual_files.ManualFiles, lists: dict[str, LabelList]) -> None:
        """Refuses images in both training and test lists; reports other repeated names."""
        hashes = {split: hashes_of(rows) for split, rows in lists.items()}
        repeats = find_repeats(hashes)
        for split, count in repeats.within.items():
            logging.warning(
                "%s: %s the name of an earlier row; each row becomes an image with its own labels. "
                "`mlimages data labels LIST --merge` merges such rows",
                files.lists[split], f"{counted(count, 'row')} {'has' if count == 1 else 'have'}",
            )  # fmt: skip
        for (one, other), count in repeats.between.items():
            example = one_line(first_shared(lists[one], lists[other]))
            shared = f"{counted(count, 'image')}, such as {example},"
            message = f"{shared} {'is' if count == 1 else 'are'} in {one} and in {other}"
            # Other overlaps may be intended, such as a list trainval next to train and val.
            if {one, other} & {"train"} and {one, other} & {"val", "test"}:
                message += ": metrics mean nothing on images that training has seen"
                if not self.allow_shared:
                    raise ValueError(
                        f"{files.lists[other]}: {message}; take them out of one list, or give "
                        "--allow-shared"
                    )
            logging.warning("%s", message)

    def _corrected(self, hierarchy: Hierarchy, lists: dict[str, LabelList]) -> Hierarchy:
        """Returns the classes with corrected parents, and logs the changes."""
        assert self.corrections is not None
        corrected = correct(hierarchy, read_corrections(self.corrections))
        logging.info("corrections: %s", corrected)
        for split, rows in lists.items():
            changes = count_changes(rows, hierarchy, corrected.hierarchy)
            logging.info("corrections: %s: %s", split, changes)
        return corrected.hierarchy


def build(
    manual_dir: str | Path,
    data_dir: str | Path,
    *,
    name: str = "ml_images",
    labels: str = "released",
    corrections: Path | None = None,
    allow_shared: bool = False,
    image_shards: Sequence[str] = (),
    short_side: int | None = 320,
    chroma: Chroma = "444",
    restart_markers: bool = False,
    orientation: Orientation = "exif",
    num_shards: int | None = None,
    max_skipped: float = 0.01,
    engine: EngineOptions = EngineOptions(),
    threads: int | None = None,
    verified: bool = False,
    overwrite: bool = False,
) -> Path:
    """Builds a data set from the files described in `manual_files.LAYOUT`.

    After a failure or a kill, the same call resumes from the finished shards.

    Args:
        manual_dir: Folder of these files.
        data_dir: Folder or URL of data sets; this one goes to
            data_dir/name/<labels>_<short_side>/1.0.0.
        name: Name of the data set.
        labels: `released` or `closed`, see `Config`.
        corrections: A file of other parents for some classes, see `labels.corrections`; for closed
            labels only. The set's dictionary.txt has these parents.
        allow_shared: Whether images may be in the list of train and in that of val or test.
        image_shards: Folders of image shards, paths or URLs, beside those in `manual_dir`.
        short_side: In pixels or None, see `Config`.
        chroma: See `Config`.
        restart_markers: See `Config`.
        orientation: See `Config`; other than `exif` has its own folder, `released_320_stored`.
        num_shards: Number of files of each split; None: a power of two with at most
            `data.streams.ROWS_PER_FILE` images each; `mlimages plan` says how many the order
            `streams` needs.
        max_skipped: Fraction of a split's rows that may lack a usable image; with 0.01, up to five
            may even if that is more.
        engine: What writes the files: this process, several, or the machines of a Ray cluster, see
            `EngineOptions`. Does not change the result.
        threads: Number of threads of each process; None: one per core in all, with Ray one per
            process. Does not change the result.
        verified: The images were decoded as a check before and have not changed since, as after
            `mlimages data download` or `extract`; those that keep their bytes are not decoded
            again, which saves four fifths of the work.
        overwrite: Rebuild a finished set, which stays in place until the new one is complete.
            Otherwise the finished set is returned, if it was built from the same input and options.

    Returns:
        The folder of the finished data set; in a bucket an `epath.Path`.

    Raises:
        FileNotFoundError: A file is missing from `manual_dir`.
        OSError: `data_dir` cannot be written to, or another process builds the same set.
        StaleSetError: A ValueError: the finished set was built from other input or options.
        ValueError: An option or a row of a file is invalid, too many images are unusable, or images
            of train are in val or test.
    """
    if corrections is not None and labels != "closed":
        raise ValueError("corrections change what closing adds: give --labels=closed too")
    manual_files.find_manual_files(Path(manual_dir), image_shards)  # before anything is created
    config = Config(
        labels=labels,
        short_side=short_side,
        chroma=chroma,
        orientation=orientation,
        restart_markers=restart_markers,
    )
    builder = Builder(
        name=name,
        max_skipped=max_skipped,
        engine=engine,
        threads=threads,
        verified=verified,
        corrections=corrections,
        allow_shared=allow_shared,
        image_shards=image_shards,
        config=Builder.builder_configs.get(config.name, config),
        data_dir=os.fspath(data_dir),
    )
    return prepare(
        builder,
        manual_dir,
        num_shards=num_shards,
        overwrite=overwrite,
    )
