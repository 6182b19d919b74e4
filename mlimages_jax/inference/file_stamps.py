# SPDX-License-Identifier: BSD-3-Clause
"""Sizes and modification times of many files, by which a changed file is noticed."""

import concurrent.futures
import os

import numpy as np

from mlimages_jax.data.image_folders import ImageFolder

THREADS = 32  # for `stat` calls, which wait on the network for remote file systems
MISSING = -1


def file_stamps(folder: ImageFolder, names: list[str]) -> np.ndarray:
    """Returns size in bytes and modification time in nanoseconds of each file.

    Args:
        folder: Finds the files.
        names: Their names.

    Returns:
        int64 [n, 2]; both are MISSING for a file that `stat` cannot read.
    """
    stamps: np.ndarray = np.empty((len(names), 2), np.int64)

    def fill(first: int) -> None:
        for position in range(first, len(names), THREADS):
            stamps[position] = _stamp(folder, names[position])

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill, range(THREADS)))
    return stamps


def _stamp(folder: ImageFolder, name: str) -> tuple[int, int]:
    try:
        # os.stat: making a Path for each of millions of names would cost more.
        status = os.stat(folder.find(name))  # noqa: PTH116
    except (OSError, ValueError):
        return MISSING, MISSING
    return status.st_size, status.st_mtime_ns
