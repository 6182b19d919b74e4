# SPDX-License-Identifier: BSD-3-Clause
"""Draws images and writes the files that a user with their own images would have."""

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
_MIN_SIZE = 16  # smaller objects would be a few pixels


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
        manual_dir: Created if missing; files drawn there earlier are overwritten.
        num_train: Number of images of the split "train".
        num_val: Number of images of the split "val".
        size: Side of an image in pixels.
        seed: Another seed gives other images; an image depends on (seed, split, index) only.

    Returns:
        `manual_dir` as a path.

    Raises:
        ValueError: A number is out of range, or the folder contains files of other classes.
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


def _refuse_other_files(class_list: Path) -> None:
    """Refuses to overwrite a user's lists and images, recognised by another dictionary."""
    if class_list.exists() and Hierarchy.from_file(class_list).ids != HIERARCHY.ids:
        raise ValueError(f"{class_list} has other classes: give a folder for drawn files only")


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
    """Raises ValueError if a number is out of range."""
    for name, count in {"num_train": num_train, "num_val": num_val}.items():
        if count < 1:
            raise ValueError(f"{name}={count}: at least one image is needed")
    if size < _MIN_SIZE:
        raise ValueError(f"size={size}: shapes are recognisable from {_MIN_SIZE} pixels on")
    if seed < 0:
        raise ValueError(f"seed={seed}: must not be negative")
