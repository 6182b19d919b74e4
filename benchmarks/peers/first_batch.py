# SPDX-License-Identifier: BSD-3-Clause
"""Time and memory until the first training batch of a set, in a fresh process.

Records are either generated on the fly (an index of any length, no files), or read from the files
of a built set. Measured is everything from opening the set to the batch in memory.
"""

import time
from pathlib import Path
from typing import Any

import psutil

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.views import TrainingView
from mlimages_jax.data.order import ProcessRows
from peers.generated_set import LABELS, GeneratedRecords, draw_jpegs
from peers.serve import Values, arguments, serve

CLASSES = 11_166


def open_streams(options: Values, jpegs: list[bytes]) -> list[Any]:
    """Returns the records of every stream: generated from these images, or read from `folder`."""
    count = options["streams"]
    rows = ProcessRows(batch_size=options["batch"], num_streams=count)
    if options["folder"]:
        data = DataSet.open(Path(options["folder"]))
        return list(data.streams("train", count=count, served=rows.streams))
    return [
        GeneratedRecords(options["records"] // count, jpegs, classes=CLASSES) for _ in rows.streams
    ]


def main() -> None:
    """Measures once and reports the result."""
    options = arguments()
    jpegs = draw_jpegs()
    process = psutil.Process()
    before = process.memory_info().rss
    begin = time.perf_counter()
    streams = open_streams(options, jpegs)
    opened = time.perf_counter()
    batches = pipeline.training_batches(
        streams,
        TrainingView(options["size"]),
        batch_size=options["batch"],
        num_streams=options["streams"],
        max_labels=LABELS,
        seed=0,
        start_step=options["start_step"],
        num_threads=2,
    )
    batch = next(batches)
    first = time.perf_counter()
    about = {
        "open": opened - begin,
        "first": first - begin,
        "added_mb": (process.memory_info().rss - before) / 1e6,
        "images": int(batch["mask"].sum()),
    }
    serve(about, lambda _: {})


if __name__ == "__main__":
    main()
