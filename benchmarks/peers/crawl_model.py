# SPDX-License-Identifier: BSD-3-Clause
"""A model of a download by many workers: hosts as fluids, parts as single events.

A list of a billion URLs is not simulated URL by URL. Its hosts are: each has a number of URLs and a
mean time for which one of them occupies a connection. Hosts are assigned to parts by hash, so that
one worker at a time asks a host. Within a part, rows of all hosts flow at constant rates, and the
time of the part is the largest of four lower bounds, each of which some resource imposes:

    worker       URLs x seconds that one costs the worker
    connections  seconds of occupied connections / connections
    host         the same of one host / connections per host, for the host with the largest value
    bandwidth    bytes / bytes per second

A list in random order reaches the largest bound, because the downloader reads a few thousand rows
ahead and serves hosts in turn. Between parts the model is one of discrete events (SimPy): a driver
hands parts to workers and takes their results one at a time, workers die after random lifetimes,
and what they had not committed as a full shard is fetched again.
"""

import itertools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import simpy
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Counts = NDArray[np.int64]
BOUNDS = ("worker", "connections", "host", "bandwidth")


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What one worker can do.

    Attributes:
        row_seconds: Time that a URL costs a worker that waits for nothing.
        connections: Maximum number of connections.
        per_host: Maximum number of connections to one host.
        bandwidth: Bytes per second.
        start_seconds: From being given a part until the first request, and from the last answer
            until the result.
    """

    row_seconds: float
    connections: int
    per_host: int
    bandwidth: float = float("inf")
    start_seconds: float = 0.0


class Hosts(NamedTuple):
    """The hosts of a list, one element each, most URLs first.

    Attributes:
        urls: Number of URLs.
        seconds: Mean time for which one URL occupies a connection, all attempts together.
        stored: URLs that become stored images.
        received: Bytes.
    """

    urls: Counts
    seconds: Floats
    stored: Floats
    received: Floats


class Parts(NamedTuple):
    """The parts of a list, one element each.

    Attributes:
        urls: Number of URLs.
        stored: URLs that become stored images.
        bounds: Lower bounds of the time in seconds, by the names in `BOUNDS`.
        start_seconds: What a part takes beside its largest bound.
    """

    urls: Counts
    stored: Floats
    bounds: dict[str, Floats]
    start_seconds: float = 0.0

    @property
    def seconds(self) -> Floats:
        """The time of each part without deaths."""
        return np.max(list(self.bounds.values()), axis=0) + self.start_seconds

    @property
    def binding(self) -> NDArray[np.int64]:
        """Index in `BOUNDS` of the bound that decides each part's time."""
        return np.argmax([self.bounds[name] for name in BOUNDS], axis=0)


def zipf_urls(total: int, hosts: int, *, exponent: float) -> Counts:
    """Divides URLs among hosts: that of rank r gets a share proportional to r ** -exponent."""
    shares = np.arange(1, hosts + 1, dtype=np.float64) ** -exponent
    stops = np.rint(np.cumsum(shares) * (total / shares.sum())).astype(np.int64)
    return np.diff(stops, prepend=0)


def assign(count: int, parts: int, *, seed: int) -> Counts:
    """Assigns hosts to parts as a hash of their names does: independently and uniformly."""
    return np.random.default_rng(seed).integers(parts, size=count)


def make_parts(hosts: Hosts, part: Counts, *, count: int, worker: Worker) -> Parts:
    """Adds up hosts to parts.

    Args:
        hosts: The hosts.
        part: Part of each host, from 0.
        count: Number of parts.
        worker: What will process them.
    """
    occupied = hosts.urls * hosts.seconds
    longest = np.zeros(count)
    np.maximum.at(longest, part, occupied)
    urls = _sums(part, hosts.urls, count)
    return Parts(
        urls.astype(np.int64),
        _sums(part, hosts.stored, count),
        {
            "worker": urls * worker.row_seconds,
            "connections": _sums(part, occupied, count) / worker.connections,
            "host": longest / worker.per_host,
            "bandwidth": _sums(part, hosts.received, count) / worker.bandwidth,
        },
        worker.start_seconds,
    )


def _sums(part: Counts, values: NDArray[Any], count: int) -> Floats:
    return np.bincount(part, weights=values, minlength=count).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The workers of a run and the rules by which they share the parts.

    Attributes:
        workers: How many run at the same time.
        driver_seconds: Time for which the driver is busy with each part it hands out and each
            result it takes.
        shard_images: A shard is committed after this many images,
        shard_rows: or this many URLs,
        shard_seconds: or this time.
        lifetime: Mean lifetime of a worker in seconds, exponentially distributed; infinity: none
            dies.
        replace_seconds: From the death of a worker until another has taken its place.
        resume_row_seconds: Time to read one committed row when a part is resumed.
        longest_first: Hand out parts in descending order of their time, not in that of the hash.
    """

    workers: int
    driver_seconds: float = 0.0
    shard_images: int = 4096
    shard_rows: int = 32_768
    shard_seconds: float = float("inf")
    lifetime: float = float("inf")
    replace_seconds: float = 0.0
    resume_row_seconds: float = 0.0
    longest_first: bool = False


@dataclass
class Outcome:
    """What a simulated run took.

    Attributes:
        seconds: From the start until the driver has the last result.
        busy: Seconds that workers spent on parts, all workers together.
        lost: Seconds of it whose work was not committed when a worker died.
        deaths: Workers that died while they had a part, by part.
        driver: Seconds for which the driver was busy.
        ends: When each part was done, in seconds since the start, ascending.
    """

    seconds: float = 0.0
    busy: float = 0.0
    lost: float = 0.0
    deaths: Counter[int] = field(default_factory=Counter)
    driver: float = 0.0
    ends: tuple[float, ...] = ()

    def utilisation(self, workers: int) -> float:
        """Returns the fraction of the workers' time that was spent on parts."""
        return self.busy / (self.seconds * workers)


