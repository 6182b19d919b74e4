# SPDX-License-Identifier: BSD-3-Clause
"""One run of a download: its folders, lock, manifest, and which rows are still to be fetched."""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download.engine import DownloadEngine, Patience
from mlimages_jax.prepare.download.fetch import Fetcher
from mlimages_jax.prepare.download.image_sources import SourceName, image_sources
from mlimages_jax.prepare.download.open_images_table import OpenImagesTable
from mlimages_jax.prepare.download.wanted import Wanted
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.manifest import FAILED, Image, Manifest
from mlimages_jax.prepare.recorder import Recorder
from mlimages_jax.prepare.storing import StorageError, writing
from mlimages_jax.prepare.url_lists import Shard, UrlRow, count_rows, iter_urls

_BLOCK = 500  # rows that are looked up in the manifest at once
_RESERVE_BYTES = 4 << 20  # of disk, for the last rows of a manifest when images have filled it
_BAD_ROWS = 1000  # so many, and more than good ones: this is no URL list


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadJob:
    """What is to be fetched, and how; see the command `download` for what the values mean.

    Attributes:
        lists: of URLs.
        output: gets images/, the manifest and, while it runs, unfinished/.
        shard: the part of the URLs.
        fetcher: not yet open.
        connections: open at a time.
        per_host: of these to one host.
        patience: when to try again.
        short_side: of larger images, in pixels; None: as they come.
        max_copies: one content under so many URLs is a placeholder; 0: never.
        retry_failed: errors of earlier runs that are tried again; "all" for any.
        tables: Open Images' CSV files, or none.
        order: of the sources.
    """

    lists: Sequence[Path]
    output: Path
    shard: Shard
    fetcher: Fetcher
    connections: int
    per_host: int
    patience: Patience
    short_side: int | None
    max_copies: int
    retry_failed: Sequence[str]
    tables: Sequence[Path]
    order: Sequence[SourceName]

    @property
    def manifest_path(self) -> Path:
        """Of the SQLite file; every part of a list has one of its own."""
        return self.output / f"manifest{self._part}.sqlite"

    @property
    def _part(self) -> str:
        part, parts = self.shard
        return "" if parts == 1 else f"-{part:05d}-of-{parts:05d}"

    def run(self) -> None:
        """Fetches until all is done, or SIGINT or SIGTERM comes; what is complete is recorded.

        Raises:
            PrepareError: another job writes here, nothing can be stored, or nobody answers.
            KeyboardInterrupt: after a signal.
        """
        if not self.lists:
            raise PrepareError("no list of URLs is given; name at least one file")
        total = count_rows(self.lists) // self.shard.parts  # a wrong name shows before all else
        images, unfinished = self.output / "images", self.output / f"unfinished{self._part}"
        with writing(self.output):
            images.mkdir(parents=True, exist_ok=True)
        with (
            alone(self.manifest_path.with_suffix(".lock")),
            Manifest(self.manifest_path) as manifest,
            ThreadPoolExecutor(os.cpu_count()) as pool,
            progress(total, what="download") as bar,
        ):
            recorder = Recorder(manifest, images, max_copies=self.max_copies)
            recorder.settle()
            shutil.rmtree(unfinished, ignore_errors=True)  # of a job that was killed
            with writing(unfinished):
                unfinished.mkdir()
                (unfinished / "reserve").write_bytes(os.urandom(_RESERVE_BYTES))
            slots = [unfinished / str(i) for i in range(self.connections)]
            try:
                _run_until_signal(
                    functools.partial(self._fetch_all, manifest, recorder, images, slots, pool, bar)
                )
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
                with contextlib.suppress(StorageError):  # it would hide the first error
                    recorder.flush()  # on a full disk the reserve has just made room for these

    async def _fetch_all(
        self,
        manifest: Manifest,
        recorder: Recorder,
        images: Path,
        slots: list[Path],
        pool: ThreadPoolExecutor,
        bar: tqdm,
    ) -> None:
        async with self.fetcher:
            engine = DownloadEngine(
                fetcher=self.fetcher,
                recorder=recorder,
                images=images,
                slots=slots,
                pool=pool,
                short_side=self.short_side,
                per_host=self.per_host,
                patience=self.patience,
                bar=bar,
            )
            with self._table() as table:
                selection = _Selection(self, manifest, recorder, table, engine.is_known, bar)
                await engine.run(selection.blocks())

    @contextlib.contextmanager
    def _table(self) -> Iterator[OpenImagesTable | None]:
        if not self.tables:
            yield None
            return
        table = OpenImagesTable(self.tables, self.output / "open_images.sqlite")
        try:
            yield table
        finally:
            table.close()


class _Selection:
    """The rows of the lists that are still to be fetched, block by block."""

    def __init__(
        self,
        job: DownloadJob,
        manifest: Manifest,
        recorder: Recorder,
        table: OpenImagesTable | None,
        is_known: Callable[[str], bool],
        bar: tqdm,
    ):
        self._job = job
        self._manifest = manifest
        self._recorder = recorder
        self._table = table
        self._is_known = is_known
        self._bar = bar
        self._start = time.time()
        self._bad = self._good = 0

    def blocks(self) -> Iterator[list[Wanted]]:
        shard = self._job.shard
        rows = (row for row in iter_urls(self._job.lists) if shard.has(row.url))
        while block := list(itertools.islice(rows, _BLOCK)):
            chosen = self._choose(block)
            self._bar.initial += len(block) - len(chosen)  # counts in no rate
            self._bar.update(len(block) - len(chosen))
            photos = self._table.find(chosen) if self._table else {}
            yield [
                Wanted(url, image_sources(url, photos.get(url), self._job.order), photos.get(url))
                for url in chosen
            ]

    def _choose(self, block: list[UrlRow]) -> list[str]:
        recorded = self._manifest.get([row.url for row in block])
        chosen = {}  # a dictionary keeps the order, and repeated URLs once
        for row in block:
            if row.error is not None:
                self._refuse(row)
            elif not self._is_known(row.url) and self._is_wanted(recorded.get(row.url)):
                chosen[row.url] = True
            self._good += row.error is None
        return list(chosen)

    def _is_wanted(self, image: Image | None) -> bool:
        if image is None:
            return True
        retry = self._job.retry_failed
        failed_earlier = image.status == FAILED and image.time < self._start
        return failed_earlier and ("all" in retry or image.error in retry)

    def _refuse(self, row: UrlRow) -> None:
        assert row.error is not None
        self._recorder.fail(row.url, row.error, row.message or "")
        self._bad += 1
        if self._bad >= _BAD_ROWS and self._bad > self._good:
            raise PrepareError(
                f"{row.message}. {self._bad:,} rows so far are no URLs: is this a list of URLs? "
                "Images with ImageNet ids come out of its archives: see `extract`"
            )


def _run_until_signal(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Runs a coroutine; SIGTERM ends it as Ctrl-C does, by cancelling it."""

    async def cancellable() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await main()

    try:
        asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
