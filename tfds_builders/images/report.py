# SPDX-License-Identifier: BSD-3-Clause
"""The messages of a build at its start and end, instead of TFDS's."""

from collections.abc import Mapping
from pathlib import Path

import tensorflow_datasets as tfds

from mlimages_jax.files.counting import counted

from .config import Config
from .content import Content


def beginning(
    folder: Path | str, content: Content, num_rows: Mapping[str, int], option: Config
) -> str:
    """Returns what is built from what, and where."""
    counts = ", ".join(f"{split} {rows:,}" for split, rows in num_rows.items())
    side = f"shrunk to {option.short_side} pixels" if option.short_side else "in their own size"
    turned = "turned upright by EXIF" if option.orientation == "exif" else "not turned by EXIF"
    classes = counted(len(content.hierarchy), "class")
    return f"building {folder}: images of {counts}; {classes}; {side}, {turned}"


def end(folder: Path | str, info: tfds.core.DatasetInfo) -> str:
    """Returns the numbers of records and of skipped images."""
    skipped = (info.metadata or {})["skipped"]
    counts = ", ".join(
        f"{name} {split.num_examples:,} ({skipped[name]:,} skipped)"
        for name, split in info.splits.items()
    )
    return f"{folder} is complete: images of {counts}; {info.dataset_size}"
