# SPDX-License-Identifier: BSD-3-Clause
"""Assigns the files of a set to streams of about equal length."""

import heapq
from collections.abc import Sequence

from absl import logging

ROWS_PER_FILE = 4_096  # maximum: about 0.13 GB at a short side of 320, 0.5 GB at original size
_UNEVEN = 1.1  # ratio of longest to shortest stream above which a warning is logged


def num_files(num_rows: int, count: int) -> int:
    """Returns the number of files for `count` streams of equal length.

    It is the smallest multiple of `count` with at most `ROWS_PER_FILE` rows in a file.
    """
    return count * max(1, -(-num_rows // (ROWS_PER_FILE * count)))


def assign(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Splits files into `count` parts, depending only on their lengths and on `count`.

    Files are not divided, because a part of a file would have to be copied, and might have other
    classes than the rest, while an entire file is as mixed as the set (row i of the list is in file
    i modulo the number of files). Files are assigned from the longest on, each to the shortest part
    so far, so no part is longer than another by more than the longest file (Graham, 1969). Every
    part is repeated on its own, so images of a short part are seen proportionally more often; a
    warning is logged from a difference of a tenth on.

    Args:
        lengths: Number of records of each file.
        count: Number of parts, at most the number of files.

    Returns:
        The indices of the files of each part, ascending.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    totals = [(0, part) for part in range(count)]
    # Ties go to the lower index, so that every process computes the same assignment.
    for file in sorted(range(len(lengths)), key=lambda file: (-lengths[file], file)):
        total, part = totals[0]
        parts[part].append(file)
        heapq.heapreplace(totals, (total + lengths[file], part))
    shortest, longest = min(totals)[0], max(totals)[0]
    if count > 1:
        logging.info("%d streams of %d to %d images", count, shortest, longest)
    if longest > _UNEVEN * shortest:
        logging.warning(
            "images of the shortest of %d streams are seen %.2f times as often as those of the "
            "longest: build the set with --num-shards=%d, or a multiple",
            count, longest / max(shortest, 1), count,
        )  # fmt: skip
    return [sorted(part) for part in parts]
