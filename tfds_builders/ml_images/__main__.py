# SPDX-License-Identifier: BSD-3-Clause
"""Build a data set: `python -m tfds_builders.ml_images --manual_dir=... --data_dir=...`."""

from collections.abc import Sequence
from pathlib import Path

from tfds_builders.images import command

from . import manual_files
from .ml_images_dataset_builder import build


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, and print the folder; without the files of `manual_dir`, say what to put there."""
    parser = command.parser(
        "tfds_builders.ml_images",
        description="Build a TFDS data set of ArrayRecord files, without TensorFlow.",
        layout=manual_files.LAYOUT,
    )
    add = parser.add_argument
    add("--name", help="of the data set (default: that of the folder manual_dir; ml_images for the"
        " published files)")  # fmt: skip
    add("--labels", choices=["released", "closed"], default="released",
        help="as in the lists, or with all ancestors of every class")  # fmt: skip
    add("--corrections", type=Path, metavar="FILE",
        help="with --labels=closed: other parents for some classes; `published` is the file that"
        " comes with this package, for the published dictionary")  # fmt: skip
    add("--allow_shared", action="store_true",
        help="images may be in the list of train and in that of val or test")  # fmt: skip
    add("--short_side", type=int, default=320,
        help="shrink larger images to this many pixels (default: 320); 0: never")  # fmt: skip
    add("--orientation", choices=["exif", "stored"], default="exif",
        help="turn images upright as their EXIF data say (default), or leave them as they are"
        " stored, as the original training does")  # fmt: skip
    add("--verified", action="store_true",
        help="the images were verified before, by `mlimages_jax.prepare download` or `extract`:"
        " do not decode those that keep their bytes")  # fmt: skip
    options = parser.parse_args(command.words(arguments))
    command.run(
        build,
        options,
        is_published=_is_published,
        published_name="ml_images",
        labels=options.labels,
        corrections=options.corrections,
        allow_shared=options.allow_shared,
        short_side=options.short_side or None,
        orientation=options.orientation,
        verified=options.verified,
    )


def _is_published(manual_dir: Path) -> bool:
    return (manual_dir / manual_files.DICTIONARIES[1]).is_file()


if __name__ == "__main__":
    main()
