# SPDX-License-Identifier: BSD-3-Clause
"""Collects the shards of a set: reuses those of earlier attempts and writes the others."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlimages_jax.labels.lists import LabelRow

from . import beam, pace, unfinished
from .content import Content
from .places import changed_since
from .shards import ShardPlan, ShardWriter, WrittenShard


class Part(NamedTuple):
    """The rows of a list that belong to one shard.

    Attributes:
        split: Name of the split.
        path: Path of the shard in the folder of unfinished ones.
        rows: Numbers of the rows in the list.
    """

    split: str
    path: Path
    rows: range


@dataclasses.dataclass(frozen=True)
class PartWriter:
    """Writes parts of a set.

    Attributes:
        writer: Writes each part.
        content: The input of the set.
        closed: Whether labels get all ancestors of every class.
    """

    writer: ShardWriter
    content: Content
    closed: bool

    def write(self, parts: Sequence[Part], *, runner: Any, options: Any) -> list[WrittenShard]:
        """Writes the parts that earlier attempts did not finish.

        Args:
            parts: All parts of the set.
            runner: As for `beam.write`; Beam does the work if this or `options` is given.
            options: As for `beam.write`.

        Returns:
            All shards, in the order of `parts`.
        """
        finished = {part.path: self._finished(part) for part in parts}
        left = [part for part in parts if finished[part.path] is None]
        if left and (runner is not None or options is not None):
            beam.write(
                functools.partial(unfinished.write, self.writer),
                (self._shard(part) for part in left),
                scratch=parts[0].path.with_name("beam"), runner=runner, options=options,
            )  # fmt: skip
            finished |= {part.path: unfinished.load(part.path) for part in left}
        progress = pace.Pace(sum(len(part.rows) for part in left))
        written = []
        for part in parts:
            shard = finished[part.path]
            if shard is None:
                shard = unfinished.write(self.writer, self._shard(part))
                progress.log(part.path.name, len(part.rows), len(shard.skipped))
            written.append(shard)
        return written

    def remove_changed(self, parts: Sequence[Part], time: float) -> None:
        """Removes shards with images that changed since; `write` handles those they skipped."""
        for part in parts:
            written = unfinished.load(part.path)
            if written is None:
                continue
            names = {bad.name for bad in written.skipped}
            shard = self._shard(part)
            pairs = zip(shard.rows, shard.places, strict=True)
            if any(changed_since(place, time) for row, place in pairs if row.name not in names):
                part.path.unlink()

    def _finished(self, part: Part) -> WrittenShard | None:
        """Returns an earlier attempt's shard, unless an image it skipped has become usable."""
        written = unfinished.load(part.path)
        if written is None or not written.skipped:
            return written
        names = {bad.name for bad in written.skipped}
        shard = self._shard(part)
        pairs = zip(shard.rows, shard.places, strict=True)
        changed = any(self.writer.usable(*pair) for pair in pairs if pair[0].name in names)
        return None if changed else written

    def _shard(self, part: Part) -> ShardPlan:
        rows = [self.content.lists[part.split][i] for i in part.rows]
        places = self.content.places[part.split]
        where = [places.place(i, row.name) for i, row in zip(part.rows, rows, strict=True)]
        if self.closed:
            close = self.content.hierarchy.close
            rows = [LabelRow(row.name, *close(row.classes, row.confidences)) for row in rows]
        return ShardPlan(part.split, part.path, rows, where)
