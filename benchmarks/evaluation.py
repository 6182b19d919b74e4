# SPDX-License-Identifier: BSD-3-Clause
"""Question: how fast is an evaluation, does its memory stay constant, and are its numbers right?

Evaluates single-label sets of 1,000 classes as `--config=configs/evaluate.py` does, each in its own
process. Images have 32x32 pixels, one colour per class plus noise; the checkpoint is of a tiny
network trained on some of them for a few seconds. The network costs next to nothing, so this
measures everything else: reading, decoding, batching, metrics. Memory is the resident set of the
process, sampled ten times a second and after every batch.

Top-1 and top-5 are then recomputed independently, from the same JPEG bytes: decoded by this script,
passed through a plain `model.apply` and sorted by NumPy.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --images 10000
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import psutil
import simplejpeg
from peers.setting import load_config, where_and_when

from mlimages_jax.checkpoints import manager
from mlimages_jax.evaluation import evaluate_task
from mlimages_jax.metrics.single_label import SingleLabelMetrics
from mlimages_jax.models import architecture
from mlimages_jax.training import train
from tfds_builders import imagenet

CLASSES, SIDE, NOISE = 1_000, 32, 30  # NOISE: standard deviation of a pixel value, of 255
TRAINING_STEPS = 300
BATCH = 256
SAMPLE_EVERY = 0.1  # seconds between two samples of the memory
MEGABYTE = 1e6


class Evaluated(NamedTuple):
    """The result of one process.

    Attributes:
        seconds: Duration of the process, with imports, restoring and compiling.
        images: Number of images evaluated after each batch.
        at: Time of each batch in seconds.
        resident: Resident bytes after each batch.
        peak: Highest number of resident bytes.
        top1: Top-1 accuracy, a fraction.
        top5: Top-5 accuracy, a fraction.
    """

    seconds: float
    images: list[int]
    at: list[float]
    resident: list[int]
    peak: int
    top1: float
    top5: float


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=[10_000, 50_000],
        help="size of each set, at least 1,000 (default: 10000 50000)",
    )  # fmt: skip
    parser.add_argument("--child", nargs=3, metavar=("CHECKPOINT", "DATA", "WORKDIR"),
                        help=argparse.SUPPRESS)  # fmt: skip
    arguments = parser.parse_args()
    if min(arguments.images) < CLASSES:
        parser.error(f"--images {min(arguments.images)}: an image of every class is needed")
    return arguments


def draw(count: int) -> Iterator[tuple[int, bytes]]:
    """Yields class and JPEG of every image: one of 1,000 colours with noise, always the same."""
    rng = np.random.default_rng(0)
    levels = np.linspace(15, 240, 10)
    for number in range(count):
        kind = number % CLASSES
        colour = levels[[kind // 100, kind // 10 % 10, kind % 10]]
        pixels = np.clip(rng.normal(colour, NOISE, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        yield kind, simplejpeg.encode_jpeg(pixels, quality=90)


def build(work: Path, count: int) -> Path:
    """Builds a set with the split val, from an archive with one folder per class."""
    manual = work / f"manual_{count}"
    manual.mkdir()
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as archive:
        for number, (kind, jpeg) in enumerate(draw(count)):
            header = tarfile.TarInfo(f"n{kind:08d}/{number:08d}.JPEG")
            header.size = len(jpeg)
            archive.addfile(header, io.BytesIO(jpeg))
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints progress
        return imagenet.build(
            manual, work / "data", name=f"colours_{count}", splits=["val"], subset=True
        )


def make_checkpoint(workdir: Path, data: Path) -> None:
    """Trains the quickstart with a tiny network and softmax for a few seconds."""
    config = load_config(
        "quickstart",
        {
            "data.folder": str(data),
            "data.train_split": "val",
            "image_size": SIDE,
            "total_steps": TRAINING_STEPS,
            "loss.name": "softmax",
            "model.stage_sizes": (1, 1),
            "model.stage_widths": (32, 64),
            "model.stem_width": 16,
            "schedule.cosine.total_steps": TRAINING_STEPS,
            "schedule.cosine.warmup_steps": 20,
            "evaluate_every": 0,
            "checkpoint.every": TRAINING_STEPS,
        },
    )
    train.train(config, workdir)


def evaluate_here(checkpoint: str, data: str, workdir: str) -> dict[str, Any]:
    """Runs the task itself; records time and memory after every batch."""
    config = load_config(
        "evaluate",
        {
            "checkpoint": checkpoint,
            "data.folder": data,
            "evaluation.sizes": (SIDE,),
            "evaluation.views": ("whole",),
            "evaluation.batch_size": BATCH,
            "input.num_threads": 2,
        },
    )
    images, at, resident = [0], [], []
    update, process = SingleLabelMetrics.update, psutil.Process()

    def noted(metrics: SingleLabelMetrics, scores: Any, targets: Any, mask: Any = None) -> None:
        update(metrics, scores, targets, mask)
        images.append(images[-1] + int(mask.sum()))
        at.append(time.perf_counter())
        resident.append(process.memory_info().rss)

    with mock.patch.object(SingleLabelMetrics, "update", noted):
        (row,) = evaluate_task.evaluate(config, workdir)
    values = {name: row[name] for name in ("top1", "top5")}
    return {"images": images[1:], "at": at, "resident": resident, **values}


def evaluate(checkpoint: Path, data: Path, workdir: Path) -> Evaluated:
    """Runs the task in its own process and samples its memory.

    Raises:
        RuntimeError: The process failed; the message has the end of its output.
    """
    command = [sys.executable, __file__, "--child", *map(str, (checkpoint, data, workdir))]
    with tempfile.TemporaryFile("w+") as output:
        start, peak = time.perf_counter(), 0
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            with contextlib.suppress(psutil.Error):  # the process has just ended
                peak = max(peak, watched.memory_info().rss)
            time.sleep(SAMPLE_EVERY)
        seconds = time.perf_counter() - start
        output.seek(0)
        lines = output.read().splitlines()
    if child.returncode:
        raise RuntimeError("\n".join(["the evaluation failed:", *lines[-20:]]))
    values = json.loads(lines[-1])
    return Evaluated(seconds=seconds, peak=max(peak, *values["resident"]), **values)


def count_plainly(checkpoint: Path, count: int) -> tuple[float, float]:
    """Computes top-1 and top-5 without our reading, cropping and metrics."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights = manager.load_weights(checkpoint, place)
    model = architecture.network_of(weights["params"])
    logits_of = jax.jit(lambda images: model.apply(weights, images, train=False)[0])
    kinds, jpegs = zip(*draw(count), strict=True)
    hits = np.zeros(2, int)
    for start in range(0, count, BATCH):
        some = slice(start, start + BATCH)
        pixels = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs[some]])
        best = np.argsort(-logits_of(pixels / np.float32(127.5) - 1), axis=1, kind="stable")
        right = best[:, :5] == np.array(kinds[some])[:, None]
        hits += right[:, 0].sum(), right.sum()
    return hits[0] / count, hits[1] / count


