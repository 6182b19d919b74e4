# SPDX-License-Identifier: BSD-3-Clause
"""Question: what do time, memory and disk of the whole data side do at 17.6 million images?

Generates lists in the shape of ML-Images and as many tiny images (16 x 16 pixels, some 400 bytes,
each with bytes of its own), and takes them through every step of docs/get_ml_images.md behind the
network: coverage, labels, build, check, statistics, first batches in both orders, and the features
of 1% of the images. Each step is a process of its own. A table has its seconds, its CPU seconds,
the peak of its resident memory with all children, and the bytes that it leaves on the disk.

    python benchmarks/rehearsal.py --images 200000
    python benchmarks/rehearsal.py --images 2000000 --output /data/rehearsal --beside results.json
    python benchmarks/rehearsal.py --images 17609752 --output /data/rehearsal

Finished steps are in OUTPUT/rehearsal.json; the same command continues behind them. Without
--output everything is in a temporary folder, which is removed; --keep-results copies that file.
--beside shows earlier results in the same table, and with two sizes the exponent k of
cost ~ images^k between them: 1 is proportional. Images of 75 kB would add what they cost to decode
and to copy (docs/benchmarks/data_preparation.md); what grows with their number is here.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from peers.command import Command

from mlimages_jax.files.atomic import complete_file

BENCHMARKS = Path(__file__).resolve().parent
RESULTS = "rehearsal.json"
STREAMS = 16
SHARDS = 128  # files of train; those of val are as many
MEGABYTE = 1e6


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step took.

    Attributes:
        seconds: From start to exit.
        cpu_seconds: User and system time.
        peak_bytes: Peak memory with all children.
        disk_bytes: What it added to the output folder.
        said: Last line of its output.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    disk_bytes: int
    said: str = ""


Results = dict[str, Cost]  # by step
Step = Callable[["Places"], list[str]]


class Places:
    """The files of a rehearsal.

    Args:
        output: Folder of everything.
        images: Number of images.
        workers: Processes of build, check and statistics; 0: the command's own.
    """

    def __init__(self, output: Path, images: int, *, workers: int):
        self.output = output
        self.images = images
        self.workers = [f"--workers={workers}"] if workers else []
        self.manual = output / "ml_images"
        self.dictionary = self.manual / "dictionary.txt"
        self.lists = [self.manual / f"{split}_urls.txt" for split in ("train", "val")]
        self.built = output / "data/rehearsal/released_320/1.0.0"

    def prepare(self, *words: object) -> list[str]:
        """Returns a command of the package."""
        return [sys.executable, "-m", "mlimages_jax", *map(str, words)]

    def peer(self, module: str, *words: object) -> list[str]:
        """Returns a command of this folder."""
        return [sys.executable, "-m", f"peers.{module}", *map(str, words)]

    def manifests(self) -> list[object]:
        """Returns the options that name what the lists are compared with."""
        return ["--manifests", self.manual, "--dictionary", self.dictionary]


def lists(at: Places) -> list[str]:
    """The published lists; not a step of a user's."""
    return at.peer("rehearsal_set", "lists", "--folder", at.manual, "--images", at.images)


def images(at: Places) -> list[str]:
    """Image shards, as `download --shards` leaves them."""
    return at.peer("rehearsal_set", "images", "--folder", at.manual, "--images", at.images)


def coverage(at: Places) -> list[str]:
    """What arrived, by source, reason and class."""
    where = ["--output-dir", at.output / "coverage"]
    return at.prepare("data", "coverage", *at.lists, *at.manifests(), *where)


def labels(at: Places, split: str) -> list[str]:
    """The list of what arrived."""
    target = at.manual / f"{split}_image_list.txt"
    chosen = [path for path in at.lists if path.name.startswith(split)]
    return at.prepare("data", "labels", *chosen, *at.manifests(), "--close", "--output", target)


def labels_train(at: Places) -> list[str]:
    """The list of train."""
    return labels(at, "train")


def labels_val(at: Places) -> list[str]:
    """The list of val."""
    return labels(at, "val")


def build(at: Places) -> list[str]:
    """The set."""
    return at.prepare(
        "data", "build", "ml-images", f"--manual-dir={at.manual}",
        f"--data-dir={at.output / 'data'}", "--name=rehearsal", f"--num-shards={SHARDS}",
        *at.workers,
    )  # fmt: skip


def check(at: Places) -> list[str]:
    """Every record read back."""
    return at.prepare("data", "check", at.built, *at.workers)


def statistics(at: Places) -> list[str]:
    """The numbers and figures of the set."""
    where = ["--output-dir", at.output / "statistics"]
    return at.prepare("data", "stats", "--dataset", at.built, *where, *at.workers)


def batches_global(at: Places) -> list[str]:
    """The first batches of the order `global`, from the middle of the second epoch."""
    return at.peer("rehearsal_batches", at.built, "--streams", 1)


def batches_streams(at: Places) -> list[str]:
    """The first batches of the order `streams`."""
    return at.peer("rehearsal_batches", at.built, "--streams", STREAMS)


