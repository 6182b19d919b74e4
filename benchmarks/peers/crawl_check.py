# SPDX-License-Identifier: BSD-3-Clause
"""Downloads whose time the model of crawl_model.py predicts: with sockets, and without."""

import asyncio
import contextlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlimages_jax.engines.local import InProcess
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.prepare.download.engine import Patience
from mlimages_jax.prepare.download.fetch import Fetcher, FetchError, Limits
from mlimages_jax.prepare.download.hosts import part_of
from mlimages_jax.prepare.download.plan import DownloadPlan
from mlimages_jax.prepare.download.shard_job import ShardJob
from peers import faulty_list
from peers.crawl_model import Cluster, Hosts, Worker, make_parts, simulate, zipf_urls

# Seconds for which a URL of these kinds occupies connections, with --timeout 2 --retries 1; see
# image_host.py. The others are answered at once. Pauses between attempts occupy none.
_TIMEOUT = 2.0
OCCUPIES = {"timeout": 2 * _TIMEOUT, "stall": 2 * _TIMEOUT, "slow": 0.45}
LAST_ATTEMPTS = 2 * _TIMEOUT + 1.1  # a list that ends with a silent URL waits for its retry, too
FAULT_OPTIONS = ("--timeout", f"{_TIMEOUT:g}", "--retries", "1", "--max-bytes", "1000000")


class Case(NamedTuple):
    """A download, and what the model needs to know about it.

    Attributes:
        name: What limits it.
        urls: The list, in its order.
        hosts: Host of each URL, a number.
        seconds: For which each URL occupies a connection.
        connections: --connections.
        per_host: --connections-per-host.
        options: Other options of the command.
        tail: Seconds after the last new request that the bounds leave out.
        parts: --shards; 0: into files.
        workers: --workers.
    """

    name: str
    urls: Sequence[str]
    hosts: np.ndarray
    seconds: np.ndarray
    connections: int = 128
    per_host: int = 16
    options: tuple[str, ...] = ()
    tail: float = 0.0
    parts: int = 0
    workers: int = 0

    def predicted(self, *, row_seconds: float, start_seconds: float) -> tuple[float, dict]:
        """Returns the predicted seconds of the command, and the bounds of the longest part."""
        numbers, first = np.unique(self.hosts, return_index=True)
        urls = np.bincount(self.hosts)[numbers]
        occupied = np.bincount(self.hosts, weights=self.seconds)[numbers]
        hosts = Hosts(urls, occupied / urls, urls * 1.0, np.zeros(len(urls)))
        worker = Worker(
            row_seconds=row_seconds, connections=self.connections, per_host=self.per_host
        )
        count = max(self.parts, 1)
        part = np.array([part_of(self.urls[i], count) for i in first])
        parts = make_parts(hosts, part, count=count, worker=worker)
        seconds = simulate(parts, Cluster(workers=max(self.workers, 1), longest_first=True)).seconds
        starts = 2 if self.workers else 1  # workers start once the driver has
        longest = int(np.argmax(parts.seconds))
        return seconds + starts * start_seconds + self.tail, {
            name: float(bound[longest]) for name, bound in parts.bounds.items()
        }


def good(count: int) -> Case:
    """Images that come at once from 16 hosts: the worker itself is the limit."""
    return _of_hosts("worker", np.arange(count) % 16, milliseconds=0)


def late(count: int) -> Case:
    """Images that come after half a second from 40 hosts, on 32 connections."""
    return _of_hosts("connections", np.arange(count) % 40, milliseconds=500, connections=32)


def skewed(count: int) -> Case:
    """Images that come after 0.2 s; 20 hosts by Zipf's law, in random order, 4 connections each."""
    hosts = np.repeat(np.arange(20), zipf_urls(count, 20, exponent=1.0))
    np.random.default_rng(0).shuffle(hosts)
    return _of_hosts("host", hosts, milliseconds=200, per_host=4)


def many_workers(count: int) -> Case:
    """Images that come after 0.2 s from 40 hosts by Zipf's law, in 16 parts by 4 workers."""
    hosts = np.repeat(np.arange(40), zipf_urls(count, 40, exponent=0.7))
    np.random.default_rng(0).shuffle(hosts)
    limits = {"per_host": 4, "parts": 16, "workers": 4}
    return _of_hosts("workers", hosts, milliseconds=200, **limits)


def faulty(count: int) -> Case:
    """The list of which a fifth fails."""
    rows = list(faulty_list.faulty_urls(count))
    names = {name: i for i, name in enumerate(dict.fromkeys(_host(row.url) for row in rows))}
    return Case(
        "faults",
        [row.url for row in rows],
        np.array([names[_host(row.url)] for row in rows]),
        np.array([OCCUPIES.get(row.kind, 0.0) for row in rows]),
        options=FAULT_OPTIONS,
        tail=LAST_ATTEMPTS,
    )


def _host(url: str) -> str:
    return url.split("/")[2]


def _of_hosts(name: str, hosts: np.ndarray, *, milliseconds: int, **limits: Any) -> Case:
    kind = f"after/{milliseconds}" if milliseconds else "ok"
    urls = [f"http://h{host}.test/{kind}/{i}.jpg" for i, host in enumerate(hosts.tolist())]
    return Case(name, urls, hosts, np.full(len(urls), milliseconds / 1000), **limits)


class _NoSockets(Fetcher):
    """Answers every request with 404 at once, without a connection."""

    async def __aenter__(self) -> "_NoSockets":
        return self

    async def __aexit__(self, *_: object) -> None:
        """There is nothing to close."""

    async def fetch(self, url: str, path: Path) -> None:
        """Fails as a request that gets this answer does."""
        await asyncio.sleep(0)
        raise FetchError("http_404", "HTTP 404 Not Found", http_status=404)


def seconds_without_sockets(rows: int, folder: Path) -> float:
    """Returns the time of a download of generated URLs of which none opens a connection.

    What remains is reading the list, the look-ups, the queues and the manifests of image shards.
    """
    path = folder / "urls.txt"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_generated(rows))
    plan = DownloadPlan(
        lists=[path], fetcher=_NoSockets(limits=Limits(), connections=128, user_agent="benchmark"),
        connections=128, per_host=16, patience=Patience(), short_side=None, max_copies=10,
        retry_failed=(), tables=(), order=("list",),
    )  # fmt: skip
    job = ShardJob(plan=plan, folder=ObjectFolder(folder / "output"), parts=1)
    begin = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        job.run(InProcess())
    return time.perf_counter() - begin


def _generated(rows: int) -> Iterator[str]:
    urls = zipf_urls(rows, 1000, exponent=1.0)
    hosts = np.repeat(np.arange(1000), urls)
    np.random.default_rng(0).shuffle(hosts)
    for number, host in enumerate(hosts.tolist()):
        yield f"https://images{host}.test/{number % 9973}/{number:012x}_o.jpg\n"
