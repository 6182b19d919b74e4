# SPDX-License-Identifier: BSD-3-Clause
"""Question: what does changing the image size in training cost, and is a restart after it exact?

Trains the quickstart's network (64 to 256 channels, BatchNorm groups of 32) on drawn images: half
of the steps at 224 pixels and half at 299, as configs/finetune.py:224to299 does. Speed is that of
the training loop (median over steps, with reading, decoding and cropping); compile times are the
logged ones. The training is then repeated with two interruptions and restarts, one at the change
and one after it. Its final state is compared with that of the uninterrupted training, in every
number of the parameters, statistics and momentum.

    python benchmarks/sizes.py
    python benchmarks/sizes.py --sizes 64 96 --steps 20
"""

import argparse
import contextlib
import json
import logging
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from peers.setting import load_config, where_and_when

from mlimages_jax.settings import Train
from mlimages_jax.step.state import TrainState
from mlimages_jax.training import train
from tfds_builders import shapes

SETTLING = 2  # steps to skip after a start or a change: the loop reads its clock one step late
COMPILED = re.compile(r"compiled the step for (\d+) px, batch \d+, in ([\d.]+) s")


class CompileTimes(logging.Handler):
    """Collects the compile times that `train.train` logs, in seconds by image size."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[int, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the first time of each size."""
        if found := COMPILED.match(record.getMessage()):
            self.seconds.setdefault(int(found[1]), float(found[2]))


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=[224, 299], help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="per size")
    arguments = parser.parse_args()
    if arguments.steps <= SETTLING:
        parser.error(f"--steps {arguments.steps}: the first {SETTLING} per size are not counted")
    return arguments


def make_config(arguments: argparse.Namespace, folder: Path, *, total_steps: int) -> Train:
    """Returns the quickstart's settings with two image sizes."""
    first, second = arguments.sizes
    return load_config(
        "quickstart",
        {
            "data.folder": str(folder),
            "image_size": first,
            "batch_size": arguments.batch,
            "group_size": min(arguments.batch, 32),
            "total_steps": total_steps,
            "resize": ((arguments.steps, second, arguments.batch),),
            "schedule.cosine.warmup_steps": arguments.steps // 2,
            "schedule.cosine.total_steps": 2 * arguments.steps,
            "evaluation.batch_size": 8,
            "evaluate_every": 0,
            "checkpoint.every": 2 * arguments.steps,
            "log_every": 1,
        },
    )


def speeds(workdir: Path, arguments: argparse.Namespace) -> list[float]:
    """Returns the median images/s at each size."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    key = "training/images_per_second"
    rates = {row["step"]: row[key] for row in rows if key in row}
    steps = arguments.steps
    return [
        statistics.median(rates[step] for step in range(start + SETTLING + 1, start + steps + 1))
        for start in (0, steps)
    ]


def equal(one: TrainState, other: TrainState) -> bool:
    """Returns whether the two states are equal in every bit."""
    one, other = jax.device_get((one, other))
    same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, other)
    return all(jax.tree.leaves(same))


def print_table(sizes: Sequence[int], rates: Sequence[float], seconds: dict[int, float]) -> None:
    """Prints one row per size, with ratios to the first."""
    print("| pixels | images/s | compile s | pixels per image, x | seconds per image, x |")
    print("|-------:|---------:|----------:|--------------------:|---------------------:|")
    for size, rate in zip(sizes, rates, strict=True):
        print(
            f"| {size} | {rate:.1f} | {seconds[size]:.1f} | {(size / sizes[0]) ** 2:.2f} "
            f"| {rates[0] / rate:.2f} |"
        )


def main() -> None:
    """Trains with and without interruptions, and prints the table."""
    arguments = parse_arguments()
    steps, times = arguments.steps, CompileTimes()
    logger = logging.getLogger("absl")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [times]
    begin, setting = time.perf_counter(), where_and_when()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints progress
            data = shapes.build(work / "data", num_train=200, num_val=8, size=320)
        whole = train.train(make_config(arguments, data, total_steps=2 * steps), work / "whole")
        rates = speeds(work / "whole", arguments)
        # The same workdir every time: each call but the first resumes from the last checkpoint.
        for stop in (steps, steps + steps // 2, 2 * steps):
            parts = train.train(make_config(arguments, data, total_steps=stop), work / "parts")
    print(
        f"{setting}, {os.getloadavg()[0]:.1f} at the end; batch {arguments.batch}, {steps} steps "
        f"at each size, {time.perf_counter() - begin:.0f} s in total\n"
    )
    print_table(arguments.sizes, rates, times.seconds)
    print(
        f"\nInterrupted after {steps} and {steps + steps // 2} of {2 * steps} steps and resumed: "
        f"every bit of the state is equal: {equal(whole, parts)}"
    )


if __name__ == "__main__":
    main()
