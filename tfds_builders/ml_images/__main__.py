# SPDX-License-Identifier: BSD-3-Clause
"""Build a data set: `python -m tfds_builders.ml_images --manual_dir=... --data_dir=...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from . import manual_files
from .ml_images_dataset_builder import build


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tfds_builders.ml_images",
        description="Build a TFDS data set of ArrayRecord files, without TensorFlow.",
        epilog=manual_files.LAYOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--manual_dir", type=Path, required=True, help="the files described below")
    add("--data_dir", type=Path, required=True, help="where data sets go")
    add("--name", default="ml_images", help="of the data set (default: ml_images)")
    add("--labels", choices=["released", "closed"], default="released",
        help="as in the lists, or with all ancestors of every class")  # fmt: skip
    add("--short_side", type=int, default=320,
        help="shrink larger pictures to this many pixels (default: 320); 0: never")  # fmt: skip
    add("--num_shards", type=int, help="files of each split")
    add("--max_skipped", type=float, default=0.01,
        help="share of unusable pictures that is allowed (default: 0.01)")  # fmt: skip
    add("--num_workers", type=int, help="threads (default: one a core)")
    add("--beam", metavar="OPTIONS", nargs="?", const="", help="use Apache Beam, with options"
        " such as runner=DirectRunner,direct_num_workers=8")  # fmt: skip
    add("--overwrite", action="store_true", help="build anew where a finished set exists")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, and print the folder; without the files of `manual_dir`, say what to put there."""
    options = _parse(arguments)
    logging.set_verbosity(logging.INFO)
    beam = options.beam
    try:
        folder = build(
            options.manual_dir,
            options.data_dir,
            name=options.name,
            labels=options.labels,
            short_side=options.short_side or None,
            num_shards=options.num_shards,
            max_skipped=options.max_skipped,
            num_workers=options.num_workers,
            beam_options=None
            if beam is None
            else [f"--{flag}" for flag in beam.split(",") if flag],
            overwrite=options.overwrite,
        )
    except (FileNotFoundError, ImportError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(folder)


if __name__ == "__main__":
    main()
