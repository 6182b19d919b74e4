# SPDX-License-Identifier: BSD-3-Clause
"""What a build says at its beginning and its end, in place of TFDS's lines."""

from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from mlimages_jax.files.counting import counted

from .config import Config
from .content import Content


def beginning(folder: Path, content: Content, num_rows: Mapping[str, int], option: Config) -> str:
    """What is built of what, and where."""
    counts = ", ".join(f"{split} {rows:,}" for split, rows in num_rows.items())
    side = f"shrunk to {option.short_side} pixels" if option.short_side else "in their own size"
    turned = "turned upright by EXIF" if option.orientation == "exif" else "not turned by EXIF"
    classes = counted(len(content.hierarchy), "class")
    return f"building {folder}: images of {counts}; {classes}; {side}, {turned}"


def end(folder: Path, info: tfds.core.DatasetInfo) -> str:
    """How many records there are now, and how many images have none."""
    skipped = (info.metadata or {})["skipped"]
    counts = ", ".join(
        f"{name} {split.num_examples:,} ({skipped[name]:,} skipped)"
        for name, split in info.splits.items()
    )
    return f"{folder} is complete: images of {counts}; {info.dataset_size}"
