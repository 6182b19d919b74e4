# SPDX-License-Identifier: BSD-3-Clause
"""One run of a download: its folders, lock, manifest, and the selection of rows to fetch."""

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

from mlimages_jax.files.text_files import check_start
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download.engine import DownloadEngine, Patience
from mlimages_jax.prepare.download.fetch import Fetcher
from mlimages_jax.prepare.download.image_sources import SourceName, image_sources
from mlimages_jax.prepare.download.open_images_table import OpenImagesTable
from mlimages_jax.prepare.download.pending_image import PendingImage
from mlimages_jax.prepare.locking import alone
from mlimages_jax.prepare.manifest import FAILED, Image, Manifest
from mlimages_jax.prepare.recorder import Recorder
from mlimages_jax.prepare.storing import StorageError, writing
from mlimages_jax.prepare.url_lists import UrlPart, UrlRow, count_rows, iter_urls

_BLOCK = 500  # rows looked up in the manifest at once
_RESERVE_BYTES = 4 << 20  # freed at the end, so the last rows can be written to a full disk
_BAD_ROWS = 1000  # this many bad rows, and more than good ones: not a URL list


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadJob:
    """The lists, folders, limits and sources of a download; see the command `download`.

    Attributes:
        lists: URL lists.
        output: Folder of images/, the manifest and, during the run, unfinished/.
        shard: Part of the URLs to fetch.
        fetcher: A `Fetcher` that is not entered yet.
        connections: Maximum number of open connections.
        per_host: Maximum number of connections to one host.
        patience: When to retry.
        short_side: Short side to shrink larger images to, in pixels; None: keep them.
        max_copies: The same bytes under this many URLs are a placeholder; 0 turns this off.
        retry_failed: Errors of earlier runs to retry; "all" for any.
        tables: Open Images' CSV files; may be empty.
        order: Order of the sources.
    """

    lists: Sequence[Path]
    output: Path
    shard: UrlPart
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
        if not self.lists:
            raise PrepareError("no URL list given; name at least one file")
        # Before anything else, so that a mistyped name fails at once.
        for table in self.tables:
            check_start(table)
        total = count_rows(self.lists) // self.shard.parts
        if next(iter_urls(self.lists), None) is None:
            names = ", ".join(map(str, self.lists))
            raise PrepareError(f"{names}: no URLs; each line of a list starts with one")
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
            shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed job
            with writing(unfinished):
                unfinished.mkdir()
                # Random bytes, as zeros take no room on file systems that compress.
                (unfinished / "reserve").write_bytes(os.urandom(_RESERVE_BYTES))
            slots = [unfinished / str(i) for i in range(self.connections)]
            try:
                _run_until_signal(
                    functools.partial(self._fetch_all, manifest, recorder, images, slots, pool, bar)
                )
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
                with contextlib.suppress(StorageError):  # must not hide the first error
                    recorder.flush()  # the reserve removed above makes room on a full disk

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
    """Yields the rows of the lists that still have to be fetched, block by block."""

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

    def blocks(self) -> Iterator[list[PendingImage]]:
        shard = self._job.shard
        rows = (row for row in iter_urls(self._job.lists) if shard.has(row.url))
        while block := list(itertools.islice(rows, _BLOCK)):
            chosen = self._choose(block)
            # Rows done earlier go into `initial`: they must not count in the rate.
            self._bar.initial += len(block) - len(chosen)
            self._bar.update(len(block) - len(chosen))
            photos = self._table.find(chosen) if self._table else {}
            yield [
                PendingImage(
                    url, image_sources(url, photos.get(url), self._job.order), photos.get(url)
                )
                for url in chosen
            ]

    def _choose(self, block: list[UrlRow]) -> list[str]:
        recorded = self._manifest.get([row.url for row in block])
        chosen = {}  # a dict keeps the order and drops repeated URLs
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
        # A URL that is listed twice is not retried by the run in which it failed.
        failed_earlier = image.status == FAILED and image.time < self._start
        return failed_earlier and ("all" in retry or image.error in retry)

    def _refuse(self, row: UrlRow) -> None:
        assert row.error is not None
        self._recorder.fail(row.url, row.error, row.message or "")
        self._bad += 1
        if self._bad >= _BAD_ROWS and self._bad > self._good:
            raise PrepareError(
                f"{row.message}. {self._bad:,} rows so far are not URLs: is this a URL list? "
                "Images named by ImageNet ids come from its archives: see `mlimages data extract`"
            )


def _run_until_signal(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Runs a coroutine; SIGTERM cancels it, as Ctrl-C does."""

    async def cancellable() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await main()

    try:
        asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
