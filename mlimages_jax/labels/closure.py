# SPDX-License-Identifier: BSD-3-Clause
"""Closes complete label lists over ancestors: `Hierarchy.close` for many rows at once."""

from mlimages_jax.labels import label_keys
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.rows import iter_blocks, label_rows


def close_rows(label_list: LabelList, hierarchy: Hierarchy) -> LabelList:
    """Closes every row over ancestors.

    A positive confidence is passed on to every ancestor, which gets the maximum of several; neither
    -1 nor 0 is passed on. Besides the result, this takes the memory of some thousand rows.

    Args:
        label_list: A list with the classes of `hierarchy`.
        hierarchy: Has at most label_keys.MAX_CLASSES classes.

    Returns:
        A list with the same names; the labels of each row are those that `Hierarchy.close` returns,
        with classes ascending.

    Raises:
        IndexError: A class is not in the hierarchy.
    """
    paths = hierarchy.paths()  # [C, D]
    is_class, path_keys = paths >= 0, label_keys.class_keys(paths)

    def close_block(block: LabelList) -> label_keys.RowLabels:
        takes = is_class[block.classes]  # [n, D]
        takes[block.confidences <= 0, 1:] = False  # column 0 is the label itself, which stays
        keys = label_keys.row_keys(label_rows(block), block.confidences)  # [n]
        keys = (path_keys[block.classes] + keys[:, None])[takes]
        return label_keys.unite_labels(keys, num_rows=len(block))

    blocks = iter_blocks(label_list, label_keys.MAX_ROWS)
    return label_keys.relabel(label_list, map(close_block, blocks))
