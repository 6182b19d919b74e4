# SPDX-License-Identifier: BSD-3-Clause
"""Counts the images of a split that have each class."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import DamagedRecordError, RandomAccess, Record, record_at

MAX_IMAGES = 100_000  # all records of a split are read, some ten thousand a second
_THREADS = 32  # records of a set in a bucket take some 20 ms each to arrive


def read_intact(records: RandomAccess, picked: Iterable[int]) -> Iterator[Record]:
    """Yields some records in order; damaged ones are left out."""

    def read(index: int) -> Record | None:
        try:
            return record_at(records, int(index))
        except DamagedRecordError:  # the input of the training counts and reports it
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        for record in pool.map(read, picked):
            if record is not None:
                yield record


def positives_per_class(data: DataSet, split: str, *, threshold: float) -> np.ndarray | None:
    """Counts the images of a split by class, int64 [C].

    Args:
        data: The data set.
        split: Name of the split.
        threshold: Minimum confidence of a positive class.

    Returns:
        None if there is no such split, or it has more than MAX_IMAGES images.
    """
    if split not in data.shards() or data.num_records(split) > MAX_IMAGES:
        return None
    counts = np.zeros(data.num_classes, np.int64)
    records = data.records(split)
    for record in read_intact(records, range(len(records))):
        positive = record.confidences >= np.float32(threshold)  # as metrics.judge rounds it
        np.add.at(counts, record.labels[positive], 1)  # += would count a repeated index once
    return counts
