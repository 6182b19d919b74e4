# SPDX-License-Identifier: BSD-3-Clause
"""Classes of one category file as classes of another: the same WordNet id is the same class."""

import dataclasses

import numpy as np
from absl import logging

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.same_names import SameNames


def map_classes(source: Hierarchy, target: Hierarchy) -> np.ndarray:
    """Returns int32 [classes of source]: the class of `target` with the same id, -1 if none has.

    Made-up ids are compared as by `same_classes`: as many classes are the same in the same order.

    Raises:
        AmbiguousNameError: an id of `source` is the same as several of `target`, and equal to none.
    """
    if source.ids != target.ids and same_classes(source, target):
        return np.arange(len(source), dtype=np.int32)
    index: dict[str | None, int] = {id_: i for i, id_ in enumerate(target.ids)}
    ids = SameNames(target.ids)
    return np.array([index.get(ids.find(id_), -1) for id_ in source.ids], np.int32)


def same_classes(one: Hierarchy, other: Hierarchy) -> bool:
    """Whether two category files list the same classes in the same order: the same ids.

    Where one of them has made-up ids (a list of words has no others) these say nothing: as many
    classes are taken for the same, with a warning, as far as anybody can tell.
    """
    if one.ids == other.ids:
        return True
    if len(one) != len(other) or not (one.has_made_up_ids or other.has_made_up_ids):
        return False
    made_up, real = (one, other) if one.has_made_up_ids else (other, one)
    logging.warning(
        "classes are compared by their number alone, %d, and taken for the same in the same order: "
        "one list has no WordNet ids, its class 0 is %r, that of the other %r (%s)",
        len(one), made_up.names[0], real.names[0], real.ids[0],
    )  # fmt: skip
    return True


def replace_classes(label_list: LabelList, table: np.ndarray) -> tuple[LabelList, np.ndarray]:
    """Renumbers the classes of a list and leaves out the labels whose class is unknown.

    Args:
        label_list: any; a class that is beyond the end of the table is unknown too.
        table: int32 [C], as `map_classes` gives it: no class but -1 occurs twice.

    Returns:
        A list with the same rows, the order of the labels kept, and the positions of the labels
        that were left out, in `label_list.classes`, int64 [n].
    """
    classes = np.full(len(label_list.classes), -1, np.int32)
    inside = label_list.classes < len(table)
    classes[inside] = table[label_list.classes[inside]]
    known = classes >= 0
    known_before = np.concatenate([[0], np.cumsum(known)])  # [nnz + 1]
    replaced = dataclasses.replace(
        label_list,
        offsets=known_before[label_list.offsets],
        classes=classes[known],
        confidences=label_list.confidences[known],
    )
    return replaced, np.flatnonzero(~known)