def print_row(result: Evaluated, plain: tuple[float, float]) -> None:
    """Prints one line of the table."""
    count = result.images[-1]
    tenth = next(i for i, n in enumerate(result.images) if 10 * n >= count)
    rate = (count - result.images[0]) / (result.at[-1] - result.at[0])  # the first batch compiles
    memory = result.resident[tenth], result.resident[-1], result.peak
    shown = " | ".join(f"{value / MEGABYTE:,.0f}" for value in memory)
    print(
        f"| {count:,} | {result.seconds:.1f} | {rate:,.0f} | {shown} | {result.top1:.4f} "
        f"| {result.top5:.4f} | {(result.top1, result.top5) == plain} |"
    )


def main() -> None:
    """Draws the images, trains, evaluates, recomputes the accuracies and prints the table."""
    arguments = parse_arguments()
    if arguments.child:
        print(json.dumps(evaluate_here(*arguments.child)))
        return
    print(
        f"{where_and_when()}; {SIDE}x{SIDE} pixels, {CLASSES:,} classes, batch {BATCH}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sets = {count: build(work, count) for count in arguments.images}
        checkpoint = work / "checkpoint"
        make_checkpoint(checkpoint, next(iter(sets.values())))
        results = {
            count: evaluate(checkpoint, data, work / f"evaluation_{count}")
            for count, data in sets.items()
        }
        print(f"load {os.getloadavg()[0]:.1f} after the evaluations\n")
        print("| images | seconds | images/s | MB at 10% | MB at the end | peak MB | top-1 "
              "| top-5 | equal when recomputed |")  # fmt: skip
        print("|---------:|--------:|-----------:|----------:|--------------:|-----------:|------:"
              "|------:|:-------------------|")  # fmt: skip
        for count, result in results.items():
            print_row(result, count_plainly(checkpoint, count))


if __name__ == "__main__":
    main()
