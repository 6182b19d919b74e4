# SPDX-License-Identifier: BSD-3-Clause
"""Images per second of one process of four, by order of the data, threads and read latency.

Reading a record from object storage takes tens of milliseconds, however small it is; `--latency`
adds this to every read. Each rate is compared with that of the same pipeline without latency,
measured immediately before. `copy_to` is the order `streams` with the process's files copied to a
local disk, compared with reading them in place, without latency; the one-off cost of copying is
printed. Opening files has no added latency anywhere (it takes three reads per file).

    python benchmarks/read_orders.py                    # crops of four photographs
    python benchmarks/read_orders.py --data=FOLDER      # a built set of at least 16 files
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from input_pipeline import PHOTOGRAPHS, crop_images, write_lists

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import views
from mlimages_jax.data.order import ProcessRows
from mlimages_jax.data.records import RandomAccess
from tfds_builders import ml_images

BATCH = 64  # global
PROCESSES = 4  # the first one is measured: 16 rows per batch
STREAMS = {"global": 1, "streams": 16, "copy_to": 16}  # 4 images per group
FILES = 64  # shards of the set that is built here
ROW = "{:10} {:>8} {:>12} {:>12} {:>7}"


class Delayed:
    """Records that arrive with a latency; reads may overlap."""

    def __init__(self, records: RandomAccess, seconds: float):
        self._records, self._seconds = records, seconds

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> bytes:
        time.sleep(self._seconds)  # releases the GIL, as a read from a network does
        return self._records[index]


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a built set with a split `train`")
    parser.add_argument(
        "--photographs", type=Path, default=PHOTOGRAPHS, help="large JPEGs to take crops from"
    )
    parser.add_argument("--count", type=int, default=1024, help="images to crop")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds per read")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3, help="rounds per median")
    parser.add_argument("--size", type=int, default=64, help="pixels; more is CPU-bound")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("--warm_up", type=float, default=0.5, help="seconds before each")
    return parser.parse_args()


def build(photographs: Path, work: Path, count: int) -> Path:
    """Makes images and builds a set of FILES shards from them."""
    (work / "images").mkdir()
    crop_images(photographs, work / "images", count)
    write_lists(work)
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints progress
        return ml_images.build(work, work / "data", name="images", num_shards=FILES)


def rate(
    arguments: argparse.Namespace,
    data: DataSet,
    num_streams: int,
    num_threads: int,
    *,
    latency: float,
) -> float:
    """Returns images per second of the first process."""
    rows = ProcessRows(batch_size=BATCH, num_streams=num_streams, process_count=PROCESSES)
    streams = data.streams("train", count=num_streams, served=rows.streams)
    batches = pipeline.training_batches(
        [Delayed(records, latency) if latency else records for records in streams],
        views.TrainingView(arguments.size),
        batch_size=BATCH,
        num_streams=num_streams,
        max_labels=data.max_labels,
        seed=0,
        process_count=PROCESSES,
        num_threads=num_threads,
    )
    _take(batches, arguments.warm_up)
    begin = time.perf_counter()
    images = _take(batches, arguments.seconds)
    return images / (time.perf_counter() - begin)


def _take(batches: Iterator[pipeline.NumpyBatch], seconds: float) -> int:
    """Takes batches for the given time; returns the number of images."""
    end = time.perf_counter() + seconds
    images = 0
    while time.perf_counter() < end:
        images += len(next(batches)["mask"])
    return images


def compare(arguments: argparse.Namespace, folder: Path, copies: Path) -> None:
    """Runs every order with every number of threads and prints the table."""
    data = DataSet.open(folder)
    copied = DataSet.open(folder, copy_to=str(copies))
    served = ProcessRows(
        batch_size=BATCH, num_streams=STREAMS["copy_to"], process_count=PROCESSES
    ).streams
    begin = time.perf_counter()
    copied.streams("train", count=STREAMS["copy_to"], served=served)
    seconds = time.perf_counter() - begin
    files = [path for path in copies.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(
        f"{data.num_records('train')} images in {len(data.shards_of('train'))} files; copy_to: "
        f"{len(files)} files, {megabytes:.1f} MB, in {seconds:.2f} s; load {os.getloadavg()[0]:.1f}"
    )
    print(
        ROW.format("order", "threads", "no latency", f"{arguments.latency * 1e3:.0f} ms", "ratio")
    )
    for order, num_streams in STREAMS.items():
        for threads in arguments.threads:
            pairs = []
            for _ in range(arguments.rounds):
                plain = rate(arguments, data, num_streams, threads, latency=0.0)
                if order == "copy_to":
                    late = rate(arguments, copied, num_streams, threads, latency=0.0)
                else:
                    late = rate(arguments, data, num_streams, threads, latency=arguments.latency)
                pairs.append((plain, late))
            rates = [f"{statistics.median(column):.0f}" for column in zip(*pairs, strict=True)]
            ratio = statistics.median(late / plain for plain, late in pairs)
            print(ROW.format(order, threads, *rates, f"{ratio:.2f}"), flush=True)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Makes the data unless it was given, and runs the comparison."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = arguments.data or build(arguments.photographs, work, arguments.count)
        compare(arguments, data, work / "copies")


if __name__ == "__main__":
    main()
