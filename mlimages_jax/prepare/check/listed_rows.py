# SPDX-License-Identifier: BSD-3-Clause
"""Finds the rows of a label list that belong to a shard, to compare a built set with its list."""

import collections

from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.prepare.check.record import CheckedRecord


class ListedRows:
    """The label list that a split was built from.

    Row i is in shard i modulo the number of shards, unless its image was skipped.

    Args:
        rows: All rows of the list.
        num_shards: Number of shards of the split.
        skipped: Names of images without a record, as written in skipped.tsv.
        closed_over: Hierarchy over which the builder closed the labels; None: it did not.
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
        """Returns the rows of one shard."""
        in_shard = range(number, len(self._rows), self._num_shards)
        named: dict[str, list[dict[int, float]]] = collections.defaultdict(list)
        for name, classes, confidences in map(self._rows.__getitem__, in_shard):
            if one_line(name) not in self._skipped:
                if self._closed_over is not None:
                    classes, confidences = self._closed_over.close(classes, confidences)
                named[name].append(dict(zip(classes.tolist(), confidences.tolist(), strict=True)))
        return ShardRows(named)


class ShardRows:
    """The rows of a shard that are not matched to a record yet; names may repeat."""

    def __init__(self, named: dict[str, list[dict[int, float]]]):
        self._named = named

    def take(self, record: CheckedRecord) -> str | None:
        """Removes the row of a record; returns an error message if the two differ."""
        labels = record.labels
        rows = self._named.get(record.name)
        if not rows:
            return "no row of the list in this shard has this name"
        if labels in rows:
            rows.remove(labels)
            return None
        row = rows.pop()
        differing = sorted(set(labels.items()) ^ set(row.items()))
        return f"its labels differ from the list's, by class and confidence: {differing[:6]}"

    def left(self) -> list[str]:
        """Returns the names of the rows without a record, with repetitions."""
        return [name for name, rows in self._named.items() for _ in rows]
