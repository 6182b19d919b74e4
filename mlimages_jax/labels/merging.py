# SPDX-License-Identifier: BSD-3-Clause
"""Merges the rows of an image: one row per name, and the maximum confidence of every class."""

from collections.abc import Iterator

import numpy as np

from mlimages_jax.labels import label_keys
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.names import NameIndex, row_digests
from mlimages_jax.labels.rows import label_rows, take_rows


def merge_rows(label_list: LabelList) -> Iterator[LabelList]:
    """Merges all rows with the same name, in the order in which the names first appear.

    Every class gets the maximum of its confidences; any other confidence replaces -1 (unknown).

    Args:
        label_list: Its classes must be below label_keys.MAX_CLASSES.

    Yields:
        Parts of the merged list, some thousand rows each, with classes ascending within a row.
        Takes about 50 bytes per row besides the list.
    """
    digests = row_digests(label_list)
    first = NameIndex(digests).find(digests)  # [N] the first row of the same name
    del digests  # 16 bytes per row that are no longer needed
    members = np.argsort(first, kind="stable")  # makes rows of one name adjacent
    starts = np.flatnonzero(np.diff(first[members], prepend=-1))  # of each name in `members`
    bounds = np.append(starts, len(members))
    # In blocks of names, because keys have few bits for the row.
    for start in range(0, len(starts), label_keys.MAX_ROWS):
        block = bounds[start : start + label_keys.MAX_ROWS + 1]
        rows = take_rows(label_list, members[block[0] : block[-1]])
        yield _merge_neighbours(rows, np.diff(block))


def _merge_neighbours(label_list: LabelList, sizes: np.ndarray) -> LabelList:
    """Merges the first sizes[0] rows, the next sizes[1] rows, and so on."""
    merged_row = np.repeat(np.arange(len(sizes)), sizes)[label_rows(label_list)]  # of each label
    keys = label_keys.row_keys(merged_row, label_list.confidences)
    keys += label_keys.class_keys(label_list.classes)
    labels = label_keys.unite_labels(keys, num_rows=len(sizes))
    firsts = take_rows(label_list, np.cumsum(sizes) - sizes)  # for their names
    return label_keys.relabel(firsts, [labels])
