# SPDX-License-Identifier: BSD-3-Clause
"""Question: how do time and memory grow with batch, classes, records, rows and devices?

One table each. The last line of a table is the exponent k of cost ~ size^k: the least-squares slope
of log(cost) against log(size). It is fitted to the upper half of the sizes (4 of 7), since constant
costs hide the growth at the lower ones. 1 is proportional, 0 is no growth.

- batch, classes: the step of configs/pretrain.py, with loss and augmentation. The network is one
  block of 2,048 channels on images of 2 pixels, so that the classifier, the loss and the class
  counts dominate.
- metrics: the metrics of an evaluation with scores of all classes. Average precision is `exact`
  (all scores are kept) or `binned`, as used for many images.
- records: the training input on a set that is generated while it is read, from one tiny JPEG.
- rows: `mlimages data stats` of a generated label list, with files and figures.
- devices: one global batch in groups of 8, sharded over virtual devices. They share the same cores,
  so the total work is constant and anything above 1 is overhead.

    python benchmarks/growth.py
    python benchmarks/growth.py --only classes devices
    python benchmarks/growth.py --quick                 # a minute

Every size runs in its own process (peers/growing.py). The sizes of a table take turns, and times
are medians over the rounds. Bytes of a step are XLA's figures for one device's program:
temporaries, and traffic, the total that its operations read and write.
"""

import argparse
import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from peers.process import Answer, Peer
from peers.setting import where_and_when

MEGABYTE, MILLISECOND = 1e6, 1e-3
CLASSES = 11_166
TRUNK = {"size": 2, "stages": (1,), "widths": (2048,), "mode": "replicated", "devices": 1}
NETWORK = {"size": 32, "stages": (1, 1, 1), "widths": (64, 128, 256), "classes": 1000}


class Measured(NamedTuple):
    """The measurements of one size.

    Attributes:
        about: What its process reported when it started.
        answers: The answers to each request, one per round.
    """

    about: dict[str, Any]
    answers: dict[str, list[Answer]]

    def median(self, name: str, request: str = "") -> float:
        """Returns the median of a value over the rounds."""
        return statistics.median(answer.values[name] for answer in self.answers[request])


class Sizes(NamedTuple):
    """The sizes at which each table is measured, and how much is measured at each.

    Attributes:
        batch, classes, metrics, records, rows, devices: The sizes of each table, ascending.
        examples: Images per measurement of the metrics.
        batches: Batches per measurement of the input.
        modes: Values of config.sharding.name.
    """

    batch: Sequence[int]
    classes: Sequence[int]
    metrics: Sequence[int]
    records: Sequence[int]
    rows: Sequence[int]
    devices: Sequence[int]
    examples: int
    batches: int
    modes: Sequence[str]


FULL = Sizes(
    batch=(4, 8, 16, 32, 64, 128, 256),
    classes=(100, 300, 1_000, 3_000, CLASSES, 30_000, 100_000),
    metrics=(100, 300, 1_000, 3_000, CLASSES, 30_000, 100_000),
    records=(1_000, 10_000, 100_000, 1_000_000, 17_600_000),
    rows=(10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000),
    devices=(1, 2, 4, 8),
    examples=256,
    batches=100,
    modes=("replicated", "optimizer", "full"),
)
QUICK = FULL._replace(
    batch=(8, 64), classes=(100, CLASSES), metrics=(100, 3_000, CLASSES),
    records=(1_000, 17_600_000), rows=(3_000, 30_000), devices=(1, 4), examples=64, batches=30,
    modes=("replicated",),
)  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--rounds", type=int, help="default: 7, with --quick 3")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller sizes")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 7)
    return arguments


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns the least-squares slope of log(cost) against log(size), in the upper half of sizes.

    Args:
        sizes: At least two, ascending.
        costs: The cost of each size.
    """
    upper = slice(min(len(sizes) // 2, len(sizes) - 2), None)
    slope, _ = np.polyfit(np.log(sizes[upper]), np.log(costs[upper]), 1)
    return float(slope)


def measure(
    settings: Sequence[dict[str, Any]], rounds: int, *, requests: Sequence[str] = ("",)
) -> list[Measured]:
    """Starts one process per setting and sends all of them every request in every round."""
    with contextlib.ExitStack() as stack:
        started = [Peer("growing", each) for each in settings]  # they initialise in parallel
        peers = [stack.enter_context(peer) for peer in started]
        found = [Measured(peer.about, {name: [] for name in requests}) for peer in peers]
        for _ in range(rounds):
            for request in requests:
                for peer, each in zip(peers, found, strict=True):
                    each.answers[request].append(peer.ask(request))
    return found


def print_table(
    kind: str, sizes: Sequence[int], columns: Mapping[str, Sequence[float]], *, note: str = ""
) -> None:
    """Prints one line per size, and the exponents."""
    print(f"\n**{kind}**{note}\n")
    print(f"| {kind} | " + " | ".join(columns) + " |")
    print("|---:|" + "---:|" * len(columns))
    for place, size in enumerate(sizes):
        print(f"| {size:,} | " + " | ".join(shown(c[place]) for c in columns.values()) + " |")
    slopes = (f"{exponent(sizes, c):.2f}" if min(c) > 0 else "" for c in columns.values())
    print("| exponent | " + " | ".join(slopes) + " |", flush=True)


def shown(value: float) -> str:
    """Formats a number with three significant digits, or as a whole number from 100."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def step_columns(found: list[Measured]) -> dict[str, Sequence[float]]:
    """Returns the columns with time and bytes of a step."""
    return {
        "ms per step": [each.median("seconds") / MILLISECOND for each in found],
        "temporaries, MB": [each.about["temporary"] / MEGABYTE for each in found],
        "traffic, MB": [each.about["traffic"] / MEGABYTE for each in found],
    }


