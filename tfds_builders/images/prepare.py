# SPDX-License-Identifier: BSD-3-Clause
"""Prepares a finished set from the options of a command."""

import os
import tempfile
from pathlib import Path

import tensorflow_datasets as tfds

from .builder import ImageBuilder

_BLOCK_BYTES = 4096


def prepare(
    builder: ImageBuilder,
    manual_dir: str | Path,
    *,
    num_shards: int | None,
    overwrite: bool,
) -> Path:
    """Builds the data set unless it exists, as described at `ml_images.build`.

    Returns:
        The folder of the finished data set; in a bucket an `epath.Path`.

    Raises:
        OSError: The folder of data sets cannot be written to.
        ValueError: `num_shards` is not a number of files.
    """
    if num_shards is not None and num_shards < 1:
        raise ValueError(f"num_shards={num_shards} is not a number of files: 1 or more")
    folder = builder.place
    if builder.in_bucket is None and (overwrite or not folder.exists()):
        _check_writable(Path(builder.data_dir_root))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=os.fspath(manual_dir),
            num_shards=num_shards,
            try_download_gcs=False,
            download_mode=(
                tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
                if overwrite
                else tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
            ),
        )
    )
    return folder


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_BLOCK_BYTES))  # empty files can be created on a full disk too
            file.flush()
    except OSError as error:
        message = f"{error.strerror}: {folder} cannot be written to; give another data_dir"
        raise OSError(error.errno, message) from error
