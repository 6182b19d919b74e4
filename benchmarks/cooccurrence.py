# SPDX-License-Identifier: BSD-3-Clause
"""Claim: co-occurrences of 17.6 million predicted images are counted in bounded memory.

Generates predictions for images of one class each, as Parquet files with label lists: sparse scores
of a model with 11,166 classes (names, classes, scores; the list has the class of each image), and
dense scores of a model with 1,134 classes. Counts them as the command `cooccurrence` does, and
adds the resulting labels to the list. The peers count a sample of the sparse rows without any
checks: a plain loop over dictionaries, and np.add.at on a matrix of all pairs. Each runs in its own
process, which isolates its peak memory (VmHWM: Linux only); memory for libraries and the category
file is subtracted.

    python benchmarks/cooccurrence.py
    python benchmarks/cooccurrence.py --rows 17600000      # 15 minutes, 4 GB of disk
"""

import argparse
import collections
import contextlib
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from peers.fresh_process import measured, run

from mlimages_jax.engines.local import InProcess
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare.co_occurrence.command import PairAdder
from mlimages_jax.prepare.co_occurrence.prediction_counts import PredictionCounter

NUM_CLASSES = 11_166
DENSE_CLASSES = 1_134  # of the paper's model
POSTERIOR, MIN_FRACTION = 0.95, 0.5
CANDIDATES = 8  # classes with a score, per image
SURE = 0.3  # fraction of these scores above the posterior
ROW_GROUP = 100_000
ROW = "{:24} {:>11} {:>10} {:>10} {:>6} {:>9} {:>9}"


class Files(NamedTuple):
    """A generated set in a folder; `name` distinguishes sets."""

    folder: Path
    name: str

    @property
    def dictionary(self) -> Path:
        """The class list."""
        return self.folder / "dictionary.txt"

    @property
    def labels(self) -> Path:
        """The label list."""
        return self.folder / f"{self.name}.txt"

    @property
    def predictions(self) -> Path:
        """The Parquet file."""
        return self.folder / f"{self.name}.parquet"


def write_dictionary(path: Path) -> None:
    """Writes classes in a tree where every class has seven children."""
    ids = tuple(f"n{i:08d}" for i in range(NUM_CLASSES))
    parents = (np.arange(NUM_CLASSES) - 1) // 7
    Hierarchy(ids, tuple(f"class {i}" for i in range(NUM_CLASSES)), parents).to_file(path)


def write_set(files: Files, rows: int, *, dense: bool) -> None:
    """Writes predictions and labels of `rows` images, with the same seed for every size."""
    rng = np.random.default_rng(0)
    with contextlib.ExitStack() as stack:
        labels = stack.enter_context(files.labels.open("w", encoding="utf-8", newline="\n"))
        writer = None
        for start in range(0, rows, ROW_GROUP):
            count = min(ROW_GROUP, rows - start)
            classes = rng.integers(NUM_CLASSES, size=count)
            names = [f"n{c:08d}/n{c:08d}_{start + i}.JPEG" for i, c in enumerate(classes.tolist())]
            scores = dense_scores(rng, count) if dense else sparse_scores(rng, classes)
            table = pa.table({"name": names, **scores})
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(files.predictions, table.schema))
            writer.write_table(table)
            lines = (f"{name}\t{c}:1\n" for name, c in zip(names, classes.tolist(), strict=True))
            labels.writelines(lines)


def sparse_scores(rng: np.random.Generator, classes: np.ndarray) -> dict[str, pa.Array]:
    """Draws scores of a few classes that depend on the image's class, some above the posterior."""
    offsets = pa.array(np.arange(len(classes) + 1, dtype=np.int32) * CANDIDATES)
    candidates = (classes[:, None] * 7 + np.arange(CANDIDATES) ** 2 * 31) % NUM_CLASSES
    sure = rng.random(candidates.shape) < SURE + 0.3 * (np.arange(CANDIDATES) == 1)
    scores = np.where(sure, 0.97, 0.5).astype(np.float32)
    return {
        "classes": pa.ListArray.from_arrays(offsets, candidates.astype(np.int32).ravel()),
        "scores": pa.ListArray.from_arrays(offsets, scores.ravel()),
    }


def dense_scores(rng: np.random.Generator, count: int) -> dict[str, pa.Array]:
    """Draws scores of all classes, one in a thousand of them above the posterior."""
    scores = rng.random((count, DENSE_CLASSES), np.float32) ** 50
    return {"scores": pa.FixedSizeListArray.from_arrays(scores.ravel(), DENSE_CLASSES)}


def count_ours(files: Files, hierarchy: Hierarchy, num_model: int) -> int:
    """Counts as the command does; returns the number of pairs above the threshold."""
    model = hierarchy
    if num_model < NUM_CLASSES:
        parents = np.full(num_model, -1)
        model = Hierarchy(hierarchy.ids[:num_model], hierarchy.names[:num_model], parents)
    counter = PredictionCounter(hierarchy, model=model, posterior=POSTERIOR)
    counter.count([files.predictions], [files.labels], engine=InProcess())
    pairs = counter.occurrences.pairs()
    return int((pairs.fraction > MIN_FRACTION).sum())


