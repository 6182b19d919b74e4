# SPDX-License-Identifier: BSD-3-Clause
"""The concurrent part of a download: takes rows, makes attempts and retries, records outcomes.

Everything that grows is bounded: rows are pulled as slots become free, so memory does not depend
on the length of the list.
"""

import asyncio
import collections
import dataclasses
import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

from tqdm import tqdm

from mlimages_jax.image_shards.outcome import OK, Image
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download.fetch import Fetcher, FetchError
from mlimages_jax.prepare.download.host_queues import HostQueues
from mlimages_jax.prepare.download.pending_image import PendingImage
from mlimages_jax.prepare.download.silence import Silence
from mlimages_jax.prepare.internal_errors import INTERNAL, InternalErrors, describe
from mlimages_jax.prepare.sink import Kept, Sink
from mlimages_jax.prepare.storing import UnwantedFileError, file_name

SILENT_HOST = "silent_host"  # the error of images that were not tried
_FLUSH_EVERY = 0.5  # seconds; at most this much work is repeated after a kill
_ROWS_PER_SLOT = 20  # rows read ahead, so that other hosts have work while one is slow
_FIRST_PAUSE = 1.0  # seconds before the second attempt; doubles before each further one
_BUSY_IN_A_ROW = 3  # this many busy answers in a row mean a busy host, not a busy image


@dataclasses.dataclass(frozen=True)
class Patience:
    """The rules for retries, and for giving up.

    Attributes:
        retries: Further attempts at a source after a temporary failure.
        max_wait: Longest pause of a host, in seconds; an image whose server asks for a longer one
            fails.
        give_up_after: The job stops after this many attempts in a row without any answer; 0: never.
        host_give_up_after: Images of a host fail untried after this many attempts at it in a row
            without any answer, if other hosts answered meanwhile; 0: never.
    """

    retries: int = 2
    max_wait: float = 60.0
    give_up_after: int = 1000
    host_give_up_after: int = 50


