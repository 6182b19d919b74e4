# SPDX-License-Identifier: BSD-3-Clause
"""Builds a set of people's own images in one folder a class."""

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
    val_share: float | None = None,
    **options: Any,
) -> Path:
    """Build a data set from the folders described in `own_classes.LAYOUT`.

    Args:
      manual_dir: Holds these folders.
      data_dir: Holds data sets; this one goes to data_dir/name/original/1.0.0.
      name: Of the data set.
      splits: Of train, val and test; None: those that are there.
      val_share: See `own_classes.OwnImages`.
      **options: As for `imagenet.build`.

    Returns:
      The folder that holds the finished data set.

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
        val_share=val_share,
        own=True,
        **options,
    )
