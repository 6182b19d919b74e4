# SPDX-License-Identifier: BSD-3-Clause
"""Question: how do neighbours and duplicates scale, exactly and by an index, and what is missed?

Writes exports of 256 features in float16 (our own format, in bounded memory): images around
centres, a twentieth of them copies of others with noise, so that the duplicates are known; no two
others reach the threshold. Each row runs in its own process:

    knn         the 10 nearest of 10,000 queries: exact, by the index, and faiss's exhaustive search
                (IndexFlatIP), the peer, which holds all features in memory
    duplicates  all groups at 0.95: exact, and by the index

`CPU s` is the time of all cores, also of waiting threads of other libraries, and says more than the
clock on a machine with other work. `anonymous MB` is the peak of memory that is not the cache of a
file. The exponent is that of the CPU time by the number of images, from the two largest exact rows.

    python benchmarks/features.py
    python benchmarks/features.py --images 200000 --exact 50000 200000 --queries 2000
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.setting import where_and_when

WIDTH, COPIES, THRESHOLD, K = 256, 0.05, 0.95, 10
PART = 16_384
IMAGES_A_CENTRE = 1_000
SPREAD = 0.9  # of images around their centre, relative to the spread of the centres
LARGEST_NOISE = 0.25  # of a copy, relative to its length: a cosine of 0.97
SAMPLE_EVERY = 0.05  # seconds
MEGABYTE = 1e6


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2_000_000, help="of the rows by the index")
    parser.add_argument(
        "--exact", type=int, nargs="*", default=[200_000, 500_000],
        help="images of the exact rows of duplicates",
    )  # fmt: skip
    parser.add_argument("--queries", type=int, default=10_000, help="of the rows of knn")
    parser.add_argument("--probes", type=int, default=16, help="lists that knn compares with")
    parser.add_argument("--near", type=int, default=4, help="lists that duplicates compares with")
    parser.add_argument(
        "--rows", nargs="+", default=["duplicates", "knn"], choices=["duplicates", "knn"]
    )
    parser.add_argument("--scratch", type=Path, help="folder for 4 KB an image; default: temporary")
    parser.add_argument("--child", nargs=4, metavar=("TASK", "FOLDER", "INDEX", "NUMBER"),
                        help=argparse.SUPPRESS)  # fmt: skip
    return parser.parse_args()


def spectrum() -> np.ndarray:
    """Standard deviations of the features, decreasing as those of principal components do."""
    return (np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)


def write(folder: Path, count: int) -> None:
    """Writes an export whose last images are copies, of the rows that sources.npy has."""
    from mlimages_jax.features.export.feature_formats import Layout, Part
    from mlimages_jax.features.export.feature_writer import FeatureWriter

    rng = np.random.default_rng(count)
    centres = rng.standard_normal((max(50, count // IMAGES_A_CENTRE), WIDTH), np.float32)
    originals = count - round(COPIES * count)
    sources = rng.integers(0, originals, count - originals)
    layout = Layout(count, PART, {"features": WIDTH}, "float16", labels=False)
    writer = FeatureWriter(folder, layout, "npy", {})
    writer.begin()
    stored = None
    for number in range(layout.parts):
        rows = layout.positions(number)
        own = rng.integers(0, len(centres), len(rows))
        noise = rng.standard_normal((len(rows), WIDTH), np.float32)
        values = (centres[own] + SPREAD * noise) * spectrum()
        copied = np.arange(max(rows.start, originals), rows.stop)
        if len(copied):
            writer.wait()
            stored = np.load(folder / "features.npy", mmap_mode="r") if stored is None else stored
            source = sources[copied - originals]
            of = stored[source].astype(np.float32)
            here = source >= rows.start  # not yet stored
            of[here] = values[source[here] - rows.start]
            # A fifth of the copies is without noise: the same numbers.
            size = rng.uniform(-LARGEST_NOISE / 4, LARGEST_NOISE, (len(of), 1)).clip(0)
            size = size * np.linalg.norm(of, axis=1, keepdims=True) / WIDTH**0.5
            added = rng.standard_normal(of.shape, np.float32)
            values[copied - rows.start] = of + size.astype(np.float32) * added
        names = [f"{row:08d}.jpg" for row in rows]
        empty = [""] * len(rows)
        writer.write(Part(number, names, empty, empty, {"features": values.astype(np.float16)}))
    writer.wait()
    writer.finish(speed={})
    np.save(folder / "sources.npy", sources)


def duplicates(folder: Path, index: str, probes: int) -> dict[str, Any]:
    """Finds the groups, and compares them with what was planted."""
    from mlimages_jax.features.duplicates.search import DuplicateSearch
    from mlimages_jax.features.export.exported import open_exported

    images = open_exported(folder, output="features")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        search = DuplicateSearch(
            images, threshold=THRESHOLD, scratch=Path(scratch) / "b", width=WIDTH
        )
        if index == "exact":
            search.compare_all()
        else:
            search.compare_in_lists(0, probes=probes)
        roots = search.groups.roots(np.arange(len(images)))
    sources = np.load(folder / "sources.npy")
    planted = np.arange(len(images))
    planted[len(images) - len(sources) :] = sources
    together = int((roots == roots[planted]).sum()) - (len(images) - len(sources))
    wrong = int((planted[roots] != planted).sum())
    return {"recall": together / len(sources), "wrongly grouped": wrong}


def knn(folder: Path, index: str, queries: int, probes: int) -> dict[str, Any]:
    """Finds the neighbours of some images; by the index, measures its recall beside it."""
    from mlimages_jax.features.evaluate.approximate import Approximate
    from mlimages_jax.features.evaluate.nearest import nearest
    from mlimages_jax.features.export.exported import open_exported

    base = open_exported(folder, output="features")
    chosen = np.random.default_rng(1).choice(len(base), min(queries, len(base)), replace=False)
    asked = base.select(np.sort(chosen))
    if index == "exact":
        found = [block.neighbours for block in nearest(asked, base, k=K)]
        return {"found": sum(map(len, found))}
    if index == "faiss flat":
        import faiss

        flat = faiss.IndexFlatIP(base.width)
        for start in range(0, len(base), PART):
            flat.add(base.unit(slice(start, start + PART)))
        return {"found": len(flat.search(asked.unit(slice(None)), K)[1])}
    begin, cpu = time.perf_counter(), time.process_time()
    approximate = Approximate(base, lists=0, probes=probes)
    built = time.perf_counter() - begin, time.process_time() - cpu
    found = [block.neighbours for block in approximate.nearest(asked, base, k=K)]
    spent = time.perf_counter() - begin, time.process_time() - cpu
    recall = approximate.recall(asked, base, k=K, count=1_000).recall
    return {"build s": built[0], "build CPU s": built[1], "spent": spent, "recall": recall}


def child(task: str, folder: str, index: str, number: str, probes: int) -> None:
    """Runs one row; prints its result as JSON."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_EVERY):
            lines = Path("/proc/self/status").read_text().splitlines()
            kilobytes = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
            peak[0] = max(peak[0], int(kilobytes) * 1_024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin, cpu = time.perf_counter(), time.process_time()
    try:
        if task == "write":
            write(Path(folder), int(number))
            result: dict[str, Any] = {}
        elif task == "duplicates":
            result = duplicates(Path(folder), index, probes)
        else:
            result = knn(Path(folder), index, int(number), probes)
    finally:
        ended.set()
        watcher.join()
    spent = result.pop("spent", (time.perf_counter() - begin, time.process_time() - cpu))
    print(json.dumps({"s": spent[0], "CPU s": spent[1], "MB": peak[0] / MEGABYTE} | result))


def run(task: str, folder: Path, index: str, number: int, *, probes: int) -> dict[str, Any]:
    """Runs one row in its own process."""
    words = ["--probes", str(probes), "--child", task, str(folder), index, str(number)]
    done = subprocess.run(
        [sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def row(cells: list[Any]) -> None:
    """Prints a row of a table at once: some take an hour."""
    shown = (f"{cell:,.4g}" if isinstance(cell, float) else f"{cell}" for cell in cells)
    print(f"| {' | '.join(shown)} |", flush=True)


def show_duplicates(folders: dict[int, Path], arguments: argparse.Namespace) -> None:
    """Prints the table of duplicates."""
    print("\n| duplicates | images | s | CPU s | anonymous MB | planted found | wrong |")
    print("|:--|--:|--:|--:|--:|--:|--:|", flush=True)
    spent = []
    for index, count in [("ivf", arguments.images)] + [("exact", n) for n in arguments.exact]:
        got = run("duplicates", folders[count], index, 0, probes=arguments.near)
        row([index, f"{count:,}", got["s"], got["CPU s"], round(got["MB"]),
             f"{got['recall']:.3%}", got["wrongly grouped"]])  # fmt: skip
        spent += [(count, got["CPU s"])] if index == "exact" else []
    if len(spent) > 1:
        (few, less), (many, more) = sorted(spent)[-2:]
        exponent = math.log(more / less) / math.log(many / few)
        print(f"\nexact: CPU time grows as the number of images to the {exponent:.2f}", flush=True)


def show_knn(folder: Path, arguments: argparse.Namespace) -> None:
    """Prints the table of neighbours; the peer comes first."""
    print("\n| knn | s | CPU s | x CPU of the peer | anonymous MB | recall@10 |")
    print("|:--|--:|--:|--:|--:|--:|", flush=True)
    peer: dict[str, Any] = {}
    for index in ("faiss flat", "exact", "ivf"):
        got = run("knn", folder, index, arguments.queries, probes=arguments.probes)
        peer = peer or got
        recall = f"{got['recall']:.4f}" if "recall" in got else "1"
        ratio = got["CPU s"] / peer["CPU s"]
        row([index, got["s"], got["CPU s"], ratio, round(got["MB"]), recall])
    print(f"\nof which building the index: {got['build s']:.0f} s, {got['build CPU s']:.0f} CPU s")


def main() -> None:
    """Prints the tables."""
    arguments = parse_arguments()
    if arguments.child:
        task, folder, index, number = arguments.child
        child(task, folder, index, number, probes=arguments.probes)
        return
    print(where_and_when())
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folders = {}
        exact = arguments.exact if "duplicates" in arguments.rows else []
        for count in sorted({*exact, arguments.images}):
            folders[count] = Path(scratch, str(count))
            made = run("write", folders[count], "", count, probes=0)
            print(f"wrote {count:,} images in {made['s']:.0f} s, {made['MB']:.0f} MB", flush=True)
        if "duplicates" in arguments.rows:
            show_duplicates(folders, arguments)
        if "knn" in arguments.rows:
            show_knn(folders[arguments.images], arguments)


if __name__ == "__main__":
    main()
