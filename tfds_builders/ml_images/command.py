# SPDX-License-Identifier: BSD-3-Clause
"""The command that builds ML-Images, or a set of your own from files of the same form."""

from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes

from tfds_builders.images import command

from . import manual_files
from .ml_images_dataset_builder import build


def build_ml_images(
    *,
    shared: OmitArgPrefixes[command.Shared],
    name: str | None = None,
    labels: Literal["released", "closed"] = "released",
    corrections: Path | None = None,
    allow_shared: bool = False,
    image_shards: tuple[str, ...] = (),
    short_side: int = 320,
    orientation: Literal["exif", "stored"] = "exif",
    verified: bool = False,
) -> Path:
    """Build a data set from label lists and images, ML-Images' or your own.

        mlimages data build ml-images --manual-dir=my_photos --data-dir=data --name=mine

    It prints the folder of the set, for `mlimages train --data`.

    {layout}

    Args:
        shared: options of every builder.
        name: name of the data set; default: that of the folder of --manual-dir, or ml_images for
            the published files.
        labels: released keeps the labels of the lists, closed adds all ancestors of every class.
        corrections: with --labels=closed, a file of other parents for some classes; `published` is
            the one in this package, for the published class list.
        allow_shared: accept images that are in the list of train and in that of val or test.
        image_shards: folders of image shards, on a disk or in a bucket, beside shards/ of
            --manual-dir.
        short_side: shrink larger images to this short side, in pixels; 0: never.
        orientation: exif turns images upright by their EXIF data, stored keeps them as they are, as
            the original training reads them.
        verified: skip decoding images that keep their bytes: `mlimages data download` or `extract`
            has verified them.
    """
    return command.run(
        build,
        shared,
        name=name,
        is_published=_is_published,
        published_name="ml_images",
        labels=labels,
        corrections=corrections,
        allow_shared=allow_shared,
        image_shards=image_shards,
        short_side=short_side or None,
        orientation=orientation,
        verified=verified,
    )


build_ml_images.__doc__ = command.with_layout(build_ml_images, manual_files.LAYOUT)


def _is_published(manual_dir: Path) -> bool:
    return (manual_dir / manual_files.CLASS_LISTS[1]).is_file()
