# SPDX-License-Identifier: BSD-3-Clause
"""The command that builds a set with the labels of ML-Images, or one's own in the same files."""

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
    short_side: int = 320,
    orientation: Literal["exif", "stored"] = "exif",
    verified: bool = False,
) -> None:
    """Build a data set from label lists and images, ML-Images' or your own.

        mlimages data build ml-images --manual-dir=FOLDER --data-dir=data --name=mine

    It prints the folder of the set, for --config.data.folder.

    {layout}

    Args:
      shared: Options of every builder.
      name: Of the data set; by default that of the folder manual_dir, and ml_images for the
        published files.
      labels: As in the lists, or with all ancestors of every class.
      corrections: With --labels=closed: a file of other parents for some classes; `published` is
        the one that comes with this package, for the published dictionary.
      allow_shared: Images may be in the list of train and in that of val or test.
      short_side: Shrink larger images to this many pixels; 0: never.
      orientation: Turn images upright as their EXIF data say, or leave them as they are stored, as
        the original training does.
      verified: The images were verified before, by `mlimages data download` or `extract`: do not
        decode those that keep their bytes.
    """
    command.run(
        build,
        shared,
        name=name,
        is_published=_is_published,
        published_name="ml_images",
        labels=labels,
        corrections=corrections,
        allow_shared=allow_shared,
        short_side=short_side or None,
        orientation=orientation,
        verified=verified,
    )


build_ml_images.__doc__ = command.with_layout(build_ml_images, manual_files.LAYOUT)


def _is_published(manual_dir: Path) -> bool:
    return (manual_dir / manual_files.CLASS_LISTS[1]).is_file()
