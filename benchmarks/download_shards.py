# SPDX-License-Identifier: BSD-3-Clause
"""Claims: four workers fetch into image shards three times as fast as one; kills lose nothing.

Downloads a list of which a fifth fails in 23 ways, over many host names, into image shards: with
one worker, with several, and with several of which some are killed by SIGKILL at random moments. A
server on this machine plays the hosts and answers after `--latency` seconds on average, so that
neither it nor the cores are the limit but, as on the web, the time of an answer and the connections
of a worker. The columns show it: the share of all connections that waited for an answer, and the
cores that clients and server used.

Afterwards every URL must have exactly one effective row, with the outcome of its kind; every stored
image must have the bytes that the server sent; and by the server's log no host may have been asked
by two workers at the same time. If a part loses three workers, the download ends; the same command
is then given again, as a user would, and its time counts.

    python benchmarks/download_shards.py --urls 100000 --workers 4 --kills 10

The exit code is 1 if a check failed. Linux only.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from download import MAX_BYTES, print_row, print_table_head
from peers import faulty_list
from peers.command import Command, Cost
from peers.image_server import HOST, ImageServer
from peers.served_images import Images

from mlimages_jax.image_shards.index import Index
from mlimages_jax.image_shards.reader import RecordPlace, ShardFolder

BENCHMARKS = Path(__file__).resolve().parent
SIZE = {"bases": 8, "width": 160, "height": 120}  # of the images
SAMPLE_SECONDS = 0.25  # between two looks at which worker has which connection
START_SECONDS = 3.0  # until workers are there to be killed


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, help="a folder on the disk to use; default: temporary")
    parser.add_argument("--urls", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--parts", type=int, default=32, help="value of --shards")
    parser.add_argument("--hosts", type=int, default=256)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.3, help="mean seconds until an answer")
    parser.add_argument("--connections", type=int, default=32, help="of each worker")
    parser.add_argument("--no-single", action="store_true", help="not with one worker")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    return parser.parse_args()


class Workers:
    """The worker processes of a running download: which connections they have, and kills.

    Args:
        driver: Process id of the download.
        server: The server's port.
    """

    def __init__(self, driver: int, server: int):
        self._driver, self._server = driver, server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.owners: dict[int, list[tuple[float, int]]] = defaultdict(list)

    def __enter__(self) -> "Workers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def kill_one(self, rng: random.Random) -> bool:
        """Kills a random worker; returns False if there is none."""
        with contextlib.suppress(psutil.Error, IndexError, ProcessLookupError):
            os.kill(rng.choice(self._processes()).pid, signal.SIGKILL)
            return True
        return False

    def _processes(self) -> list[psutil.Process]:
        children = psutil.Process(self._driver).children()
        return [one for one in children if "spawn_main" in " ".join(one.cmdline())]

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            with contextlib.suppress(psutil.Error):
                for process in self._processes():
                    for one in process.net_connections("tcp4"):
                        if one.raddr and one.raddr.port == self._server:
                            self.owners[one.laddr.port].append((time.time(), process.pid))


class Outcome(NamedTuple):
    """A download, and what is wrong with it.

    Attributes:
        name: Name of the row.
        cost: Its cost.
        server_cpu: CPU seconds of the server.
        waiting: Number of requests in flight, on average.
        kills: Number of workers killed.
        starts: How often the command was given.
        surprises: URLs without exactly one row, or with an unexpected outcome.
        wrong: Images whose bytes are not those that were sent.
        together: Hosts that two workers asked at the same time.
        unknown: Fraction of requests whose worker is not known.
        again: Images that were requested more than once.
    """

    name: str
    cost: Cost
    server_cpu: float
    waiting: float
    kills: int
    starts: int
    surprises: int
    wrong: int
    together: int
    unknown: float
    again: int


class Killer(threading.Thread):
    """Kills a worker at each of some moments while the download runs.

    Args:
        workers: The workers.
        moments: The moments, by `time.monotonic`.
        rng: Chooses the worker.
    """

    def __init__(self, workers: Workers, moments: Sequence[float], rng: random.Random):
        super().__init__(daemon=True)
        self._workers, self._moments, self._rng = workers, sorted(moments), rng
        self.ended = threading.Event()
        self.kills = 0

    def run(self) -> None:
        """Waits for each moment, and then for a worker."""
        for moment in self._moments:
            if self.ended.wait(max(0.0, moment - time.monotonic())):
                return
            while not self._workers.kill_one(self._rng):
                if self.ended.wait(SAMPLE_SECONDS):
                    return
            self.kills += 1


def download(
    name: str, arguments: argparse.Namespace, work: Path, *, workers: int, moments: Sequence[float]
) -> Outcome:
    """Downloads the list, kills a worker at each of the moments, and checks the result.

    Args:
        name: Name of the row.
        arguments: The command line.
        work: Folder of the list and the output.
        workers: Number of workers.
        moments: When to kill one, in seconds from the start of the first command.
    """
    output = work / "output"
    rng = random.Random(arguments.seed)
    with faulty_hosts(arguments.latency) as (server, options):
        command = [
            sys.executable, "-m", "mlimages_jax.prepare", "download", str(work / "urls.txt"),
            "--output", str(output), "--shards", str(arguments.parts), "--workers", str(workers),
            "--connections", str(arguments.connections),
            "--connections-per-host", str(arguments.connections), "--allow-private", *options,
        ]  # fmt: skip
        costs, kills, owners = [], 0, dict[int, list[tuple[float, int]]]()
        before = psutil.Process(server.pid).cpu_times()
        start = time.monotonic()
        for _ in range(1 + len(moments)):
            with (
                Command(command, folder=BENCHMARKS) as running,
                Workers(running.pid, server.port) as processes,
            ):
                killer = Killer(processes, [start + one for one in moments[kills:]], rng)
                killer.start()
                cost, lines = running.end()
                killer.ended.set()
            costs.append(cost)
            kills += killer.kills
            for port, seen in processes.owners.items():
                owners.setdefault(port, []).extend(seen)
            if "workers died while working" not in lines:
                break
        after = psutil.Process(server.pid).cpu_times()
        log, requests = server.log(), server.requests()
    if "images downloaded" not in lines:
        raise RuntimeError(f"the download failed:\n{lines}")
    total = Cost(*(sum(one) for one in zip(*costs, strict=True)))
    surprises, wrong = check(output, arguments)
    together, unknown = asked_together(log, owners)
    paths = [row.path for row in faulty_urls(arguments) if row.kind == "ok"]
    shutil.rmtree(output)
    return Outcome(
        name,
        total._replace(peak_bytes=max(cost.peak_bytes for cost in costs)),
        after.user + after.system - before.user - before.system,
        sum((one["end"] or one["start"]) - one["start"] for one in log) / total.seconds,
        kills, len(costs), surprises, wrong, together, unknown,
        sum(requests.get(path, 0) > 1 for path in paths),
    )  # fmt: skip


@contextlib.contextmanager
def faulty_hosts(latency: float) -> Iterator[tuple[ImageServer, list[str]]]:
    """Starts a server of small images for the hosts of the list; yields it and its options."""
    with ImageServer(**SIZE, latency=latency) as server, socket.socket() as closed:
        closed.bind((HOST, 0))  # never listens, so connections to it are refused
        nobody = f"{faulty_list.CLOSED_HOST}=http://{HOST}:{closed.getsockname()[1]}"
        # All URLs are tried: the host that refuses connections would count as silent at some point.
        options = ["--timeout", "2", "--retries", "1", "--max-bytes", str(MAX_BYTES),
                   "--host-give-up-after", "0"]  # fmt: skip
        yield server, ["--address-map", nobody, f"*.test={server.url}", *options]


def faulty_urls(arguments: argparse.Namespace) -> Iterator[faulty_list.FaultyUrl]:
    """Yields the rows of the list."""
    return faulty_list.faulty_urls(arguments.urls, hosts=arguments.hosts)


def check(output: Path, arguments: argparse.Namespace) -> tuple[int, int]:
    """Returns the numbers of URLs with an unexpected outcome, and of images with wrong bytes."""
    folder, served = ShardFolder(output), Images(**SIZE)
    wrong = 0
    for manifest in folder.manifests:
        path = folder.place.path(manifest.records)
        for image, record in folder.rows(manifest):
            if record is not None:
                name, data = RecordPlace(path, record).read()
                kind = image.name.split("/")[3]
                good = served.jpeg(f"/{kind}/{name.rpartition('/')[2]}") if kind == "ok" else data
                wrong += (name, data) != (image.name, good)
                wrong += hashlib.sha256(data).digest() != image.sha256
    rows = (row.image for manifest in folder.manifests for row in folder.rows(manifest))
    surprises = 0
    with Index(rows) as index:
        for url, kind in faulty_urls(arguments):
            found = index.get([url]).get(url)
            outcome = None if found is None else found.error or found.status
            surprises += outcome != faulty_list.EXPECTED[kind]
        surprises += abs(len(index) - arguments.urls)  # names that are not in the list
    return surprises, wrong


def asked_together(
    log: Sequence[dict[str, Any]], owners: dict[int, list[tuple[float, int]]]
) -> tuple[int, float]:
    """Returns the number of hosts that two workers asked at once, and the unknown fraction."""
    lifetimes: dict[int, list[float]] = {}
    for one in log:
        lifetimes.setdefault(one["connection"], [one["start"], 0.0])[1] = one["end"] or one["start"]
    by_host: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    unknown = 0
    for one in log:
        start, end = lifetimes[one["connection"]]
        # Only looks at this very connection count: another worker may have had the port before.
        pids = {pid for when, pid in owners.get(one["port"], ()) if start <= when <= end}
        if len(pids) != 1 or one["end"] is None:
            unknown += 1
            continue
        by_host[one["host"]] += [(one["start"], 1, *pids), (one["end"], -1, *pids)]
    together = 0
    for events in by_host.values():
        active: Counter[int] = Counter()
        for _, change, pid in sorted(events):
            active[pid] += change
            if len(+active) > 1:
                together += 1
                break
    return together, unknown / max(len(log), 1)


def main() -> None:
    """Runs the three downloads and prints a table."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        with (work / "urls.txt").open("w", encoding="utf-8") as file:
            file.writelines(f"{row.url}\n" for row in faulty_urls(arguments))
        many = f"{arguments.workers} workers"
        outcomes = []
        if not arguments.no_single:
            outcomes.append(download("1 worker", arguments, work, workers=1, moments=()))
        outcomes.append(download(many, arguments, work, workers=arguments.workers, moments=()))
        if arguments.kills:
            rng, seconds = random.Random(arguments.seed), outcomes[-1].cost.seconds
            moments = [rng.uniform(START_SECONDS, seconds) for _ in range(arguments.kills)]
            name = f"{many}, kills"
            outcomes.append(
                download(name, arguments, work, workers=arguments.workers, moments=sorted(moments))
            )
    print_outcomes(outcomes, arguments)
    sys.exit(any(one.surprises or one.wrong or one.together for one in outcomes))


