# SPDX-License-Identifier: BSD-3-Clause
"""Builds a set of users' own images in one folder per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfds_builders.imagenet import imagenet_dataset_builder


def build(
    manual_dir: str | Path,
    data_dir: str | Path,
    *,
    name: str,
    splits: Sequence[str] | None = None,
    val_fraction: float | None = None,
    **options: Any,
) -> Path:
    """Builds a data set from the folders described in `own_classes.LAYOUT`.

    Args:
        manual_dir: Folder that contains them.
        data_dir: Folder or URL of data sets; this one goes to data_dir/name/original/1.0.0.
        name: Name of the data set.
        splits: Some of train, val and test; None: those that exist.
        val_fraction: See `own_classes.OwnImages`.
        **options: As for `imagenet.build`.

    Returns:
        The folder of the finished data set; in a bucket an `epath.Path`.

    Raises:
        FileNotFoundError: There are no such folders.
        OSError: `data_dir` cannot be written to, or another process builds the same set.
        ValueError: As for `imagenet.build`.
    """
    return imagenet_dataset_builder.build(
        manual_dir,
        data_dir,
        name=name,
        splits=splits,
        val_fraction=val_fraction,
        own=True,
        **options,
    )
