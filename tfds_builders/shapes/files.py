# SPDX-License-Identifier: BSD-3-Clause
"""Draws the files that a person with images of their own would have."""

from pathlib import Path

import simplejpeg

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList, write_label_list
from tfds_builders.shapes.classes import HIERARCHY, INDEX
from tfds_builders.shapes.drawing import paint
from tfds_builders.shapes.scene import SPLITS, compose, tags

_Row = tuple[str, list[int], list[float]]  # name, classes, confidences

NUM_TRAIN, NUM_VAL, SIZE = 4000, 500, 96

_JPEG_QUALITY = 92
_MIN_SIZE = 16  # below, an object is a few pixels


def draw(
    manual_dir: str | Path,
    *,
    num_train: int = NUM_TRAIN,
    num_val: int = NUM_VAL,
    size: int = SIZE,
    seed: int = 0,
) -> Path:
    """Writes `dictionary.txt`, `{train,val}_image_list.txt` and `images/*.jpg`.

    Args:
        manual_dir: made if it is not there; what was drawn there before is overwritten.
        num_train: images of the split "train".
        num_val: images of the split "val".
        size: side of an image in pixels.
        seed: another seed gives other images; one image depends on (seed, split, index) only.

    Returns:
        `manual_dir` as a path.

    Raises:
        ValueError: a number is out of range, or the folder holds files of other classes.
    """
    check(num_train=num_train, num_val=num_val, size=size, seed=seed)
    manual_dir = Path(manual_dir)
    _refuse_other_files(manual_dir / "dictionary.txt")
    images = manual_dir / "images"
    images.mkdir(parents=True, exist_ok=True)
    HIERARCHY.to_file(manual_dir / "dictionary.txt")
    for split, count in zip(SPLITS, (num_train, num_val), strict=True):
        rows = (_draw_one(images, seed=seed, split=split, index=i, size=size) for i in range(count))
        label_list = LabelList.from_rows(rows, num_classes=len(HIERARCHY))
        write_label_list(manual_dir / f"{split}_image_list.txt", label_list)
    return manual_dir


def _refuse_other_files(dictionary: Path) -> None:
    """Whose folder it is, its dictionary says: a person's lists and images are not drawn over."""
    if dictionary.exists() and Hierarchy.from_file(dictionary).ids != HIERARCHY.ids:
        raise ValueError(f"{dictionary} is of other classes: give a folder for drawn files alone")


def _draw_one(images: Path, *, seed: int, split: str, index: int, size: int) -> _Row:
    """Writes one image; returns its row of the list."""
    scene = compose(seed, split, index)
    pixels, hidden = paint(scene, size=size)
    name = f"{split}_{index:06d}.jpg"
    jpeg = simplejpeg.encode_jpeg(pixels, quality=_JPEG_QUALITY, colorsubsampling="444")
    (images / name).write_bytes(jpeg)
    found = tags(scene, hidden)
    return name, [INDEX[key] for key in found], list(found.values())


def check(*, num_train: int, num_val: int, size: int, seed: int) -> None:
    """Raises ValueError for a number out of range."""
    for name, count in {"num_train": num_train, "num_val": num_val}.items():
        if count < 1:
            raise ValueError(f"{name}={count}: at least one image is needed")
    if size < _MIN_SIZE:
        raise ValueError(f"size={size}: shapes need {_MIN_SIZE} pixels or more to be told apart")
    if seed < 0:
        raise ValueError(f"seed={seed}: must not be negative")