def batch(sizes: Sizes, rounds: int) -> None:
    """Measures the step by batch size, in groups of at most 32."""
    shared = TRUNK | {"kind": "step", "classes": CLASSES, "group": 32}
    found = measure([shared | {"batch": size} for size in sizes.batch], rounds)
    print_table("batch", sizes.batch, step_columns(found), note=f": {CLASSES:,} classes")


def classes(sizes: Sizes, rounds: int) -> None:
    """Measures the step by number of classes."""
    shared = TRUNK | {"kind": "step", "batch": 32, "group": 32}
    found = measure([shared | {"classes": size} for size in sizes.classes], rounds)
    print_table("classes", sizes.classes, step_columns(found), note=": batch 32")


def metrics(sizes: Sizes, rounds: int) -> None:
    """Measures the metrics of an evaluation by number of classes."""
    settings = [
        {"kind": "metrics", "classes": size, "examples": sizes.examples} for size in sizes.metrics
    ]
    found = measure(settings, rounds, requests=("exact", "binned", "file"))
    columns: dict[str, Sequence[float]] = {}
    for kind in ("exact", "binned"):
        for part in ("update", "compute"):
            spent = [each.median(part, kind) / sizes.examples / MILLISECOND for each in found]
            columns[f"{kind}: {part}, ms per image"] = spent
        kept = [each.median("kept", kind) for each in found]
        if kind == "exact":
            columns["exact: kB kept per image"] = [size / sizes.examples / 1e3 for size in kept]
        else:
            columns["binned: MB kept"] = [size / MEGABYTE for size in kept]
    columns["class list, ms"] = [each.median("seconds", "file") / MILLISECOND for each in found]
    print_table("metrics", sizes.metrics, columns, note=f": classes; {sizes.examples} images")


def set_records(sizes: Sizes, rounds: int) -> None:
    """Measures the input by number of records in the set."""
    shared = {"kind": "input", "batch": 64, "batches": sizes.batches}
    settings = [shared | {"records": size} for size in sizes.records]
    found = measure(settings, rounds, requests=("first", "more"))
    spent = [each.median("seconds", "more") / sizes.batches for each in found]
    columns = {
        "first batch, ms": [each.median("seconds", "first") / MILLISECOND for each in found],
        "ms per batch": [seconds / MILLISECOND for seconds in spent],
        "memory of the process, MB": [each.median("private", "more") / MEGABYTE for each in found],
    }
    print_table("records", sizes.records, columns, note=": batch 64, 2 threads")


def rows(sizes: Sizes, _: int) -> None:
    """Measures the command `stats` by number of rows: each size once, one after the other."""
    found = [measure([{"kind": "list", "rows": size}], 1)[0] for size in sizes.rows]
    columns = {
        "s": [each.median("seconds") for each in found],
        "peak memory, MB": [each.median("peak") / MEGABYTE for each in found],
    }
    print_table("rows", sizes.rows, columns)


def devices(sizes: Sizes, rounds: int) -> None:
    """Measures the step by number of devices, in every sharding; bytes are those of one device."""
    for mode in sizes.modes:
        shared = NETWORK | {"kind": "step", "batch": 64, "group": 8, "mode": mode}
        found = measure([shared | {"devices": size} for size in sizes.devices], rounds)
        columns = step_columns(found)
        times = columns["ms per step"]
        columns = {"ms per step": times, "x": [time / times[0] for time in times]} | columns
        columns["collectives"] = [each.about["collectives"] for each in found]
        columns["of MB"] = [each.about["collective_bytes"] / MEGABYTE for each in found]
        print_table("devices", sizes.devices, columns, note=f": batch 64 in all, sharding `{mode}`")


TABLES: dict[str, Callable[[Sizes, int], None]] = {
    "batch": batch,
    "classes": classes,
    "metrics": metrics,
    "records": set_records,
    "rows": rows,
    "devices": devices,
}


def main() -> None:
    """Prints the requested tables."""
    arguments = parse_arguments()
    print(f"{where_and_when()}; medians of {arguments.rounds} interleaved rounds")
    for name in arguments.only:
        TABLES[name](QUICK if arguments.quick else FULL, arguments.rounds)


if __name__ == "__main__":
    main()
