# SPDX-License-Identifier: BSD-3-Clause
"""Build a data set: `python -m tfds_builders.imagenet --manual_dir=... --data_dir=...`."""

from collections.abc import Sequence

from tfds_builders.images import command

from . import manual_files
from .imagenet_dataset_builder import build, is_own


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, and print the folder; without the files of `manual_dir`, say what to put there."""
    parser = command.parser(
        "tfds_builders.imagenet",
        description="Build a TFDS data set of ArrayRecord files from ImageNet's archives, or from\n"
        "images in one folder a class. Without TensorFlow, and without unpacking anything.",
        layout=manual_files.LAYOUT,
    )
    add = parser.add_argument
    add("--name", help="of the data set (default: imagenet, or for classes of your own that of the"
        " folder manual_dir)")  # fmt: skip
    add("--short_side", type=int, default=0,
        help="shrink larger images to this many pixels (default: 0, never)")  # fmt: skip
    add("--orientation", choices=["exif", "stored"],
        help="turn images upright as their EXIF data say, or leave them as they are stored"
        " (default: exif for your own classes; stored for ImageNet, as the original)")  # fmt: skip
    add("--splits", default="train,val", help="train, val or train,val (default)")
    add(
        "--val_share",
        type=float,
        help="of classes of your own without a val/, as in"
        " `python -m tfds_builders.image_folder`, which is the command for them",
    )
    add("--subset", action="store_true",
        help="allow archives with fewer classes and images than ImageNet has")  # fmt: skip
    options = parser.parse_args(command.words(arguments))
    splits = options.splits.split(",")
    command.run(
        build,
        options,
        is_published=lambda manual_dir: not is_own(manual_dir, splits),
        published_name="imagenet",
        orientation=options.orientation,
        short_side=options.short_side or None,
        splits=splits,
        val_share=options.val_share,
        subset=options.subset,
    )


if __name__ == "__main__":
    main()
