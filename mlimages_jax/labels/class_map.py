# SPDX-License-Identifier: BSD-3-Clause
"""Maps classes of one class list to those of another by their WordNet ids."""

import dataclasses

import numpy as np
from absl import logging

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.same_names import SameNames


def map_classes(source: Hierarchy, target: Hierarchy) -> np.ndarray:
    """Maps the classes of one hierarchy to those of another with the same ids.

    Made-up ids are compared as in `same_classes`: equal numbers of classes mean equal classes.

    Args:
        source: Hierarchy to map from, with C classes.
        target: Hierarchy to map to.

    Returns:
        int32 [C], the class of `target` for each class of `source`; -1 if there is none.

    Raises:
        AmbiguousNameError: An id of `source` matches several of `target` in other Unicode forms.
    """
    if source.ids != target.ids and same_classes(source, target):
        return np.arange(len(source), dtype=np.int32)
    index: dict[str | None, int] = {id_: i for i, id_ in enumerate(target.ids)}
    ids = SameNames(target.ids)
    return np.array([index.get(ids.find(id_), -1) for id_ in source.ids], np.int32)


def same_classes(one: Hierarchy, other: Hierarchy) -> bool:
    """Returns whether two class lists have the same classes, by id, in the same order.

    If one of them has made-up ids (lists of words have no others), ids cannot be compared. Then
    lists of equal length are taken for the same classes, with a warning.
    """
    if one.ids == other.ids:
        return True
    if len(one) != len(other) or not (one.has_made_up_ids or other.has_made_up_ids):
        return False
    made_up, real = (one, other) if one.has_made_up_ids else (other, one)
    logging.warning(
        "classes are compared by number only: both lists have %d classes, which are assumed to be "
        "the same in the same order. One list has no WordNet ids; its class 0 is %r, and class 0 "
        "of the other list is %r (%s)",
        len(one), made_up.names[0], real.names[0], real.ids[0],
    )  # fmt: skip
    return True


def replace_classes(label_list: LabelList, table: np.ndarray) -> tuple[LabelList, np.ndarray]:
    """Renumbers the classes of a list and drops labels whose class is unknown.

    Args:
        label_list: Any list; classes beyond the end of the table are unknown too.
        table: int32 [C], from `map_classes`: no class but -1 occurs twice.

    Returns:
        A list with the same rows, the order of the labels kept, and the positions of the dropped
        labels in `label_list.classes`, int64 [n].
    """
    classes = np.full(len(label_list.classes), -1, np.int32)
    inside = label_list.classes < len(table)
    classes[inside] = table[label_list.classes[inside]]
    known = classes >= 0
    # Offsets move back by the number of labels dropped before them.
    known_before = np.concatenate([[0], np.cumsum(known)])  # [nnz + 1]
    replaced = dataclasses.replace(
        label_list,
        offsets=known_before[label_list.offsets],
        classes=classes[known],
        confidences=label_list.confidences[known],
    )
    return replaced, np.flatnonzero(~known)
