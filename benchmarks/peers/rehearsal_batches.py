# SPDX-License-Identifier: BSD-3-Clause
"""Reads the first training batches of a built set, in one of the two orders.

python -m peers.rehearsal_batches FOLDER --streams 16
"""

import argparse
import time
from pathlib import Path

import jax

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.views import TrainingView
from mlimages_jax.data.order import ProcessRows

BATCH = 256
BATCHES = 40
SIDE = 16  # pixels


def main() -> None:
    """Prints the seconds until the set is open, the first batch is there, and all are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--streams", type=int, required=True, help="1: the order `global`")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    rows = ProcessRows(batch_size=BATCH, num_streams=arguments.streams)
    begin = time.perf_counter()
    data = DataSet.open(arguments.folder)
    streams = data.streams("train", count=arguments.streams, served=rows.streams)
    opened = time.perf_counter()
    batches = pipeline.training_batches(
        streams,
        TrainingView(SIDE),
        batch_size=BATCH,
        num_streams=arguments.streams,
        max_labels=data.max_labels,
        seed=0,
        start_step=data.num_records("train") * 3 // (2 * BATCH),  # in the second epoch
        num_threads=2,
    )
    images = int(next(batches)["mask"].sum())
    first = time.perf_counter()
    images += sum(int(next(batches)["mask"].sum()) for _ in range(BATCHES - 1))
    last = time.perf_counter()
    if images != BATCH * BATCHES:
        raise RuntimeError(f"{images} of {BATCH * BATCHES} images could be decoded")
    print(f"open {opened - begin:.2f} s, first batch {first - opened:.2f} s, "
          f"{images / (last - begin):,.0f} images/s")  # fmt: skip


if __name__ == "__main__":
    main()
