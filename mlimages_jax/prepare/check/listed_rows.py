# SPDX-License-Identifier: BSD-3-Clause
"""The rows of a label list that belong into a shard, to compare a built set with its list."""

import collections

from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.prepare.check.record import CheckedRecord


class ListedRows:
    """The label list that a split was built from.

    Row i of N is in shard i modulo the number of shards, unless its image was skipped.

    Args:
        rows: all of them.
        num_shards: of the split.
        skipped: names of images without a record, as the table of them has them.
        closed_over: the labels of records are those of the list with all ancestors in this
            hierarchy; None: they are the same.
    """

    def __init__(
        self,
        rows: LabelList,
        *,
        num_shards: int,
        skipped: frozenset[str],
        closed_over: Hierarchy | None,
    ):
        self._rows = rows
        self._num_shards = num_shards
        self._skipped = skipped
        self._closed_over = closed_over

    def of_shard(self, number: int) -> "ShardRows":
        """The rows of one shard."""
        in_shard = range(number, len(self._rows), self._num_shards)
        named: dict[str, list[dict[int, float]]] = collections.defaultdict(list)
        for name, classes, confidences in map(self._rows.__getitem__, in_shard):
            if one_line(name) not in self._skipped:
                if self._closed_over is not None:
                    classes, confidences = self._closed_over.close(classes, confidences)
                named[name].append(dict(zip(classes.tolist(), confidences.tolist(), strict=True)))
        return ShardRows(named)


class ShardRows:
    """The rows of a shard that no record was found for yet; names may repeat."""

    def __init__(self, named: dict[str, list[dict[int, float]]]):
        self._named = named

    def take(self, record: CheckedRecord) -> str | None:
        """Takes away the row of a record; returns what is wrong where they differ."""
        labels = record.labels
        rows = self._named.get(record.name)
        if not rows:
            return "no row of the list that belongs into this shard has this name"
        if labels in rows:
            rows.remove(labels)
            return None
        row = rows.pop()
        differing = sorted(set(labels.items()) ^ set(row.items()))
        return f"its labels differ from the list's, by class and confidence: {differing[:6]}"

    def left(self) -> list[str]:
        """The names of the rows that are left, as often as they are."""
        return [name for name, rows in self._named.items() for _ in rows]
