# SPDX-License-Identifier: BSD-3-Clause
"""The command that builds a set from ImageNet's archives."""

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
    val_share: float | None = None,
    subset: bool = False,
) -> None:
    """Build a data set from ImageNet's archives, or from images in one folder a class.

        mlimages data build imagenet --manual-dir=ARCHIVES --data-dir=data

    Nothing is unpacked. It prints the folder of the set, for --config.data.folder.

    {layout}

    Args:
      shared: Options of every builder.
      name: Of the data set; by default imagenet, or for classes of your own that of the folder
        manual_dir.
      short_side: Shrink larger images to this many pixels; 0: never.
      orientation: Turn images upright as their EXIF data say, or leave them as they are stored; by
        default exif for your own classes, and stored for ImageNet, as the original.
      splits: Train, val or train,val.
      val_share: Of classes of your own without a val/, as in `mlimages data build image-folder`,
        which is the command for them.
      subset: Allow archives with fewer classes and images than ImageNet has.
    """
    names = splits.split(",")
    command.run(
        build,
        shared,
        name=name,
        is_published=lambda manual_dir: not is_own(manual_dir, names),
        published_name="imagenet",
        orientation=orientation,
        short_side=short_side or None,
        splits=names,
        val_share=val_share,
        subset=subset,
    )


build_imagenet.__doc__ = command.with_layout(build_imagenet, manual_files.LAYOUT)
