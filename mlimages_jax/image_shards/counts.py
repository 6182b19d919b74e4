# SPDX-License-Identifier: BSD-3-Clause
"""Counts the outcomes of a folder of image shards, in memory that its largest part decides.

It is 84 bytes a row of it, or of all parts if these are not divided by host.
"""

import array
import collections
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mlimages_jax.image_shards.index import digests, effective_rows
from mlimages_jax.image_shards.layout import BY_HOST, read_layout
from mlimages_jax.image_shards.manifest_file import Row
from mlimages_jax.image_shards.outcome import OK
from mlimages_jax.image_shards.reader import ShardFolder

Outcome = tuple[Any, ...]  # status, source and error


class Counts(NamedTuple):
    """Counts of the effective rows of a folder.

    Attributes:
        outcomes: Number of names, by status, source and error.
        received: Bytes received of the images that are OK.
    """

    outcomes: collections.Counter[Outcome]
    received: int


def count_outcomes(folder: ShardFolder) -> Counts:
    """Counts the names of a folder, each once.

    Raises:
        ImageShardError: A manifest is damaged.
    """
    outcomes: collections.Counter[Outcome] = collections.Counter()
    received = 0
    # A URL is of one part only, whatever the number of its rows; other names may be of several.
    try:
        by_host = read_layout(folder.place).by == BY_HOST
    except FileNotFoundError:  # somebody copied the shards alone
        by_host = False
    for _, manifests in itertools.groupby(folder.manifests, lambda one: by_host and one.part):
        rows = (row for manifest in manifests for row in folder.rows(manifest))
        some, num_bytes = _count(rows)
        outcomes += some
        received += num_bytes
    return Counts(outcomes, received)


def _count(rows: Iterable[Row]) -> Counts:
    keys, codes = bytearray(), dict[Outcome, int]()
    columns = [array.array("d") for _ in range(4)]  # not tuples, which take 200 bytes a row
    for image, _ in rows:
        outcome = image.status, image.source, image.error
        code = codes.setdefault(outcome, len(codes))
        keys += digests([image.name]).tobytes()
        values = image.status == OK, image.time, code, image.num_bytes or 0
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    if not keys:
        return Counts(collections.Counter(), 0)
    stored, times, numbers, sizes = (np.frombuffer(column) for column in columns)
    effective = effective_rows(np.frombuffer(keys, "S16"), stored, times)
    counts = np.bincount(numbers[effective].astype(np.int64), minlength=len(codes)).tolist()
    found = {outcome: count for outcome, count in zip(codes, counts, strict=True) if count}
    return Counts(collections.Counter(found), int((sizes * stored)[effective].sum()))
