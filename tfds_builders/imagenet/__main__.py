# SPDX-License-Identifier: BSD-3-Clause
"""Build a data set: `python -m tfds_builders.imagenet --manual_dir=... --data_dir=...`."""

from collections.abc import Sequence

from tfds_builders.pictures import command

from . import manual_files
from .imagenet_dataset_builder import build


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, and print the folder; without the files of `manual_dir`, say what to put there."""
    parser = command.parser(
        "tfds_builders.imagenet",
        description="Build a TFDS data set of ArrayRecord files from ImageNet's archives, or from\n"
        "pictures in one folder a class. Without TensorFlow, and without unpacking anything.",
        layout=manual_files.LAYOUT,
    )
    add = parser.add_argument
    add("--name", default="imagenet", help="of the data set (default: imagenet)")
    add("--short_side", type=int, default=0,
        help="shrink larger pictures to this many pixels (default: 0, never)")  # fmt: skip
    add("--splits", default="train,val", help="train, val or train,val (default)")
    add("--subset", action="store_true",
        help="allow archives with fewer classes and pictures than ImageNet has")  # fmt: skip
    options = parser.parse_args(arguments)
    command.run(
        build,
        options,
        name=options.name,
        short_side=options.short_side or None,
        splits=options.splits.split(","),
        subset=options.subset,
    )


if __name__ == "__main__":
    main()