class DownloadEngine:
    """Fetches, verifies and records images, many at a time.

    Args:
        fetcher: An entered `Fetcher`.
        sink: Keeps the images and their outcomes.
        slots: Paths for incoming files, one per concurrent image; where files are kept, on the
            same file system.
        pool: Threads that verify images.
        short_side: Shrink larger images to this short side, see `storing.store`.
        per_host: Maximum number of images of one host in progress.
        patience: When to retry.
        bar: Progress bar to advance.
    """

    def __init__(
        self,
        *,
        fetcher: Fetcher,
        sink: Sink,
        slots: Sequence[Path],
        pool: Executor,
        short_side: int | None,
        per_host: int,
        patience: Patience,
        bar: tqdm,
    ):
        self._fetcher = fetcher
        self._sink = sink
        self._pool = pool
        self._short_side = short_side
        self._patience = patience
        self._bar = bar
        self._queues: HostQueues[PendingImage] = HostQueues(per_host=per_host)
        # A slot is a path and a permission: as many images are in progress as there are slots.
        self._slots: asyncio.Queue[Path] = asyncio.Queue()
        for slot in slots:
            self._slots.put_nowait(slot)
        self._window = _ROWS_PER_SLOT * len(slots)
        self._open: set[str] = set()
        self._closed = asyncio.Event()
        self._busy_answers: collections.Counter[str] = collections.Counter()
        self._silence = Silence(
            host_limit=patience.host_give_up_after, limit=patience.give_up_after
        )
        self._internal = InternalErrors(
            advice=f"then run with --retry-failed {INTERNAL} to retry these images"
        )

    async def run(self, pending: Iterator[list[PendingImage]]) -> None:
        """Processes blocks of images, pulled from the iterator as there is room.

        However it ends, every finished image has been recorded.

        Raises:
            PrepareError: The disk cannot be written to, or no server answers.
        """
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._dispatch(group)),
                    group.create_task(self._flush_now_and_then()),
                ]
                await self._feed(pending)
                for helper in helpers:
                    helper.cancel()
        except* Exception as errors:
            raise errors.exceptions[0] from None  # the others are cancellations it caused
        finally:
            self._sink.flush()

    def is_known(self, url: str) -> bool:
        """Returns whether a URL is in progress, or done but not yet written."""
        return url in self._open or url in self._sink.pending

    async def _feed(self, pending: Iterator[list[PendingImage]]) -> None:
        for block in pending:
            for item in block:
                self._open.add(item.url)
                self._queues.add(item.host, item)
            await self._until(lambda: len(self._open) < self._window)
        await self._until(lambda: not self._open)

    async def _until(self, condition: Callable[[], bool]) -> None:
        await asyncio.sleep(0)  # let other tasks run even if every row is already done
        while not condition():
            self._closed.clear()
            await self._closed.wait()

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        while True:
            # First a slot: an image taken from its queue counts against the limit of its host.
            slot = await self._slots.get()
            host, item = await self._queues.get()
            group.create_task(self._attempt(host, item, slot))

    async def _flush_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY)
            self._sink.flush(wait=False)  # waiting for a lock would stall all transfers
            self._bar.set_postfix(self._sink.written, refresh=False)

    async def _attempt(self, host: str, item: PendingImage, unfinished: Path) -> None:
        try:
            if why := self._silence.skips(host):
                self._fail(host, item, SILENT_HOST, why, delay=None)
                return
            url = item.sources[item.source].url
            await self._fetcher.fetch(url, unfinished)
            item.http_status = 200  # `fetch` accepts no other status
            await self._store(item, unfinished)
            self._heard(host)
        except FetchError as error:
            self._heard(host, error)
            item.http_status = error.http_status
            # No other source is tried: the owner's wish concerns the image, not this copy of it.
            if error.is_refusal:
                item.source = len(item.sources) - 1
            self._fail(host, item, error.error, str(error), delay=self._delay(item, error))
        except UnwantedFileError as error:
            self._heard(host)
            self._fail(host, item, error.reason, str(error), delay=None)
        except PrepareError:
            raise
        except Exception as error:  # unexpected: one item must not stop the others
            self._fail(host, item, INTERNAL, describe(error), delay=None)
            self._internal.add(item.url, describe(error))
        else:
            self._internal.passed()
        finally:
            self._queues.done(host)
            self._slots.put_nowait(unfinished)

    async def _store(self, item: PendingImage, unfinished: Path) -> None:
        file = file_name(item.url)
        keeping = asyncio.get_running_loop().run_in_executor(
            self._pool,
            functools.partial(
                self._sink.keep,
                unfinished,
                file,
                expected=item.sources[item.source].expected,
                short_side=self._short_side,
            ),
        )
        try:
            # Without the shield a cancellation would cancel the future too, which is awaited once
            # more below.
            self._succeed(item, file, await asyncio.shield(keeping))
        except asyncio.CancelledError:
            # The thread cannot be cancelled; record the image that it is about to store.
            self._succeed(item, file, await keeping)
            raise

    def _succeed(self, item: PendingImage, file: str, kept: Kept) -> None:
        self._sink.add(
            Image(
                name=item.url,
                status=OK,
                time=time.time(),
                file=file,
                source=item.sources[item.source].name,
                http_status=item.http_status,
                **kept.stored._asdict(),
                **item.credit,
            ),
            kept,
        )
        self._close(item)

    def _fail(
        self, host: str, item: PendingImage, error: str, message: str, *, delay: float | None
    ) -> None:
        """Retries after `delay` seconds, else tries the next source, else records the failure."""
        item.attempts += 1
        if delay is not None:
            self._queues.add(host, item, delay=delay)
            return
        item.failures.append(f"{item.sources[item.source].name}: {message}")
        if item.source + 1 < len(item.sources):
            item.source += 1
            item.attempts = 0
            self._queues.add(item.host, item)
            return
        # A job killed between storing an image and writing its row leaves an unrecorded file.
        self._sink.discard(file_name(item.url))
        self._sink.fail(
            item.url, error, "; ".join(item.failures), http_status=item.http_status,
            **item.credit,
        )  # fmt: skip
        self._close(item)

    def _close(self, item: PendingImage) -> None:
        self._open.remove(item.url)
        self._bar.update()
        self._closed.set()

    def _delay(self, item: PendingImage, error: FetchError) -> float | None:
        """Returns the seconds until the next attempt, or None if there is none."""
        wait = error.retry_after or 0.0
        patience = self._patience
        if not error.passing or item.attempts >= patience.retries or wait > patience.max_wait:
            return None
        # Random jitter: requests that failed together would otherwise be retried together.
        return max(wait, _FIRST_PAUSE * 2**item.attempts) * random.uniform(1, 1.25)

    def _heard(self, host: str, error: FetchError | None = None) -> None:
        """Tracks busy hosts, which get a pause, silent ones, and a lost network."""
        if error is None or not error.is_busy:
            self._busy_answers.pop(host, None)
        else:
            self._busy_answers[host] += 1
            if self._busy_answers[host] >= _BUSY_IN_A_ROW:
                pause = error.retry_after or _FIRST_PAUSE * self._busy_answers[host]
                self._queues.pause(host, min(pause, self._patience.max_wait))
        if error is not None and error.is_network:
            self._silence.unanswered(host, error)
        else:
            self._silence.answered(host)
