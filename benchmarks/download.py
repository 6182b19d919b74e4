# SPDX-License-Identifier: BSD-3-Clause
"""Claims: 500 images/s on 2 cores with verification; every URL accounted for, in 300 MB.

`speed` downloads good images of 100 kB from a server on this machine with three downloaders: ours,
urllib in a thread pool as in ML-Images' own script (which decodes every image with Pillow to check
it), and img2dataset where it is installed. In every round each runs alone, in fresh processes. All
three decode every image, keep the received bytes and write one file per image; img2dataset and ours
also compute the SHA-256. The script opens a connection for every image. Start-up and shutdown are
included; they take img2dataset several seconds, which its own figures leave out.

`faults` downloads a list in which a fifth of the URLs fail in 23 ways, over 8 host names, and
compares the manifest with the expected outcome of each URL. It downloads a tenth of the list and
then all of it, to show that memory does not grow. --kills K downloads the list once more, into a
separate folder, and kills the downloader K times with SIGKILL. At the end the folder and the
manifest must agree, and no URL that had a row at the time of a kill may have been fetched again;
`twice a kill` counts the good images without a row, which were requested once more.

    python benchmarks/download.py speed --img2dataset-python VENV/bin/python --base CHECKOUT
    python benchmarks/download.py faults --kills 20

The exit code is 1 if an outcome was not the expected one. CPU time and memory are measured on
Linux.
"""

import argparse
import contextlib
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
from peers import faulty_list
from peers.command import Command, Cost
from peers.image_server import HOST, ImageServer

BENCHMARKS = Path(__file__).resolve().parent
PEER = "urllib, 64 threads"
CONNECTIONS = 64
MAX_MEMORY = 300_000_000  # bytes
MAX_BYTES = 1_000_000  # where downloads of the faulty list give up on endless responses
FEWEST_URLS = 1_200  # include ten placeholders: fewer equal files may be a coincidence
START_SECONDS = 1.0  # until the first image is requested


class Measurement(NamedTuple):
    """One downloader in one round."""

    rate: float  # images per second
    cpu: float  # ms per image
    server_cpu: float  # ms per image
    peak_bytes: int


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--work", type=Path, help="a folder on the disk to measure; default: temporary"
    )
    commands = parser.add_subparsers(required=True)
    speed_parser = commands.add_parser("speed", help="images per second, against peers")
    speed_parser.set_defaults(run=speed)
    speed_parser.add_argument("--images", type=int, default=5_000)
    speed_parser.add_argument("--rounds", type=int, default=3)
    speed_parser.add_argument("--img2dataset-python", help="an interpreter that has img2dataset")
    speed_parser.add_argument("--base", type=Path, help="a checkout of another commit")
    faults_parser = commands.add_parser("faults", help="a list in which a fifth of the URLs fail")
    faults_parser.set_defaults(run=faults)
    faults_parser.add_argument("--urls", type=int, default=100_000)
    faults_parser.add_argument("--kills", type=int, default=0, help="by SIGKILL, at random moments")
    faults_parser.add_argument("--seed", type=int, default=0, help="seed of these moments")
    return parser.parse_args()