def features(at: Places) -> list[str]:
    """Features of val, 1% of the images, by an untrained network of four blocks."""
    return at.peer("rehearsal_export", at.built, "--output", at.output / "features")


STEPS: tuple[Step, ...] = (
    lists, images, coverage, labels_train, labels_val, build, check, statistics, batches_global,
    batches_streams, features,
)  # fmt: skip


def rehearse(output: Path, count: int, *, workers: int) -> Results:
    """Runs the steps that no earlier run has finished.

    Args:
        output: Folder of everything.
        count: Number of images.
        workers: As for `Places`.

    Raises:
        RuntimeError: A step failed; the message has the end of its output.
        ValueError: The folder has a rehearsal of another number of images.
    """
    at = Places(output, count, workers=workers)
    output.mkdir(parents=True, exist_ok=True)
    results = read_results(output / RESULTS, expected=count)
    for step in STEPS:
        if step.__name__ in results:
            continue
        print(f"{step.__name__} ...", file=sys.stderr, flush=True)
        before = disk_bytes(output)
        with Command(step(at), folder=BENCHMARKS) as running:
            cost = running.finish()
            said = running.last_lines(1)
        results[step.__name__] = Cost(*cost, disk_bytes(output) - before, said)
        write_results(output / RESULTS, count, results)
    return results


def read_results(path: Path, *, expected: int | None = None) -> Results:
    """Reads the finished steps; none if there is no such file."""
    if not path.exists():
        return {}
    values = json.loads(path.read_text(encoding="utf-8"))
    if expected is not None and values["images"] != expected:
        raise ValueError(
            f"{path}: a rehearsal of {values['images']:,} images, not {expected:,}: give another "
            "--output"
        )
    return {name: Cost(**cost) for name, cost in values["steps"].items()}


def write_results(path: Path, count: int, results: Results) -> None:
    """Writes the finished steps; the file is complete at any moment."""
    steps = {name: dataclasses.asdict(cost) for name, cost in results.items()}
    with complete_file(path) as unfinished:
        unfinished.write_text(json.dumps({"images": count, "steps": steps}, indent=1))


def disk_bytes(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def print_table(sizes: dict[int, Results]) -> None:
    """Prints all results, and exponents between the two largest sizes."""
    counts = sorted(sizes)
    heads = [
        f"{count / 1e6:g} M: {what}" for count in counts for what in ("s", "CPU s", "MB", "GB")
    ]
    growth = ["k of CPU", "k of MB"] if len(counts) > 1 else []
    print("| step | " + " | ".join([*heads, *growth]) + " |")
    print("|:--|" + "---:|" * (len(heads) + len(growth)))
    for step in STEPS:
        name = step.__name__
        found = [sizes[count].get(name) for count in counts]
        cells = [cell for cost in found for cell in cells_of(cost)]
        if growth:
            first, last = found[-2:]
            cells += [exponent(counts[-2:], first, last, "cpu_seconds"),
                      exponent(counts[-2:], first, last, "peak_bytes")]  # fmt: skip
        print(f"| {name} | " + " | ".join(cells) + " |")


def cells_of(cost: Cost | None) -> list[str]:
    """Formats what a step took; empty if it was not run."""
    if cost is None:
        return [""] * 4
    return [
        f"{cost.seconds:,.1f}", f"{cost.cpu_seconds:,.1f}", f"{cost.peak_bytes / MEGABYTE:,.0f}",
        f"{cost.disk_bytes / 1e9:,.3f}",
    ]  # fmt: skip


def exponent(counts: Sequence[int], first: Cost | None, last: Cost | None, what: str) -> str:
    """Returns k of cost ~ images^k between two sizes."""
    if first is None or last is None:
        return ""
    ratio = getattr(last, what) / max(getattr(first, what), 1e-9)
    return f"{math.log(ratio) / math.log(counts[1] / counts[0]):.2f}"


@contextlib.contextmanager
def folder_of(output: Path | None) -> Iterator[Path]:
    """Yields the output folder, or a temporary one."""
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--output", type=Path, help="a folder on a large disk; default: temporary")
    parser.add_argument("--workers", type=int, default=0, help="of build, check and statistics")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="earlier results")
    parser.add_argument("--keep-results", type=Path, help="a copy of the results as JSON")
    return parser.parse_args()


def main() -> None:
    """Runs the steps and prints the table."""
    arguments = parse_arguments()
    sizes = {
        int(json.loads(path.read_text(encoding="utf-8"))["images"]): read_results(path)
        for path in arguments.beside
    }
    with folder_of(arguments.output) as output:
        sizes[arguments.images] = rehearse(output, arguments.images, workers=arguments.workers)
        if arguments.keep_results:
            shutil.copyfile(output / RESULTS, arguments.keep_results)
    print(f"{arguments.images:,} images, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print_table(sizes)
    for name, cost in sizes[arguments.images].items():
        if name.startswith("batches"):
            print(f"\n{name}: {cost.said}")


if __name__ == "__main__":
    main()
