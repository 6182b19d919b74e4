# SPDX-License-Identifier: BSD-3-Clause
"""Selects the rows of URL lists that still have to be fetched, block by block."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download.image_sources import SourceName, image_sources
from mlimages_jax.prepare.download.open_images_table import OpenImagesTable
from mlimages_jax.prepare.download.pending_image import PendingImage
from mlimages_jax.prepare.sink import Sink
from mlimages_jax.prepare.url_lists import UrlRow, iter_urls

_BLOCK = 500  # rows looked up at once
_BAD_ROWS = 1000  # this many bad rows, and more than good ones: not a URL list


class UrlSelection:
    """The rows still to be fetched; rows that are no URLs become failures.

    Args:
        lists: URL lists.
        sink: Gets the failures.
        table: Open Images' table.
        order: Order of the sources.
        has: Returns whether a URL belongs to this job.
        wanted: Returns those of some URLs that are still to be fetched.
        bar: Progress bar, advanced by the rows that need nothing.
    """

    def __init__(
        self,
        lists: Sequence[Path],
        sink: Sink,
        table: OpenImagesTable | None,
        order: Sequence[SourceName],
        *,
        has: Callable[[str], bool],
        wanted: Callable[[Sequence[str]], Collection[str]],
        bar: tqdm,
    ):
        self._lists, self._sink, self._table, self._order = lists, sink, table, order
        self._has, self._wanted, self._bar = has, wanted, bar
        self._bad = self._good = 0

    def blocks(self) -> Iterator[list[PendingImage]]:
        """Yields blocks of images to fetch.

        Raises:
            PrepareError: Most rows are no URLs.
        """
        rows = iter_urls(self._lists, self._has)
        while block := list(itertools.islice(rows, _BLOCK)):
            chosen = self._choose(block)
            # Rows done earlier go into `initial`: they must not count in the rate.
            self._bar.initial += len(block) - len(chosen)
            self._bar.update(len(block) - len(chosen))
            photos = self._table.find(chosen) if self._table else {}
            yield [
                PendingImage(url, image_sources(url, photos.get(url), self._order), photos.get(url))
                for url in chosen
            ]

    def _choose(self, block: list[UrlRow]) -> list[str]:
        chosen = {}  # a dict keeps the order and drops repeated URLs
        wanted = frozenset(self._wanted([row.url for row in block]))
        for row in block:
            if row.url in wanted and row.error is not None:
                self._refuse(row)
            elif row.url in wanted:
                chosen[row.url] = True
            self._bad += row.error is not None
            self._good += row.error is None
        self._check_rows(block)
        return list(chosen)

    def _refuse(self, row: UrlRow) -> None:
        assert row.error is not None
        self._sink.fail(row.url, row.error, row.message or "")

    def _check_rows(self, block: list[UrlRow]) -> None:
        message = next((row.message for row in reversed(block) if row.error is not None), None)
        if message and self._bad >= _BAD_ROWS and self._bad > self._good:
            raise PrepareError(
                f"{message}. {self._bad:,} rows so far are not URLs: is this a URL list? "
                "Images named by ImageNet ids come from its archives: see `mlimages data extract`"
            )
