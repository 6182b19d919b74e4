# SPDX-License-Identifier: BSD-3-Clause
"""A download into image shards: parts by host, which the workers of an engine fetch.

A part asks hosts that no other part asks. Each begins with the names that have no row in a
committed shard, so a part whose worker died is simply done again.
"""

import collections
import dataclasses
import functools

from mlimages_jax.data.images.same_software import WithSameSoftware
from mlimages_jax.engines.engine import Engine
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards import repeated
from mlimages_jax.image_shards.layout import BY_HOST, Layout, manifest_names, settle_layout
from mlimages_jax.image_shards.writer import FULL, Full
from mlimages_jax.monitoring.progress_bar import hidden, progress
from mlimages_jax.prepare.download.hosts import part_of
from mlimages_jax.prepare.download.part_order import longest_first
from mlimages_jax.prepare.download.plan import DownloadPlan
from mlimages_jax.prepare.download.silence import NoAnswerError
from mlimages_jax.prepare.shard_leftovers import remove_leftovers
from mlimages_jax.prepare.shard_scratch import kept_between_parts, only_run, scratch_of
from mlimages_jax.prepare.shard_sink import ShardSink, storing

_OFFLINE = 3  # parts in a row without an answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardJob:
    """A download into a folder of image shards. May be pickled.

    Attributes:
        plan: What to fetch.
        folder: The folder, on a disk or in a bucket.
        parts: Number of parts, of which each is fetched by one worker at a time.
        full: When a shard is complete.
    """

    plan: DownloadPlan
    folder: ObjectFolder
    parts: int
    full: Full = FULL

    def run(self, engine: Engine) -> None:
        """Fetches all parts, then counts the contents that came under many names.

        Raises:
            PrepareError: The lists are empty, another job writes to this folder, it cannot be
                written to, or no host of a part answers; the other parts are fetched first.
            ImageShardError: The folder has another number of parts, or a damaged file.
            PartLostError: Several workers died while doing the same part.
        """
        self.plan.check()
        with only_run(self.folder):
            self._settle_layout()
            unanswered = self._fetch_parts(engine)
            with storing(self.folder):
                names = manifest_names(self.folder)
                repeated.judge(self.folder, names, max_copies=self.plan.max_copies)
                remove_leftovers(self.folder)
        if unanswered:
            raise NoAnswerError(
                f"{len(unanswered)} of {self.parts} parts ended early, all others are done. "
                f"{unanswered[0]}"
            )

    def _settle_layout(self) -> None:
        with storing(self.folder):
            settle_layout(self.folder, Layout(self.parts, BY_HOST))

    def _fetch_parts(self, engine: Engine) -> list[str]:
        """Fetches all parts, long ones first; returns why some of them ended early.

        Raises:
            NoAnswerError: Several in a row did, so it is not their hosts.
        """
        done: collections.Counter[str] = collections.Counter()
        unanswered: list[str] = []
        in_a_row = 0
        part = WithSameSoftware(functools.partial(_fetch_part, self, engine.threads))
        order = longest_first(
            self.plan.lists, self.parts,
            connections=self.plan.connections, per_host=self.plan.per_host,
        )  # fmt: skip
        with progress(self.parts, what="download", unit=" parts") as bar:
            for _, written in engine.map_unordered(part, order):
                if isinstance(written, str):
                    unanswered.append(written)
                    in_a_row += 1
                    if in_a_row == _OFFLINE:
                        raise NoAnswerError(written)
                elif written:  # a part without rows says nothing about the network
                    done.update(written)
                    in_a_row = 0
                bar.update()
                bar.set_postfix(done, refresh=False)
        return unanswered

    def fetch_part(self, part: int, *, threads: int) -> collections.Counter[str]:
        """Fetches one part; returns the number of rows committed, by status."""
        # Again: in a bucket, another command may have begun with other parts at the same moment.
        self._settle_layout()
        name = Layout(self.parts, BY_HOST).part_name(part)
        with (
            scratch_of(self.folder, name) as scratch,
            ShardSink(
                self.folder, name, scratch=scratch, full=self.full,
                max_copies=self.plan.max_copies, is_retried=self.plan.is_retried,
            ) as sink,
            hidden() as bar,
        ):  # fmt: skip
            self.plan.fetch(
                sink,
                has=lambda url: part_of(url, self.parts) == part,
                wanted=sink.wanted,
                scratch=scratch / "arriving",
                index=kept_between_parts(self.folder) / "open_images.sqlite",
                threads=threads,
                bar=bar,
            )
            return sink.written


def _fetch_part(job: ShardJob, threads: int, part: int) -> collections.Counter[str] | str:
    """Fetches a part; returns the rows committed, or why it ended early."""
    try:
        return job.fetch_part(part, threads=threads)
    except NoAnswerError as error:  # perhaps the one host of this part is gone: others go on
        return str(error)
