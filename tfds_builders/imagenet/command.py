# SPDX-License-Identifier: BSD-3-Clause
"""The command that builds a set from ImageNet's archives."""

from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes

from tfds_builders.images import command

from . import manual_files
from .imagenet_dataset_builder import build, is_own


def build_imagenet(
    *,
    shared: OmitArgPrefixes[command.Shared],
    name: str | None = None,
    short_side: int = 0,
    orientation: Literal["exif", "stored"] | None = None,
    splits: str = "train,val",
    val_fraction: float | None = None,
    subset: bool = False,
) -> Path:
    """Build a data set from ImageNet's archives, or from images in one folder per class.

        mlimages data build imagenet --manual-dir=imagenet_archives --data-dir=data

    The archives are not unpacked. It prints the folder of the set, for `mlimages train --data`.

    {layout}

    Args:
        shared: options of every builder.
        name: name of the data set; default: imagenet, or for your own classes that of the folder of
            --manual-dir.
        short_side: shrink larger images to this short side, in pixels; 0: never.
        orientation: exif turns images upright by their EXIF data, stored keeps them as they are;
            default: exif for your own classes, and stored for ImageNet, as the original training
            reads them.
        splits: train, val, or train,val.
        val_fraction: fraction for val of your own classes without a val/; see `mlimages data build
            image-folder`, the command for them.
        subset: accept archives with fewer classes and images than ImageNet has.
    """
    names = splits.split(",")
    return command.run(
        build,
        shared,
        name=name,
        is_published=lambda manual_dir: not is_own(manual_dir, names),
        published_name="imagenet",
        orientation=orientation,
        short_side=short_side or None,
        splits=names,
        val_fraction=val_fraction,
        subset=subset,
    )


build_imagenet.__doc__ = command.with_layout(build_imagenet, manual_files.LAYOUT)
