# SPDX-License-Identifier: BSD-3-Clause
"""Extracts into image shards: every part takes some inner tars, or files, of all archives."""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from mlimages_jax.data.archives import Archive, Member
from mlimages_jax.data.images.same_software import WithSameSoftware
from mlimages_jax.engines.engine import Engine
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import repeated
from mlimages_jax.image_shards.index import digests, find
from mlimages_jax.image_shards.layout import BY_TAR, Layout, manifest_names, settle_layout
from mlimages_jax.image_shards.manifest_file import ManifestFile
from mlimages_jax.image_shards.writer import FULL
from mlimages_jax.prepare.extract.extraction import Extraction
from mlimages_jax.prepare.extract.finished_tars import line_of
from mlimages_jax.prepare.extract.selection import MISSING, ListedNames, Selection
from mlimages_jax.prepare.extract.tally import Tally
from mlimages_jax.prepare.shard_leftovers import remove_leftovers
from mlimages_jax.prepare.shard_scratch import only_run, scratch_of
from mlimages_jax.prepare.shard_sink import ShardSink, done_before, storing

_NAMES = 1000  # names looked up at a time
_MISSING_PART = "missing"  # its shards have no images


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardExtraction:
    """An extraction into a folder of image shards. May be pickled.

    Attributes:
        archives: Tar files; one that is compressed is decompressed once for every part.
        lists: Label lists that name the images; none: all images.
        folder: The folder, on a disk or in a bucket.
        parts: Number of parts.
        short_side: Shrink larger images to this short side in pixels.
    """

    archives: Sequence[Path]
    lists: Sequence[Path]
    folder: ObjectFolder
    parts: int
    short_side: int | None

    def run(self, engine: Engine) -> list[Tally]:
        """Extracts all parts, and records the names that are in no archive.

        Returns:
            The counts of each archive.

        Raises:
            PrepareError: An archive or a list cannot be used, another command writes to the folder,
                or it cannot be written to.
            ImageShardError: The folder has another number of parts, or a damaged file.
            PartLostError: Several workers died while doing the same part.
        """
        with only_run(self.folder):
            return self._run(engine)

    def _run(self, engine: Engine) -> list[Tally]:
        self._settle_layout()
        tallies = [Tally(path) for path in self.archives]
        part = WithSameSoftware(functools.partial(_extract_part, self, engine.threads))
        for _, some in engine.map_unordered(part, range(self.parts)):
            for tally, more in zip(tallies, some, strict=True):
                tally.add(more)
        if self.lists:
            self._record_missing([tally.damage for tally in tallies if tally.damage])
        with storing(self.folder):
            repeated.judge(self.folder, manifest_names(self.folder), max_copies=0)
            remove_leftovers(self.folder)
        return tallies

    def _settle_layout(self) -> None:
        with storing(self.folder):
            settle_layout(self.folder, Layout(self.parts, BY_TAR))

    def extract_part(self, part: int, *, threads: int) -> list[Tally]:
        """Extracts one part; returns the counts of each archive."""
        # Again: in a bucket, another command may have begun with other parts at the same moment.
        self._settle_layout()
        name = Layout(self.parts, BY_TAR).part_name(part)
        with ExitStack() as stack:
            scratch = stack.enter_context(scratch_of(self.folder, name))
            sink = stack.enter_context(self._sink(name, scratch))
            listed = None
            if self.lists:
                listed = stack.enter_context(ListedNames(self.lists, folder=scratch))
            extraction = Extraction(
                _Unhandled(listed, sink),
                sink,
                _NotedTars(self.folder, name, sink, listed.fingerprint if listed else "everything"),
                scratch=scratch / "extracting",
                short_side=self.short_side,
                workers=threads,
                has=lambda entry: zlib.crc32(entry.encode()) % self.parts == part,
            )
            with extraction:
                return [extraction.take(path) for path in self.archives]

    def _sink(self, part: str, scratch: Path) -> ShardSink:
        return ShardSink(
            self.folder, part, scratch=scratch, full=FULL, max_copies=0,
            is_retried=lambda error: True,
        )  # fmt: skip

    def _record_missing(self, damage: Sequence[str]) -> None:
        message = f"in none of {', '.join(path.name for path in self.archives)}"
        if damage:
            message += f", of which {len(damage)} cannot be read to the end"
        done = done_before(self.folder, "", lambda error: False)
        with (
            scratch_of(self.folder, _MISSING_PART) as scratch,
            self._sink(_MISSING_PART, scratch) as sink,
            ListedNames(self.lists, folder=scratch) as listed,
        ):
            for names in _blocks(listed.missing()):
                places = find(done, digests(names)).tolist()
                for name, place in zip(names, places, strict=True):
                    if place < 0:
                        sink.fail(name, MISSING, message)
                sink.flush(wait=False)
            sink.flush()


class _Unhandled:
    """Wants what a selection wants and no committed shard of the part has; see `Selection`."""

    def __init__(self, listed: Selection | None, sink: ShardSink):
        self._listed, self._sink = listed, sink
        self._failed: set[str] = set()
        self.fingerprint = listed.fingerprint if listed else "everything"

    def claim(self, member: str) -> str | None:
        """See `Selection`."""
        name = self._listed.claim(member) if self._listed else member
        if name is None or name in self._failed:
            return name
        return name if name not in self._sink.pending and self._sink.wanted([name]) else None

    def failed(self, name: str) -> None:
        """See `Selection`."""
        self._failed.add(name)
        if self._listed:
            self._listed.failed(name)


class _NotedTars:
    """The inner tars that a part has finished, as notes in its manifests; see `Finished`."""

    def __init__(self, folder: ObjectFolder, part: str, sink: ShardSink, fingerprint: str):
        self._sink, self._fingerprint = sink, fingerprint
        self._lines = {
            line
            for name in manifest_names(folder, part=part)
            for line in ManifestFile(folder, name).shard.notes
        }

    def __contains__(self, tar: tuple[Archive, Member]) -> bool:
        return line_of(self._fingerprint, *tar) in self._lines

    def add(self, archive: Archive, tar: Member) -> None:
        """Notes an inner tar, with the rows of its images; see `Finished`."""
        self._sink.note(line_of(self._fingerprint, archive, tar))


def _extract_part(job: ShardExtraction, threads: int, part: int) -> list[Tally]:
    return job.extract_part(part, threads=threads)


def _blocks(names: Iterator[str]) -> Iterator[list[str]]:
    while block := list(itertools.islice(names, _NAMES)):
        yield block
