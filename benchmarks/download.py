# SPDX-License-Identifier: BSD-3-Clause
"""Claims: 500 images/s on 2 cores with verification; every URL accounted for, in 300 MB.

`speed` downloads good images of 100 kB from a server on this machine: ours, urllib in a pool of
threads as ML-Images' own script did it (decoding every image with Pillow as its check), and
img2dataset where it is installed. In every round each runs alone, in fresh processes. All decode
every image, keep its bytes as received, and write a file for each; img2dataset and ours also
compute its SHA-256. The script's way opens a connection for every image. Starting and ending
count, which for img2dataset are seconds: its own figures leave them out.

`faults` downloads a list of which a fifth fails in 23 ways, over 8 host names, and compares the
manifest with what each URL must give. It runs a tenth of the list and then the list, so that memory
can be seen not to grow. --kills K downloads it once more, into an own folder, and kills the
downloader K times with SIGKILL. In the end the folder and the manifest must agree, and no URL that
had its row at a kill may have been fetched again; `twice a kill` counts the good images that had
none, and were asked for once more.

    python benchmarks/download.py speed --img2dataset-python VENV/bin/python
    python benchmarks/download.py faults --kills 20

The exit code is 1 where something was not as it must be. CPU time and memory are measured on Linux.
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
MAX_BYTES = 1_000_000  # of the faulty list: its endless answers are read up to here
FEWEST_URLS = 1_200  # hold ten placeholders: one content under fewer URLs may be chance
START_SECONDS = 1.0  # until the first image is asked for


class Measurement(NamedTuple):
    """Of one downloader in one round."""

    rate: float  # images per second
    cpu: float  # ms per image
    server_cpu: float  # ms per image
    peak_bytes: int


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--work", type=Path, help="a folder on the disk to measure; else the temporary one"
    )
    commands = parser.add_subparsers(required=True)
    speed_parser = commands.add_parser("speed", help="images per second, against peers")
    speed_parser.set_defaults(run=speed)
    speed_parser.add_argument("--images", type=int, default=5_000)
    speed_parser.add_argument("--rounds", type=int, default=3)
    speed_parser.add_argument("--img2dataset-python", help="an interpreter that has img2dataset")
    faults_parser = commands.add_parser("faults", help="a list of which a fifth fails")
    faults_parser.set_defaults(run=faults)
    faults_parser.add_argument("--urls", type=int, default=100_000)
    faults_parser.add_argument("--kills", type=int, default=0, help="by SIGKILL, at random moments")
    faults_parser.add_argument("--seed", type=int, default=0, help="of these moments")
    return parser.parse_args()


def speed(arguments: argparse.Namespace, work: Path) -> bool:
    """Downloads good images with everybody; prints a table."""
    with ImageServer() as server:
        urls = work / "urls.txt"
        lines = (f"{server.url}/ok/{i}.jpg\n" for i in range(arguments.images))
        urls.write_text("".join(lines), encoding="utf-8")
        output = work / "output"
        commands = speed_commands(urls, output, arguments.img2dataset_python)
        results: dict[str, list[Measurement]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                results[name].append(measure(command, output, arguments.images, server))
                shutil.rmtree(output)
    print(f"{arguments.images:,} images, load at the end {os.getloadavg()[0]:.1f}\n")
    print_speed(results)
    return True


def speed_commands(urls: Path, output: Path, img2dataset: str | None) -> dict[str, list[str]]:
    """The rows of the table and what they run."""
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
    """Our command line."""
    module = [sys.executable, "-m", "mlimages_jax.prepare", "download"]
    return [*module, str(urls), "--output", str(output), "--allow-private", *options]


def measure(command: list[str], output: Path, count: int, server: ImageServer) -> Measurement:
    """Runs a command; all images must be there afterwards."""
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
    """Medians over the rounds; the ratio is the median of the rounds' ratios."""
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
    """Downloads the faulty list; prints what came of it, and whether that is what must be."""
    counts = max(arguments.urls // 10, FEWEST_URLS), arguments.urls
    results = [download_faulty(count, work) for count in counts]
    kinds = results[-1].kinds
    print_table_head("kind of URL", "URLs", "must give", "gave it", "gave something else")
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
        # A run between two kills is this long on average, so that all fall into the download.
        seconds = results[-1].cost.seconds / (arguments.kills + 1)
        good = kills(arguments, work, within=START_SECONDS + seconds) and good
    return good


class FaultyDownload(NamedTuple):
    """What came of a faulty list."""

    urls: int
    cost: Cost
    kinds: dict[str, Counter[str]]
    files_amiss: list[str]

    @property
    def is_good(self) -> bool:
        """Whether all is as it must be."""
        small = self.cost.peak_bytes < MAX_MEMORY
        return small and not self.files_amiss and not faulty_list.surprises(self.kinds)

    def print(self) -> None:
        """A row of the table; below it, the first files that are not as they must be."""
        print_row(
            f"{self.urls:,}", f"{self.cost.seconds:.1f}", f"{self.cost.cpu_seconds:.1f}",
            f"{self.cost.peak_bytes / 1e6:.0f}", faulty_list.surprises(self.kinds),
            len(self.files_amiss),
        )  # fmt: skip
        print("".join(f"    {line}\n" for line in self.files_amiss[:10]), end="")


@contextlib.contextmanager
def faulty_hosts() -> Iterator[tuple[ImageServer, list[str]]]:
    """A server of small images for the hosts of the list, and the options that lead there."""
    with ImageServer(width=160, height=120) as server, socket.socket() as closed:
        closed.bind((HOST, 0))  # and never listens
        nobody = f"{faulty_list.CLOSED_HOST}=http://{HOST}:{closed.getsockname()[1]}"
        options = ["--timeout", "2", "--retries", "1", "--max-bytes", str(MAX_BYTES)]
        yield server, ["--address-map", nobody, f"*.test={server.url}", *options]


def download_faulty(count: int, work: Path) -> FaultyDownload:
    """Downloads the first URLs of the faulty list, into a folder that is removed afterwards."""
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
    """Downloads the list with SIGKILLs on the way; whether folder and manifest agree in the end."""
    rng = random.Random(arguments.seed)
    urls, output = write_faulty_list(arguments.urls, work), work / "killed"
    rows = list(faulty_list.faulty_urls(arguments.urls))
    settled: dict[str, int] = {}  # path -> requests when a kill first found its row
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
    """The first two lines of a table."""
    print_row(*titles)
    print_row("---", *("---:" for _ in titles[1:]))


def print_row(*cells: object) -> None:
    """A line of a table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def main() -> None:
    """Runs one of the two in a folder that is removed afterwards."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        good = arguments.run(arguments, Path(folder))
    sys.exit(not good)


if __name__ == "__main__":
    main()
