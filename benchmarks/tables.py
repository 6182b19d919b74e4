# SPDX-License-Identifier: BSD-3-Clause
"""Claim: importing a table costs no more CPU per row than when one kind of table was supported.

Writes tables of the same images in every format and imports each as `mlimages data import` does.
The peer reads the table twice with csv or json and splits its labels, the least that two passes
cost. With `--base` a checkout of another commit imports the tables that it can read, in turns with
this one. Each import runs in its own process, without counting its start-up.

    git worktree add /tmp/base 782068b
    python benchmarks/tables.py --rows 200000 --base /tmp/base
"""

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
KINDS = ("labels.csv", "quoted.csv", "labels.jsonl", "one_hot.csv")
BASE_READS = ("labels.csv", "quoted.csv", "labels.jsonl")
COLUMNS = 50  # of the one-hot table
IMPORT = """
import contextlib, pathlib, sys, time
from mlimages_jax.prepare.imports.table import import_table
start = time.process_time()
with contextlib.redirect_stdout(sys.stderr):
    import_table([pathlib.Path(sys.argv[1])], output=pathlib.Path(sys.argv[2]))
print(time.process_time() - start)
"""


def rows_of_images(rows: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields paths and 1 to 8 labels of 500 classes, half of them with a confidence."""
    random_ = random.Random(0)
    names = [f"class {i}" for i in range(300)]
    names += [f"animal > kind {i % 20} > dog {i}" for i in range(200)]
    for i in range(rows):
        labels = random_.sample(names, random_.randint(1, 8))
        values = {name: random_.choice((1, round(random_.random(), 2))) for name in labels}
        yield f"folder{i % 100}/image_{i:07d}.jpg", values


def write_tables(folder: Path, rows: int) -> None:
    """Writes a table in each format."""
    plain, quoted, lines, one_hot = (
        (folder / name).open("w", encoding="utf-8", newline="") for name in KINDS
    )
    with plain, quoted, lines, one_hot:
        plain.write("path,labels\n")
        quoted.write('"path","labels"\n')
        one_hot.write(",".join(["path", *(f"c{i}" for i in range(COLUMNS))]) + "\n")
        for number, (path, labels) in enumerate(rows_of_images(rows)):
            cell = ";".join(f"{name}:{value}" for name, value in labels.items())
            plain.write(f"{path},{cell}\n")
            quoted.write(f'"{path}","{cell}"\n')
            lines.write(json.dumps({"path": path, "labels": labels}) + "\n")
            shown = {number % COLUMNS, len(cell) % COLUMNS}
            one_hot.write(",".join([path, *("01"[i in shown] for i in range(COLUMNS))]) + "\n")


def import_seconds(checkout: Path, table: Path) -> float:
    """Imports a table in its own process; returns its CPU seconds."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", IMPORT, str(table), output]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        done = subprocess.run(
            command, cwd=checkout, env=environment, check=True, capture_output=True, text=True
        )
    return float(done.stdout)


def least_seconds(table: Path) -> float:
    """Runs the peer, two passes that split cells without checks; returns its CPU seconds."""
    start = time.process_time()
    for _ in range(2):
        with table.open(encoding="utf-8", newline="") as file:
            if table.suffix == ".csv":
                for row in csv.reader(file):
                    [part.rpartition(":") for part in row[1].split(";")]
            else:
                for line in file:
                    json.loads(line)["labels"].items()
    return time.process_time() - start


def main() -> None:
    """Writes the tables, measures and prints a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", type=Path, help="a checkout of another commit")
    arguments = parser.parse_args()
    print(f"{arguments.rows:,} rows, CPU us per row, medians of {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), arguments.rows)
        for kind in KINDS:
            table = Path(folder) / kind
            seconds: dict[str, list[float]] = {"import": [], "least": [], "base": []}
            for _ in range(arguments.rounds):
                if arguments.base and kind in BASE_READS:
                    seconds["base"].append(import_seconds(arguments.base.resolve(), table))
                seconds["import"].append(import_seconds(HERE, table))
                seconds["least"].append(least_seconds(table))
            cost = {name: statistics.median(times) for name, times in seconds.items() if times}
            texts = [f"{name} {s / arguments.rows * 1e6:6.1f}" for name, s in cost.items()]
            if "base" in cost:
                texts.append(f"import / base {cost['import'] / cost['base']:.2f}")
            print(f"{kind:13}", *texts, sep="  ", flush=True)


if __name__ == "__main__":
    main()
