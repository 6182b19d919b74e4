# SPDX-License-Identifier: BSD-3-Clause
"""One run of a download into files: its folders, lock and manifest."""

import dataclasses
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from mlimages_jax.image_shards.outcome import FAILED, Image
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare.download.plan import DownloadPlan
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.recorder import Recorder
from mlimages_jax.prepare.storing import writing
from mlimages_jax.prepare.url_lists import UrlPart, count_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadJob:
    """A download into files and a manifest.

    Attributes:
        plan: What to fetch.
        output: Folder of images/, the manifest and, during the run, unfinished/.
        shard: Part of the URLs to fetch.
    """

    plan: DownloadPlan
    output: Path
    shard: UrlPart

    @property
    def manifest_path(self) -> Path:
        """Path of the SQLite file; every shard has its own."""
        return self.output / f"manifest{self._part}.sqlite"

    @property
    def _part(self) -> str:
        part, parts = self.shard
        return "" if parts == 1 else f"-{part:05d}-of-{parts:05d}"

    def run(self) -> None:
        """Fetches until everything is done or a SIGINT or SIGTERM arrives; finished work is kept.

        Raises:
            PrepareError: The lists are empty, another job writes to this folder, the disk cannot be
                written to, or no server answers.
            KeyboardInterrupt: A signal arrived.
        """
        self.plan.check()
        total = count_rows(self.plan.lists) // self.shard.parts
        images = self.output / "images"
        with writing(self.output):
            images.mkdir(parents=True, exist_ok=True)
        with (
            alone(self.manifest_path.with_suffix(".lock")),
            Manifest(self.manifest_path) as manifest,
            progress(total, what="download") as bar,
        ):
            recorder = Recorder(manifest, images, max_copies=self.plan.max_copies)
            recorder.settle()
            self.plan.fetch(
                recorder,
                has=self.shard.has,
                wanted=_Unrecorded(self.plan, manifest),
                scratch=self.output / f"unfinished{self._part}",
                index=self.output / "open_images.sqlite",
                bar=bar,
            )


class _Unrecorded:
    """Returns those of some URLs that have no row, or that of a failure to retry."""

    def __init__(self, plan: DownloadPlan, manifest: Manifest):
        self._plan, self._manifest, self._start = plan, manifest, time.time()

    def __call__(self, urls: Sequence[str]) -> Collection[str]:
        recorded = self._manifest.get(urls)
        return [url for url in urls if self._is_wanted(recorded.get(url))]

    def _is_wanted(self, image: Image | None) -> bool:
        if image is None:
            return True
        # A URL that is listed twice is not retried by the run in which it failed.
        failed_earlier = image.status == FAILED and image.time < self._start
        return failed_earlier and self._plan.is_retried(image.error)
