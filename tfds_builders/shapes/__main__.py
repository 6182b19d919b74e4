# SPDX-License-Identifier: BSD-3-Clause
"""Draws and builds the data set: `python -m tfds_builders.shapes --data_dir=DIR`."""

from collections.abc import Sequence

from absl import app, flags

from mlimages_jax.files import paths
from tfds_builders.shapes import files
from tfds_builders.shapes.shapes_dataset_builder import build

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TFDS data sets.", required=True)
_KEEP_FILES = flags.DEFINE_string("keep_files", None, "Keep the lists and images in this folder.")
_NUM_TRAIN = flags.DEFINE_integer("num_train", files.NUM_TRAIN, "Images to train on.")
_NUM_VAL = flags.DEFINE_integer("num_val", files.NUM_VAL, "Images to validate on.")
_SIZE = flags.DEFINE_integer("size", files.SIZE, "Side of an image in pixels.")
_SEED = flags.DEFINE_integer("seed", 0, "Another seed draws other images.")


def main(argv: Sequence[str]) -> None:
    """Prints the folder of the finished data set."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    folder = build(
        paths.expanded(_DATA_DIR.value),
        num_train=_NUM_TRAIN.value,
        num_val=_NUM_VAL.value,
        size=_SIZE.value,
        seed=_SEED.value,
        keep_files=_KEEP_FILES.value and paths.expanded(_KEEP_FILES.value),
    )
    print(folder)


if __name__ == "__main__":
    app.run(main)
