# SPDX-License-Identifier: BSD-3-Clause
"""Claim: label lists are read at 200,000 rows/s on one core, in 1.5x the memory of the result.

Generates a list like that of ML-Images (8.7 labels per image, 11,166 classes) and reads it with
`read_label_list`. The peer is a plain loop of split(), int() and float() that fills compact arrays
without any checks. Each runs in its own process, which isolates its memory (VmRSS and VmHWM: Linux
only).

    python benchmarks/label_lists.py --rows 2000000
"""

import argparse
import array
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
from peers.fresh_process import measured, run

from mlimages_jax.labels.lists import read_label_list

NUM_CLASSES = 11_166
MEAN_LABELS = 8.7
CONFIDENCES = ("1", "0.9", "0.8", "0.7")


def write_list(path: Path, rows: int) -> None:
    """Writes `rows` rows: a name such as 17382017900_f7152f6e1c_o.jpg and 1 to 37 labels."""
    rng = np.random.default_rng(0)
    labels = [f"\t{c}:{confidence}" for c in range(NUM_CLASSES) for confidence in CONFIDENCES]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, rows, 10_000):
            numbers = np.arange(start, min(start + 10_000, rows))
            counts = 1 + np.minimum(rng.poisson(MEAN_LABELS - 1, len(numbers)), 36)
            stops = np.cumsum(counts)
            within = np.arange(stops[-1]) - np.repeat(stops - counts, counts)  # 0, 1, .. in a row
            first = np.repeat(rng.integers(NUM_CLASSES, size=len(numbers)), counts)
            step = np.repeat(rng.integers(1, 301, len(numbers)), counts)  # 36 x 300 < 11,166
            kinds = rng.choice(4, len(within), p=(0.7, 0.1, 0.1, 0.1))
            words = (first + step * within) % NUM_CLASSES * len(CONFIDENCES) + kinds
            tokens = [labels[word] for word in words.tolist()]
            for number, count, stop in zip(numbers, counts, stops, strict=True):
                name = f"{10_000_000_000 + number}_{rng.integers(1 << 40):010x}_o.jpg"
                file.write(name + "".join(tokens[stop - count : stop]) + "\n")


def read_plainly(path: Path) -> int:
    """Reads as the peer; returns the bytes of its arrays, with names as UTF-8 and offsets."""
    names, offsets = bytearray(), array.array("q", [0])
    name_offsets = array.array("q", [0])
    classes, confidences = array.array("i"), array.array("f")
    with path.open(encoding="utf-8") as file:
        for line in file:
            name, *labels = line.split()
            names += name.encode()
            name_offsets.append(len(names))
            for label in labels:
                class_, _, confidence = label.partition(":")
                classes.append(int(class_))
                confidences.append(float(confidence or 1))
            offsets.append(len(classes))
    arrays = (name_offsets, offsets, classes, confidences)
    return len(names) + sum(len(column) * column.itemsize for column in arrays)


def measure(reader: str, path: Path) -> dict[str, float]:
    """Measures one read in this process."""
    with measured() as cost:
        if reader == "plain":
            array_bytes = read_plainly(path)
        else:
            result = read_label_list(path, num_classes=NUM_CLASSES)
            array_bytes = result.nbytes
    return cost | {"array_bytes": array_bytes}


def report(reader: str, rows: int, result: dict[str, float]) -> str:
    """Formats one line of the table."""
    arrays, peak = result["array_bytes"], result["added_bytes"]
    return (
        f"{reader:15}  {rows / result['cpu_s']:9,.0f} rows/CPU s  {rows / result['wall_s']:9,.0f} "
        f"rows/s  {result['cpu_s']:5.2f} CPU s  "
        f"arrays {arrays / 1e6:7.1f} MB  peak {peak / 1e6:7.1f} MB  ratio {peak / arrays:.2f}"
    )


def main() -> None:
    """Writes the list, measures both readers and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--list", type=Path, help="read this list instead of generating one")
    parser.add_argument("--child", choices=("read_label_list", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.list)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.list or Path(folder) / "labels.txt"
        if not arguments.list:
            write_list(path, arguments.rows)
        with path.open("rb") as file:
            rows = sum(1 for _ in file)
        print(f"{rows:,} rows, {path.stat().st_size / 1e6:.1f} MB, {platform.machine()}")
        for reader in ("read_label_list", "plain"):
            result = run(__file__, "--child", reader, "--list", str(path))
            print(report(reader, rows, result), flush=True)


if __name__ == "__main__":
    main()
