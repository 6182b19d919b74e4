# SPDX-License-Identifier: BSD-3-Clause
"""The command that draws a data set and builds it."""

from pathlib import Path

from tfds_builders.shapes import files
from tfds_builders.shapes.shapes_dataset_builder import build


def build_shapes(
    *,
    data_dir: str,
    keep_files: Path | None = None,
    num_train: int = files.NUM_TRAIN,
    num_val: int = files.NUM_VAL,
    size: int = files.SIZE,
    seed: int = 0,
) -> None:
    """Draw a small data set and build it; nothing is downloaded.

        mlimages data build shapes --data-dir=data

    It prints the folder of the set, for `mlimages train --data`.

    Args:
        data_dir: folder for data sets, on a disk or in a bucket.
        keep_files: folder for the drawn lists and images; default: they are deleted.
        num_train: number of training images.
        num_val: number of validation images.
        size: side of an image in pixels.
        seed: seed of the random draws.
    """
    folder = build(
        data_dir,
        num_train=num_train,
        num_val=num_val,
        size=size,
        seed=seed,
        keep_files=keep_files,
    )
    print(folder)
