# SPDX-License-Identifier: BSD-3-Clause
"""Collects the shards of a set: reuses those of earlier attempts and writes the others."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mlimages_jax.data.images.same_software import WithSameSoftware
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.labels.rows import take_rows

from . import pace
from .content import Content
from .places import changed_since
from .shards import ShardPlan, ShardWriter, WrittenShard

_THREADS = 32  # that look for finished shards: in a bucket, each look waits for two answers


class ShardStore(Protocol):
    """Where the finished shards of a set are kept: `unfinished.OnDisk`, `bucket.BucketSet`."""

    def other_images_since(self, images: Mapping[str, str], /) -> float | None:
        """Returns when the last attempt began if its image files differ; None if they do not."""
        ...

    def begin(self, inputs: Mapping[str, str], /) -> None:
        """States what the shards are made from, after which those of other inputs are not used."""
        ...

    def write(self, writer: ShardWriter, shard: ShardPlan, /) -> WrittenShard:
        """Writes a shard, in any process; raises OSError."""
        ...

    def load(self, path: Path, /) -> WrittenShard | None:
        """Returns an earlier attempt's shard, or None if it is not complete."""
        ...

    def discard(self, path: Path, /) -> None:
        """Removes a shard, which is then written again."""
        ...


class Part(NamedTuple):
    """The rows of a list that belong to one shard.

    Attributes:
        split: Name of the split.
        path: Path of the shard in the folder of unfinished ones; in a bucket its name.
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
        store: Where finished shards are kept.
        engine: What writes the parts: this process, several, or many machines.
        threads: Number of threads of each process; None: as the engine says.
    """

    writer: ShardWriter
    content: Content
    store: ShardStore
    engine: EngineOptions
    threads: int | None

    def write(self, parts: Sequence[Part]) -> list[WrittenShard]:
        """Writes the parts that earlier attempts did not finish.

        A worker is sent the rows of one shard at a time, some 0.5 MB, so neither this process nor a
        worker holds a second copy of the lists.

        Args:
            parts: All parts of the set.

        Returns:
            All shards, in the order of `parts`.
        """
        finished = {part.path: self._usable(part, shard) for part, shard in self._loaded(parts)}
        left = [part for part in parts if finished[part.path] is None]
        if left:
            self._write(left, finished)
        return [shard for shard in map(finished.get, [part.path for part in parts]) if shard]

    def _write(self, parts: Sequence[Part], finished: dict[Path, WrittenShard | None]) -> None:
        """Writes parts and adds them to `finished`."""
        progress = pace.Pace(sum(len(part.rows) for part in parts))
        with self.engine.open() as engine:
            writer = dataclasses.replace(self.writer, threads=self.threads or engine.threads)
            write = functools.partial(self.store.write, writer)
            shards = map(self._shard, parts)
            for shard, written in engine.map_unordered(WithSameSoftware(write), shards):
                finished[shard.path] = written
                progress.log(shard.path.name, len(shard.rows), len(written.skipped))

    def remove_changed(self, parts: Sequence[Part], time: float) -> None:
        """Removes shards with images that changed since; `write` handles those they skipped."""
        for part, written in self._loaded(parts):
            if written is None:
                continue
            names = {bad.name for bad in written.skipped}
            shard = self._shard(part)
            pairs = zip(shard.rows, shard.places, strict=True)
            if any(changed_since(place, time) for row, place in pairs if row.name not in names):
                self.store.discard(part.path)

    def _loaded(self, parts: Sequence[Part]) -> Iterator[tuple[Part, WrittenShard | None]]:
        """Yields every part with its shard of an earlier attempt."""
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            paths = [part.path for part in parts]
            yield from zip(parts, pool.map(self.store.load, paths), strict=True)

    def _usable(self, part: Part, written: WrittenShard | None) -> WrittenShard | None:
        """Returns an earlier attempt's shard, unless an image it skipped has become usable."""
        if written is None or not written.skipped:
            return written
        names = {bad.name for bad in written.skipped}
        shard = self._shard(part)
        pairs = zip(shard.rows, shard.places, strict=True)
        changed = any(self.writer.usable(*pair) for pair in pairs if pair[0].name in names)
        return None if changed else written

    def _shard(self, part: Part) -> ShardPlan:
        rows = take_rows(self.content.lists[part.split], np.array(part.rows))
        places = self.content.places[part.split]
        where = [places.place(i, row.name) for i, row in zip(part.rows, rows, strict=True)]
        return ShardPlan(part.split, part.path, rows, where)