def speed(arguments: argparse.Namespace, work: Path) -> bool:
    """Downloads good images with every downloader and prints a table."""
    with ImageServer() as server:
        urls = work / "urls.txt"
        lines = (f"{server.url}/ok/{i}.jpg\n" for i in range(arguments.images))
        urls.write_text("".join(lines), encoding="utf-8")
        output = work / "output"
        commands = speed_commands(urls, output, arguments.img2dataset_python)
        if arguments.base:
            base = f"PYTHONPATH={arguments.base.resolve()}"
            commands["ours, base"] = ["env", base, *commands["ours"]]
        results: dict[str, list[Measurement]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                results[name].append(measure(command, output, arguments.images, server))
                shutil.rmtree(output)
    print(f"{arguments.images:,} images, load at the end {os.getloadavg()[0]:.1f}\n")
    print_speed(results)
    return True


def speed_commands(urls: Path, output: Path, img2dataset: str | None) -> dict[str, list[str]]:
    """Returns the command of each row of the table."""
    in_all = ["--connections", str(CONNECTIONS), "--connections-per-host", str(CONNECTIONS)]
    commands = {
        "ours": ours(urls, output, *in_all),
        PEER: [
            sys.executable, "-m", "peers.urllib_download", str(urls),
            "--output", str(output), "--threads", "64",
        ],
    }  # fmt: skip
    if img2dataset:
        commands["img2dataset"] = [
            img2dataset, "-m", "img2dataset.main", f"--url_list={urls}",
            f"--output_folder={output}", "--output_format=files", "--resize_mode=no",
            "--skip_reencode=True", f"--processes_count={os.cpu_count()}", "--thread_count=64",
            "--number_sample_per_shard=500",
        ]  # fmt: skip
    return commands


def ours(urls: Path, output: Path, *options: str) -> list[str]:
    """Returns our command line."""
    module = [sys.executable, "-m", "mlimages_jax.prepare", "download"]
    return [*module, str(urls), "--output", str(output), "--allow-private", *options]


def measure(command: list[str], output: Path, count: int, server: ImageServer) -> Measurement:
    """Runs a command and checks that it downloaded every image."""
    process = psutil.Process(server.pid)
    before = process.cpu_times()
    with Command(command, folder=BENCHMARKS) as running:
        cost = running.finish()
        found = sum(1 for path in output.rglob("*.jpg"))
        if found != count:
            raise RuntimeError(f"{found} of {count} images arrived:\n{running.last_lines()}")
    after = process.cpu_times()
    server_seconds = after.user + after.system - before.user - before.system
    ms = 1e3 / count
    return Measurement(
        count / cost.seconds, cost.cpu_seconds * ms, server_seconds * ms, cost.peak_bytes
    )


def print_speed(results: Mapping[str, list[Measurement]]) -> None:
    """Prints medians over the rounds; the ratio is the median of the per-round ratios."""
    print_table_head("", "images/s", "x urllib", "client CPU ms", "server CPU ms", "client MB")
    for name, own in results.items():
        pairs = zip(own, results[PEER], strict=True)
        ratio = statistics.median(mine.rate / other.rate for mine, other in pairs)
        rate, cpu, server_cpu, peak = map(statistics.median, zip(*own, strict=True))
        print_row(
            name, f"{rate:,.0f}", f"{ratio:.2f}", f"{cpu:.2f}", f"{server_cpu:.2f}",
            f"{peak / 1e6:.0f}",
        )  # fmt: skip


def faults(arguments: argparse.Namespace, work: Path) -> bool:
    """Downloads the faulty list; prints the outcomes, and returns whether all were expected."""
    counts = max(arguments.urls // 10, FEWEST_URLS), arguments.urls
    results = [download_faulty(count, work) for count in counts]
    kinds = results[-1].kinds
    print_table_head("kind of URL", "URLs", "expected", "as expected", "other outcomes")
    for kind, found in kinds.items():
        expected = faulty_list.EXPECTED[kind]
        others = ", ".join(f"{n} {name}" for name, n in found.items() if name != expected)
        print_row(kind, f"{found.total():,}", expected, f"{found[expected]:,}", others)
    print()
    print_table_head("URLs", "seconds", "client CPU s", "client MB", "surprises", "files amiss")
    for result in results:
        result.print()
    good = all(result.is_good for result in results)
    if arguments.kills:
        # The average time between two kills, chosen so that all of them hit the download.
        seconds = results[-1].cost.seconds / (arguments.kills + 1)
        good = kills(arguments, work, within=START_SECONDS + seconds) and good
    return good


class FaultyDownload(NamedTuple):
    """The outcome of downloading a faulty list."""

    urls: int
    cost: Cost
    kinds: dict[str, Counter[str]]
    files_amiss: list[str]

    @property
    def is_good(self) -> bool:
        """True if memory, files and every outcome are as expected."""
        small = self.cost.peak_bytes < MAX_MEMORY
        return small and not self.files_amiss and not faulty_list.surprises(self.kinds)

    def print(self) -> None:
        """Prints a row of the table and the first files that disagree with the manifest."""
        print_row(
            f"{self.urls:,}", f"{self.cost.seconds:.1f}", f"{self.cost.cpu_seconds:.1f}",
            f"{self.cost.peak_bytes / 1e6:.0f}", faulty_list.surprises(self.kinds),
            len(self.files_amiss),
        )  # fmt: skip
        print("".join(f"    {line}\n" for line in self.files_amiss[:10]), end="")


@contextlib.contextmanager
def faulty_hosts() -> Iterator[tuple[ImageServer, list[str]]]:
    """Starts a server of small images for the hosts of the list; yields it and its options."""
    with ImageServer(width=160, height=120) as server, socket.socket() as closed:
        closed.bind((HOST, 0))  # never listens, so connections to it are refused
        nobody = f"{faulty_list.CLOSED_HOST}=http://{HOST}:{closed.getsockname()[1]}"
        options = ["--timeout", "2", "--retries", "1", "--max-bytes", str(MAX_BYTES)]
        yield server, ["--address-map", nobody, f"*.test={server.url}", *options]


def download_faulty(count: int, work: Path) -> FaultyDownload:
    """Downloads the first URLs of the faulty list into a folder that is then removed."""
    urls, output = write_faulty_list(count, work), work / "output"
    with (
        faulty_hosts() as (_, options),
        Command(ours(urls, output, *options), folder=BENCHMARKS) as running,
    ):
        cost = running.finish()
    result = FaultyDownload(
        count, cost, faulty_list.outcomes(output, count), faulty_list.files_amiss(output)
    )
    shutil.rmtree(output)
    return result


def write_faulty_list(count: int, work: Path) -> Path:
    """Writes the first URLs of the faulty list."""
    path = work / "urls.txt"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{url}\n" for url, _ in faulty_list.faulty_urls(count))
    return path


def kills(arguments: argparse.Namespace, work: Path, *, within: float) -> bool:
    """Downloads the list despite SIGKILLs; returns whether folder and manifest finally agree."""
    rng = random.Random(arguments.seed)
    urls, output = write_faulty_list(arguments.urls, work), work / "killed"
    rows = list(faulty_list.faulty_urls(arguments.urls))
    settled: dict[str, int] = {}  # path -> requests at the first kill after its row was written
    done = 0
    with faulty_hosts() as (server, options):
        command = ours(urls, output, *options)
        for _ in range(arguments.kills):
            with Command(command, folder=BENCHMARKS) as running:
                done += running.kill_after(rng.uniform(0, 2 * within))
            requests, recorded = server.requests(), faulty_list.recorded_so_far(output)
            for row in rows:
                if row.url in recorded:
                    settled.setdefault(row.path, requests.get(row.path, 0))
        with Command(command, folder=BENCHMARKS) as running:
            running.finish()
        requests = server.requests()
    again = sum(requests.get(path, 0) > count for path, count in settled.items())
    twice = sum(requests[row.path] > 1 for row in rows if row.kind == "ok")
    amiss = faulty_list.files_amiss(output)
    surprises = faulty_list.surprises(faulty_list.outcomes(output, arguments.urls))
    print()
    print_table_head("kills", "surprises", "files amiss", "fetched again", "twice a kill")
    print_row(done, surprises, len(amiss), again, f"{twice / max(done, 1):.0f}")
    print("".join(f"    {line}\n" for line in amiss[:10]), end="")
    return not amiss and not surprises and not again


def print_table_head(*titles: str) -> None:
    """Prints the first two lines of a table."""
    print_row(*titles)
    print_row("---", *("---:" for _ in titles[1:]))


def print_row(*cells: object) -> None:
    """Prints a line of a table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def main() -> None:
    """Runs one of the two benchmarks in a folder that is then removed."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        good = arguments.run(arguments, Path(folder))
    sys.exit(not good)


if __name__ == "__main__":
    main()
