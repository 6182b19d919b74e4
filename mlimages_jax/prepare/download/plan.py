# SPDX-License-Identifier: BSD-3-Clause
"""What a download fetches and how, wherever it puts the images: lists, limits and sources."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from mlimages_jax.files import open_files
from mlimages_jax.files.text_files import check_start
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download.engine import DownloadEngine, Patience
from mlimages_jax.prepare.download.fetch import Fetcher
from mlimages_jax.prepare.download.image_sources import SourceName
from mlimages_jax.prepare.download.open_images_table import OpenImagesTable
from mlimages_jax.prepare.download.url_selection import UrlSelection
from mlimages_jax.prepare.sink import Sink
from mlimages_jax.prepare.storing import StorageError, writing
from mlimages_jax.prepare.url_lists import iter_urls

_FILES_A_CONNECTION = 2  # its socket and the file that arrives
_OTHER_FILES = 256  # libraries, logs, tables, shards, images that are decoded
_RESERVE_BYTES = 4 << 20  # freed at the end, so the last rows can be written to a full disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadPlan:
    """The lists, limits and sources of a download; see the command `download`. May be pickled.

    Attributes:
        lists: URL lists.
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
    fetcher: Fetcher
    connections: int
    per_host: int
    patience: Patience
    short_side: int | None
    max_copies: int
    retry_failed: Sequence[str]
    tables: Sequence[Path]
    order: Sequence[SourceName]

    def check(self) -> None:
        """Checks the lists before anything is created, so that a mistyped name fails at once.

        Raises:
            PrepareError: There is no list, or no URL in the lists.
        """
        if not self.lists:
            raise PrepareError("no URL list given; name at least one file")
        for table in self.tables:
            check_start(table)
        if next(iter_urls(self.lists), None) is None:
            names = ", ".join(map(str, self.lists))
            raise PrepareError(f"{names}: no URLs; each line of a list starts with one")

    def is_retried(self, error: str | None) -> bool:
        """Returns whether failures of earlier runs with this error are to be retried."""
        return "all" in self.retry_failed or error in self.retry_failed

    def fetch(
        self,
        sink: Sink,
        *,
        has: Callable[[str], bool],
        wanted: Callable[[Sequence[str]], Collection[str]],
        scratch: Path,
        index: Path,
        bar: tqdm,
        threads: int | None = None,
    ) -> None:
        """Fetches until everything is done or a SIGINT or SIGTERM arrives; finished work is kept.

        Args:
            sink: Keeps the images and their outcomes.
            has: Returns whether a URL belongs to this job.
            wanted: Returns those of some URLs that are still to be fetched.
            scratch: Folder for files that are arriving; removed before and afterwards.
            index: File for the index of Open Images' table.
            bar: Progress bar to advance.
            threads: Number of threads that verify images; None: one per core.

        Raises:
            PrepareError: The disk cannot be written to, no server answers, or the system does not
                allow so many open files.
            KeyboardInterrupt: A signal arrived.
        """
        self._allow_open_files()
        slots = [scratch / str(i) for i in range(self.connections)]

        async def fetch_all() -> None:
            with ThreadPoolExecutor(threads or os.cpu_count()) as pool, self._table(index) as table:
                async with self.fetcher:
                    engine = DownloadEngine(
                        fetcher=self.fetcher,
                        sink=sink,
                        slots=slots,
                        pool=pool,
                        short_side=self.short_side,
                        per_host=self.per_host,
                        patience=self.patience,
                        bar=bar,
                    )
                    selection = UrlSelection(
                        self.lists, sink, table, self.order, has=has,
                        wanted=lambda urls: wanted([u for u in urls if not engine.is_known(u)]),
                        bar=bar,
                    )  # fmt: skip
                    await engine.run(selection.blocks())

        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed job
        with writing(scratch):
            scratch.mkdir(parents=True)
            # Random bytes, as zeros take no room on file systems that compress.
            (scratch / "reserve").write_bytes(os.urandom(_RESERVE_BYTES))
        try:
            _run_until_signal(fetch_all)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            with contextlib.suppress(StorageError):  # must not hide the first error
                sink.flush()  # the reserve removed above makes room on a full disk

    def _allow_open_files(self) -> None:
        needed = _FILES_A_CONNECTION * self.connections + _OTHER_FILES
        allowed = open_files.allow(needed)
        if allowed < needed:
            raise PrepareError(
                f"--connections {self.connections:,} take {needed:,} open files, but only "
                f"{allowed:,} may be open: raise the limit (ulimit -n) or give fewer connections"
            )

    @contextlib.contextmanager
    def _table(self, index: Path) -> Iterator[OpenImagesTable | None]:
        if not self.tables:
            yield None
            return
        table = OpenImagesTable(self.tables, index)
        try:
            yield table
        finally:
            table.close()


def _run_until_signal(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Runs a coroutine; SIGTERM cancels it, as Ctrl-C does, unless this is not the main thread."""

    async def cancellable() -> None:
        task = asyncio.current_task()
        assert task is not None
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await main()

    try:
        asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