def add_ours(files: Files, hierarchy: Hierarchy) -> int:
    """Adds the labels of one pair per class to the list."""
    counter = PredictionCounter(hierarchy, model=hierarchy, posterior=POSTERIOR)
    every = np.arange(NUM_CLASSES)
    counter.occurrences.add(every, every, (every * 7 + 31) % NUM_CLASSES)
    adder = PairAdder(hierarchy, counter.occurrences.pairs(), times_fraction=False)
    adder.write_lists([files.labels], files.folder / "more.txt")
    return len(adder.apart)


def read_classes(path: Path) -> dict[str, int]:
    """Returns the class of every image in the form the peers use."""
    with path.open(encoding="utf-8") as file:
        rows = (line.split() for line in file)
        return {name: int(label.partition(":")[0]) for name, label in rows}


def count_by_dictionaries(files: Files, _: Hierarchy) -> int:
    """Counts in plain Python, as a peer."""
    class_of = read_classes(files.labels)
    images: collections.Counter[int] = collections.Counter()
    both: collections.Counter[tuple[int, int]] = collections.Counter()
    for batch in pq.ParquetFile(files.predictions).iter_batches(1 << 16):
        for row in batch.to_pylist():
            i = class_of[row["name"]]
            images[i] += 1
            for j, score in zip(row["classes"], row["scores"], strict=True):
                if score > POSTERIOR:
                    both[i, j] += 1
    return sum(count / images[i] > MIN_FRACTION for (i, _), count in both.items())


def count_in_a_matrix(files: Files, _: Hierarchy) -> int:
    """Counts in NumPy with a counter for every possible pair, as a peer."""
    class_of = read_classes(files.labels)
    images = np.zeros(NUM_CLASSES, np.int64)
    both = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int32)
    for batch in pq.ParquetFile(files.predictions).iter_batches(1 << 16):
        own = np.array([class_of[name] for name in batch.column("name").to_pylist()])
        lengths = np.diff(batch.column("scores").offsets.to_numpy())
        sure = batch.column("scores").flatten().to_numpy() > POSTERIOR
        classes = batch.column("classes").flatten().to_numpy()[sure]
        np.add.at(images, own, 1)
        np.add.at(both, (np.repeat(own, lengths)[sure], classes), 1)
    return int((both > MIN_FRACTION * images[:, None]).sum())


WORK = {
    "ours, sparse": lambda files, hierarchy: count_ours(files, hierarchy, NUM_CLASSES),
    "ours, dense": lambda files, hierarchy: count_ours(files, hierarchy, DENSE_CLASSES),
    "ours, adding labels": add_ours,
    "dictionaries": count_by_dictionaries,
    "np.add.at": count_in_a_matrix,
}


def measure(work: str, files: Files) -> dict[str, float]:
    """Measures one run in this process."""
    hierarchy = Hierarchy.from_file(files.dictionary)
    with measured() as cost:
        pairs = WORK[work](files, hierarchy)
    return cost | {"pairs": pairs}


def main() -> None:
    """Generates the sets, measures and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="sparse predictions")
    parser.add_argument("--dense_rows", type=int, default=30_000, help="4.5 kB of disk each")
    parser.add_argument("--sample", type=int, default=200_000, help="rows for the peers")
    parser.add_argument("--folder", type=Path, help="for temporary files")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work, folder, name = arguments.child
        print(json.dumps(measure(work, Files(Path(folder), name))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sets = {name: Files(Path(folder), name) for name in ("all", "sample", "dense")}
        write_dictionary(sets["all"].dictionary)
        sizes = {"all": arguments.rows, "sample": arguments.sample, "dense": arguments.dense_rows}
        for name, files in sets.items():
            write_set(files, sizes[name], dense=name == "dense")
        print(ROW.format("", "rows", "rows/s", "per CPU s", "x", "peak MB", "pairs"))
        base = None
        for work, name in (
            ("dictionaries", "sample"),
            ("np.add.at", "sample"),
            ("ours, sparse", "sample"),
            ("ours, sparse", "all"),
            ("ours, adding labels", "all"),
            ("ours, dense", "dense"),
        ):
            result = run(__file__, "--child", work, str(sets[name].folder), name)
            rate, cpu_rate = sizes[name] / result["wall_s"], sizes[name] / result["cpu_s"]
            base = base or cpu_rate
            rates = (f"{rate:,.0f}", f"{cpu_rate:,.0f}", f"{cpu_rate / base:.1f}")
            peak, pairs = f"{result['added_bytes'] / 1e6:,.0f}", f"{result['pairs']:,}"
            print(ROW.format(work, f"{sizes[name]:,}", *rates, peak, pairs), flush=True)
    print("x: rows per CPU second, relative to the plain loop over dictionaries")


if __name__ == "__main__":
    main()
