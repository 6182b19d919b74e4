# SPDX-License-Identifier: BSD-3-Clause
"""The command that builds a set from images in one folder per class."""

from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes

from tfds_builders.imagenet import own_classes
from tfds_builders.images import command

from .build import build


def build_image_folder(
    *,
    shared: OmitArgPrefixes[command.Shared],
    name: str | None = None,
    short_side: int = 0,
    orientation: Literal["exif", "stored"] = "exif",
    splits: str | None = None,
    val_fraction: float | None = None,
) -> Path:
    """Build a data set from images in one folder per class.

        mlimages data build image-folder --manual-dir=pets --data-dir=data

    It prints the folder of the set, for `mlimages train --data`.

    {layout}

    Args:
        shared: options of every builder.
        name: name of the data set; default: that of the folder of --manual-dir.
        short_side: shrink larger images to this short side, in pixels; 0: never.
        orientation: exif turns images upright by their EXIF data, stored keeps them as they are.
        splits: some of train,val,test, with commas between them; default: those that exist.
        val_fraction: fraction of the images to use for val if there is no val/; default: 0.1 if
            there are no folders of splits. They are chosen by a hash of the content, so duplicates
            stay in one split, and every class keeps images to train on.
    """
    return command.run(
        build,
        shared,
        name=name,
        is_published=lambda manual_dir: False,
        published_name="image_folder",
        orientation=orientation,
        short_side=short_side or None,
        splits=splits.split(",") if splits else None,
        val_fraction=val_fraction,
    )


build_image_folder.__doc__ = command.with_layout(build_image_folder, own_classes.LAYOUT)
