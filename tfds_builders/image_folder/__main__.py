# SPDX-License-Identifier: BSD-3-Clause
"""Build a data set: `python -m tfds_builders.image_folder --manual_dir=... --data_dir=...`."""

from collections.abc import Sequence

from tfds_builders.imagenet import own_classes
from tfds_builders.images import command

from .build import build


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, and print the folder; without folders of classes, say what to put there."""
    parser = command.parser(
        "tfds_builders.image_folder",
        description="Build a TFDS data set of ArrayRecord files from images in one folder a class.",
        layout=own_classes.LAYOUT,
    )
    add = parser.add_argument
    add("--name", help="of the data set (default: that of the folder manual_dir)")
    add("--short_side", type=int, default=0,
        help="shrink larger images to this many pixels (default: 0, never)")  # fmt: skip
    add("--orientation", choices=["exif", "stored"], default="exif",
        help="turn images upright as their EXIF data say (default), or leave them as they are"
        " stored")  # fmt: skip
    add("--splits", help="some of train,val,test (default: those that are there)")
    add("--val_share", type=float,
        help="share of the images that becomes val, where there is no val/: by a hash of the"
        " content, so that duplicates stay on one side, and every class keeps something to train"
        f" on (default: {own_classes.DEFAULT_VAL_SHARE} where there are no folders of"
        " splits)")  # fmt: skip
    options = parser.parse_args(command.words(arguments))
    command.run(
        build,
        options,
        is_published=lambda manual_dir: False,
        published_name="image_folder",
        orientation=options.orientation,
        short_side=options.short_side or None,
        splits=options.splits.split(",") if options.splits else None,
        val_share=options.val_share,
    )


if __name__ == "__main__":
    main()
