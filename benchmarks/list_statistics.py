# SPDX-License-Identifier: BSD-3-Clause
"""Claim: `stats` counts the 17.6 million rows of ML-Images in under 3 minutes and under 4 GB.

Generates a list like that of ML-Images (8.7 labels per image, 11,166 classes; see `label_lists.py`)
and a random hierarchy as deep as the published one, and runs the full command on them, figures
included. Classes are drawn at random, so almost no row contains its ancestors, which is the worst
case. The peer is a plain Python loop with sets and counters, which counts the same in the first
rows of the list; both must agree there. Every run has its own process. Memory is the peak (VmHWM:
Linux only), including the interpreter and all modules.

    python benchmarks/list_statistics.py                     # a million rows
    python benchmarks/list_statistics.py --rows 17609752     # 1.7 GB of temporary disk space
"""

import argparse
import collections
import contextlib
import io
import itertools
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from label_lists import NUM_CLASSES, write_list
from peers.fresh_process import measured, run

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare.stats.command import stats

ROOTS = 4


def write_hierarchy(path: Path) -> Hierarchy:
    """Writes a random forest of 4 trees, in which early classes have more children."""
    rng = np.random.default_rng(0)
    # A parent's index is below its child's, so there can be no cycle.
    parents = (np.arange(NUM_CLASSES) * rng.random(NUM_CLASSES) ** 1.1).astype(np.int32)
    parents[:ROOTS] = -1
    ids = tuple(f"n{i:08d}" for i in range(NUM_CLASSES))
    hierarchy = Hierarchy(ids, tuple(f"class {i}" for i in range(NUM_CLASSES)), parents)
    hierarchy.to_file(path)
    return hierarchy


def count_plainly(path: Path, dictionary: Path) -> dict[str, Any]:
    """Counts as the peer; returns the counts under their names in statistics.json."""
    hierarchy = Hierarchy.from_file(dictionary)
    parents = hierarchy.parents.tolist()
    images: collections.Counter[int] = collections.Counter()
    tags: collections.Counter[int] = collections.Counter()
    confidences: collections.Counter[float] = collections.Counter()
    names: set[str] = set()
    rows = not_closed = lacking = to_add = orphans = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            name, *labels = line.split()
            row = {int(c): float(v) for c, _, v in (label.partition(":") for label in labels)}
            positive = {c: value for c, value in row.items() if value > 0}
            rows += 1
            names.add(name)
            confidences.update(row.values())
            images.update(positive.keys())
            tags[len(positive)] += 1
            closed, without = set(positive), 0
            for c, value in positive.items():
                # A parent that is less certain than its child counts as missing.
                without += parents[c] >= 0 and positive.get(parents[c], 0) < value
                while (c := parents[c]) >= 0 and c not in closed:
                    closed.add(c)
            orphans += without
            not_closed += without > 0
            lacking += len(closed) > len(positive)
            to_add += len(closed) - len(positive)
    return {
        "images": {"total": rows, "without_tags": tags[0], "repeated_names": rows - len(names)},
        "confidences": {f"{value:g}": n for value, n in sorted(confidences.items())},
        "tags_per_image": {str(number): tags[number] for number in sorted(tags)},
        "images_per_class": [images[c] for c in range(NUM_CLASSES)],
        "closure": {
            "rows_not_closed": not_closed,
            "rows_lacking_an_ancestor": lacking,
            "tags_to_add": to_add,
            "tags_without_parent": orphans,
        },
    }


def count_with_the_command(path: Path, dictionary: Path, output: Path) -> dict[str, Any]:
    """Runs `stats`; returns the part of its results that the peer counts too."""
    with contextlib.redirect_stdout(io.StringIO()):
        stats((path,), dictionary=dictionary, output_dir=output)
    numbers = json.loads((output / "statistics.json").read_text(encoding="utf-8"))
    with (output / "per_class.tsv").open(encoding="utf-8") as file:
        images = [int(line.split("\t")[4]) for line in itertools.islice(file, 1, None)]
    return {
        "images": numbers["images"],
        "confidences": numbers["confidences"],
        "tags_per_image": numbers["tags_per_image"]["histogram"],
        "images_per_class": images,
        "closure": numbers["closure"],
    }


def measure(counter: str, path: Path, dictionary: Path) -> dict[str, Any]:
    """Measures one count in this process."""
    with measured() as cost:
        if counter == "stats":
            counted = count_with_the_command(path, dictionary, path.with_suffix(".statistics"))
        else:
            counted = count_plainly(path, dictionary)
    return cost | {"counted": counted}


def measure_in_child(counter: str, path: Path, dictionary: Path) -> dict[str, Any]:
    """Measures one count in a fresh process and prints a line of the table."""
    result = run(__file__, "--child", counter, str(path), str(dictionary))
    rows = result["counted"]["images"]["total"]
    print(
        f"{counter:8}  {rows:12,} rows  {rows / result['wall_s']:9,.0f} rows/s  "
        f"{rows / result['cpu_s']:9,.0f} rows/CPU s  {result['wall_s']:6.1f} s  "
        f"{result['cpu_s']:6.1f} CPU s  peak {result['peak_bytes'] / 1e6:6,.0f} MB",
        flush=True,
    )
    return result["counted"]


def copy_rows(path: Path, start: Path, rows: int) -> None:
    """Copies the first rows of a list."""
    with path.open("rb") as file, start.open("wb") as copy:
        copy.writelines(itertools.islice(file, rows))


def main() -> None:
    """Writes the list, counts all of it, and its first rows with both; prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=200_000)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        counter, path, dictionary = arguments.child
        print(json.dumps(measure(counter, Path(path), Path(dictionary))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path, start, dictionary = (Path(folder) / name for name in ("list.txt", "start.txt", "d"))
        depth = write_hierarchy(dictionary).depth
        write_list(path, arguments.rows)
        copy_rows(path, start, arguments.peer_rows)
        print(
            f"{path.stat().st_size / 1e6:,.1f} MB, hierarchy of depth {depth.max()}, mean "
            f"{depth.mean():.2f}; {platform.machine()}, load {os.getloadavg()[0]:.1f}"
        )
        measure_in_child("stats", path, dictionary)
        ours = measure_in_child("stats", start, dictionary)
        peers = measure_in_child("plain", start, dictionary)
        print("equal numbers" if ours == peers else "THE NUMBERS DIFFER")
        if ours != peers:
            sys.exit(1)


if __name__ == "__main__":
    main()