def print_outcomes(outcomes: Sequence[Outcome], arguments: argparse.Namespace) -> None:
    """Prints the speeds, and what was checked."""
    cores = os.cpu_count() or 1
    slots = [
        arguments.connections * (1 if one.name == "1 worker" else arguments.workers)
        for one in outcomes
    ]
    print(f"{arguments.urls:,} URLs, load at the end {os.getloadavg()[0]:.1f}\n")
    print_table_head(
        "", "seconds", "URLs/s", f"x {outcomes[0].name}", "connections waiting", "client cores",
        "server cores", "client MB",
    )  # fmt: skip
    for one, slot in zip(outcomes, slots, strict=True):
        seconds = one.cost.seconds
        print_row(
            one.name, f"{seconds:.0f}", f"{arguments.urls / seconds:,.0f}",
            f"{outcomes[0].cost.seconds / seconds:.2f}", f"{one.waiting / slot:.0%}",
            f"{one.cost.cpu_seconds / seconds:.2f} of {cores}", f"{one.server_cpu / seconds:.2f}",
            f"{one.cost.peak_bytes / 1e6:.0f}",
        )  # fmt: skip
    print()
    print_table_head(
        "", "kills", "commands", "surprises", "wrong bytes", "hosts asked by two", "worker unknown",
        "images asked again",
    )  # fmt: skip
    for one in outcomes:
        print_row(
            one.name, one.kills, one.starts, one.surprises, one.wrong, one.together,
            f"{one.unknown:.1%}", f"{one.again:,}",
        )  # fmt: skip


if __name__ == "__main__":
    main()
