# SPDX-License-Identifier: BSD-3-Clause
"""A list, the web and the machines, as settings of the model in crawl_model.py."""

import dataclasses
from typing import NamedTuple

import numpy as np

from peers import crawl_model
from peers.crawl_model import Cluster, Hosts, Outcome, Parts, Worker

HOUR, DAY = 3600.0, 86_400.0
ROW_SECONDS = 1 / 769  # of a worker like this machine: data_preparation.md, `download.py`
SCAN_SECONDS = 3.4e-6  # to read a row of a list and see whether it belongs to the part
ML_IMAGES_URLS = 6_902_811 + 38_739
FLICKR_HOSTS = 16
FOREVER = float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A list, the web and the machines; times in seconds.

    Attributes:
        urls: Number of URLs.
        hosts: Number of hosts.
        exponent: Of Zipf's law.
        latency: For which a URL that is answered occupies a connection.
        missing: Fraction of the URLs of answering hosts that are answered with an error.
        silent_every: Every n-th host by rank never answers; 0: all answer.
        silent_seconds: For which a URL of a silent host occupies connections: 3 attempts of 30 s.
        give_up_after: Requests to a silent host before its others are given up; infinity: never.
        image_bytes: Mean size of an image.
        workers: Number of workers.
        parts: Number of parts.
        connections: Per worker.
        per_host: Connections to one host.
        bandwidth: Of a worker, in bytes per second.
        row_seconds: That a URL costs a worker.
        start_seconds: Of a part's process.
        scan_seconds: To read a row of the list; every part reads the list to find its own rows.
        driver_seconds: That the driver needs per part handed out and per result.
        lifetime: Mean lifetime of a worker.
        shard_seconds: After which an unfinished shard is committed.
        longest_first: Hand out long parts first.
        seed: Of the assignment of hosts and of deaths.
    """

    urls: int = 10**9
    hosts: int = 20_000_000
    exponent: float = 1.05
    latency: float = 0.4
    missing: float = 0.13
    silent_every: int = 50
    silent_seconds: float = 90.0
    give_up_after: float = FOREVER
    image_bytes: float = 100_000
    workers: int = 200
    parts: int = 2000
    connections: int = 128
    per_host: int = 16
    bandwidth: float = 125e6
    row_seconds: float = ROW_SECONDS
    start_seconds: float = 5.0
    scan_seconds: float = SCAN_SECONDS
    driver_seconds: float = 0.05
    lifetime: float = DAY
    shard_seconds: float = 600.0
    longest_first: bool = False
    seed: int = 0


ML_IMAGES = Plan(
    urls=ML_IMAGES_URLS, hosts=FLICKR_HOSTS, exponent=0.0, silent_every=0, parts=16, workers=1
)
LISTS = {"web": Plan(), "ml-images": ML_IMAGES}


class Planned(NamedTuple):
    """A plan's parts and its simulated run.

    Attributes:
        parts: The parts.
        outcome: The run.
        shards: Number of shards.
        largest_host: URLs of the host with most.
    """

    parts: Parts
    outcome: Outcome
    shards: int
    largest_host: int


def hosts_of(plan: Plan) -> Hosts:
    """Returns the hosts of a plan."""
    urls = crawl_model.zipf_urls(plan.urls, plan.hosts, exponent=plan.exponent)
    seconds = np.full(plan.hosts, plan.latency)
    stored = urls * (1 - plan.missing)
    if plan.silent_every:
        silent = slice(plan.silent_every - 1, None, plan.silent_every)
        stored[silent] = 0
        asked = np.minimum(urls[silent], plan.give_up_after)
        seconds[silent] = plan.silent_seconds * asked / np.maximum(urls[silent], 1)
    return Hosts(urls, seconds, stored, stored * plan.image_bytes)


def evaluate(plan: Plan) -> Planned:
    """Assigns hosts to parts and simulates the run."""
    hosts = hosts_of(plan)
    worker = Worker(
        row_seconds=plan.row_seconds, connections=plan.connections, per_host=plan.per_host,
        bandwidth=plan.bandwidth,
        start_seconds=plan.start_seconds + plan.urls * plan.scan_seconds,
    )  # fmt: skip
    part = crawl_model.assign(plan.hosts, plan.parts, seed=plan.seed)
    parts = crawl_model.make_parts(hosts, part, count=plan.parts, worker=worker)
    cluster = Cluster(
        workers=plan.workers, driver_seconds=plan.driver_seconds, lifetime=plan.lifetime,
        replace_seconds=300.0, shard_seconds=plan.shard_seconds,
        longest_first=plan.longest_first,
    )  # fmt: skip
    outcome = crawl_model.simulate(parts, cluster, seed=plan.seed)
    shards = int(np.ceil(1 / crawl_model.shard_fractions(parts, cluster)).sum())
    return Planned(parts, outcome, shards, int(hosts.urls[0]))