class _Job(NamedTuple):
    part: int
    done: float = 0.0  # fraction of the part that is committed


def shard_fractions(parts: Parts, cluster: Cluster) -> Floats:
    """Returns the fraction of each part after which a shard is complete."""
    seconds = np.maximum(parts.seconds - parts.start_seconds, 1e-9)
    by_images = cluster.shard_images / np.maximum(parts.stored, 1e-9)
    by_rows = cluster.shard_rows / np.maximum(parts.urls, 1)
    return np.minimum(np.minimum(by_images, by_rows), cluster.shard_seconds / seconds)


class Run:
    """A run of all parts on a cluster; `simulate` is the way in.

    Args:
        parts: The parts.
        cluster: Workers and rules.
        lifetimes: Lifetimes of workers in seconds, one after the other.
    """

    def __init__(self, parts: Parts, cluster: Cluster, lifetimes: Iterator[float]):
        self._cluster = cluster
        self._lifetimes = lifetimes
        self._parts = parts
        self._seconds = parts.seconds - parts.start_seconds
        self._shards = shard_fractions(parts, cluster)
        order = np.argsort(-self._seconds, kind="stable") if cluster.longest_first else None
        numbers = range(len(parts.urls)) if order is None else order.tolist()
        self._world = simpy.Environment()
        self._driver = simpy.Resource(self._world)
        self._jobs = simpy.PriorityStore(self._world)  # what was begun comes before what was not
        for place, number in enumerate(numbers):
            self._jobs.put(simpy.PriorityItem((1, place), _Job(number)))
        self._left = len(parts.urls)
        self._ends: list[float] = []
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Runs to the end."""
        workers = [self._world.process(self._work()) for _ in range(self._cluster.workers)]
        self._world.run(self._world.all_of(workers))
        self.outcome.ends = tuple(self._ends)
        self.outcome.seconds = self._ends[-1]
        return self.outcome

    def _work(self) -> Generator[simpy.Event, Any, None]:
        life = next(self._lifetimes)
        while self._left:
            item = yield self._jobs.get()
            job = item.item
            if job is None:  # everything is done
                return
            yield from self._ask_driver()
            needed = self._needed(job)
            if needed <= life:
                yield from self._spend(needed)
                life -= needed
                yield from self._ask_driver()
                self._finish()
                continue
            yield from self._spend(life)
            self._jobs.put(simpy.PriorityItem((0, job.part), self._after_death(job, life)))
            yield self._world.timeout(self._cluster.replace_seconds)
            life = next(self._lifetimes)

    def _ask_driver(self) -> Generator[simpy.Event, Any, None]:
        with self._driver.request() as turn:
            yield turn
            yield self._world.timeout(self._cluster.driver_seconds)
        self.outcome.driver += self._cluster.driver_seconds

    def _spend(self, seconds: float) -> Generator[simpy.Event, Any, None]:
        yield self._world.timeout(seconds)
        self.outcome.busy += seconds

    def _overhead(self, job: _Job) -> float:
        rows = job.done * self._parts.urls[job.part]
        return self._parts.start_seconds + rows * self._cluster.resume_row_seconds

    def _needed(self, job: _Job) -> float:
        return self._overhead(job) + (1 - job.done) * self._seconds[job.part]

    def _after_death(self, job: _Job, life: float) -> _Job:
        """Returns the rest of a part whose worker died after `life` seconds with it."""
        worked = max(0.0, life - self._overhead(job))
        seconds = self._seconds[job.part]
        # A part without URLs is only looked for, and has nothing to commit.
        shards = worked / seconds // self._shards[job.part] if seconds else 0
        committed = job.done + shards * self._shards[job.part]
        self.outcome.deaths[job.part] += 1
        self.outcome.lost += worked - (committed - job.done) * seconds
        return job._replace(done=committed)

    def _finish(self) -> None:
        self._ends.append(self._world.now)
        self._left -= 1
        if not self._left:  # wake the workers that wait for a part
            for number in range(self._cluster.workers):
                self._jobs.put(simpy.PriorityItem((2, number), None))


def simulate(parts: Parts, cluster: Cluster, *, seed: int = 0) -> Outcome:
    """Simulates a run; workers that die do so at random, by the seed."""
    rng = np.random.default_rng(seed)
    lifetimes = (cluster.lifetime * rng.standard_exponential() for _ in itertools.count())
    return Run(parts, cluster, lifetimes).run()
