# SPDX-License-Identifier: BSD-3-Clause
"""The files of a set, cut into streams that are about equally long."""

import heapq
from collections.abc import Sequence

from absl import logging

_UNEVEN = 1.1  # longest by shortest, from which on a warning is due


def cut(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Cuts files into `count` parts; a function of their lengths and of `count` alone.

    Whole files, because a part of a file would have to be copied, and could hold other classes than
    the rest of it, where a file is as mixed as the set (row i of the list is in file i modulo their
    number). They are given out from the longest on, each to the part that is shortest so far: no
    part is longer than another by more than the longest file (Graham, 1969). Every part is repeated
    on its own, so an image of a short one is seen more often, in proportion; a warning says so
    from a tenth on.

    Args:
        lengths: records of each file.
        count: of parts, at most as many as files.

    Returns:
        For each part the numbers of its files, rising.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    totals = [(0, part) for part in range(count)]
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
