# SPDX-License-Identifier: BSD-3-Clause
"""Question: how fast is an evaluation, does its memory stay the same, and are its numbers right?

Evaluates sets of 1,000 classes, one an image, as `--config=configs/evaluate.py` does, each in a
process of its own: images of 32x32 pixels, a colour a class, with noise, and a checkpoint of a
tiny network that was trained on some of them for a few seconds. The network costs next to nothing,
so this is the speed of all else: reading, decoding, batches, counts. Memory is the resident set
of the process, looked at ten times a second and after every batch.

Then top-1 and top-5 are counted anew, of the JPEG bytes as they were drawn: decoded here, through a
plain `model.apply`, sorted by NumPy.

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

CLASSES, SIDE, NOISE = 1_000, 32, 30  # NOISE: deviation of a value of a pixel
TRAINING_STEPS = 300
BATCH = 256
SAMPLE_EVERY = 0.1  # seconds between two looks at the memory
MEGABYTE = 1e6


class Evaluated(NamedTuple):
    """What came out of a process.

    Attributes:
      seconds: Of the process, with imports, restoring and compiling.
      images: Evaluated after each batch.
      at: Seconds of each batch.
      resident: Bytes after each batch.
      peak: The most bytes that it had.
      top1: Share of the images.
      top5: Likewise.
    """

    seconds: float
    images: list[int]
    at: list[float]
    resident: list[int]
    peak: int
    top1: float
    top5: float


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--images", type=int, nargs="+", default=[10_000, 50_000],
        help="of each set, at least 1,000 (default: 10000 50000)",
    )  # fmt: skip
    parser.add_argument("--child", nargs=3, metavar=("CHECKPOINT", "DATA", "WORKDIR"),
                        help=argparse.SUPPRESS)  # fmt: skip
    arguments = parser.parse_args()
    if min(arguments.images) < CLASSES:
        parser.error(f"--images {min(arguments.images)}: an image of every class is needed")
    return arguments


def draw(count: int) -> Iterator[tuple[int, bytes]]:
    """Class and JPEG of every image, the same each time: noise about one of 1,000 colours."""
    rng = np.random.default_rng(0)
    levels = np.linspace(15, 240, 10)
    for number in range(count):
        kind = number % CLASSES
        colour = levels[[kind // 100, kind // 10 % 10, kind % 10]]
        pixels = np.clip(rng.normal(colour, NOISE, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        yield kind, simplejpeg.encode_jpeg(pixels, quality=90)


def build(work: Path, count: int) -> Path:
    """A set with the split val, from an archive with one folder a class."""
    manual = work / f"manual_{count}"
    manual.mkdir()
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as archive:
        for number, (kind, jpeg) in enumerate(draw(count)):
            header = tarfile.TarInfo(f"n{kind:08d}/{number:08d}.JPEG")
            header.size = len(jpeg)
            archive.addfile(header, io.BytesIO(jpeg))
    with contextlib.redirect_stdout(sys.stderr):  # TFDS reports what it does
        return imagenet.build(
            manual, work / "data", name=f"colours_{count}", splits=["val"], subset=True
        )


def make_checkpoint(workdir: Path, data: Path) -> None:
    """The quickstart with a tiny network and softmax, for a few seconds."""
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
    """The task itself; notes time and memory where every batch comes by."""
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
    """The task in a process of its own, watched from here.

    Raises:
      RuntimeError: It failed; with the end of what it wrote.
    """
    command = [sys.executable, __file__, "--child", *map(str, (checkpoint, data, workdir))]
    with tempfile.TemporaryFile("w+") as output:
        start, peak = time.perf_counter(), 0
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            with contextlib.suppress(psutil.Error):  # it has just ended
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
    """Top-1 and top-5 without any of our reading, cutting and counting."""
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
    """One line of the table."""
    count = result.images[-1]
    tenth = next(i for i, n in enumerate(result.images) if 10 * n >= count)
    rate = (count - result.images[0]) / (result.at[-1] - result.at[0])  # the first one compiles
    memory = result.resident[tenth], result.resident[-1], result.peak
    shown = " | ".join(f"{value / MEGABYTE:,.0f}" for value in memory)
    print(
        f"| {count:,} | {result.seconds:.1f} | {rate:,.0f} | {shown} | {result.top1:.4f} "
        f"| {result.top5:.4f} | {(result.top1, result.top5) == plain} |"
    )


def main() -> None:
    """Draws, trains, evaluates, counts, prints."""
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
        print("| images | seconds | images/s | MB at 10% | MB at the end | MB at most | top-1 "
              "| top-5 | as counted plainly |")  # fmt: skip
        print("|---------:|--------:|-----------:|----------:|--------------:|-----------:|------:"
              "|------:|:-------------------|")  # fmt: skip
        for count, result in results.items():
            print_row(result, count_plainly(checkpoint, count))


if __name__ == "__main__":
    main()
