# SPDX-License-Identifier: BSD-3-Clause
"""Three multi-label losses on one data set: same network, images, order, steps, schedule.

    python benchmarks/losses.py --data=DATA/stamps/closed_original/1.0.0 --workdir=workdirs/losses
    python benchmarks/losses.py --quick        # on drawn images, to check that it works

Trains the network of configs/quickstart.py with the weighted, the plain and the asymmetric sigmoid
loss, each with its own learning rate. It evaluates the training and the validation split along the
way and prints one table, with a row per loss and evaluation and the seconds of training so far.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

from absl import logging
from peers.setting import load_config

from mlimages_jax.settings import Train
from mlimages_jax.training import train
from tfds_builders import shapes

ROOT = Path(__file__).resolve().parents[1]
# The weighted loss needs the higher rate: its gradients are smaller, since a class counts only in
# groups where it is present.
LEARNING_RATES = {"weighted": 0.1, "sigmoid": 0.05, "asymmetric": 0.05}
SHOWN = ("mAP", "f1@5", "hierarchical_f1")


def main() -> None:
    """Trains with every loss and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="version folder of a built data set")
    parser.add_argument("--workdir", type=Path, help="gets one folder per loss")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--evaluations", type=int, default=5)
    parser.add_argument("--losses", nargs="+", default=list(LEARNING_RATES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="on drawn images; takes a minute")
    arguments = parser.parse_args()
    if not arguments.quick and not (arguments.data and arguments.workdir):
        parser.error("pass --data and --workdir, or --quick")
    logging.set_verbosity(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            _make_quick(arguments, Path(folder))
        rows = []
        for name in arguments.losses:
            workdir = arguments.workdir / name
            train.train(_config(name, arguments), workdir)
            rows += _rows(name, workdir)
    header = ["loss", "step", "seconds", *(f"{s} {m}" for s in ("train", "val") for m in SHOWN)]
    for row in [header, ["---"] * len(header), *rows]:
        print("| " + " | ".join(row) + " |")


def _make_quick(arguments: argparse.Namespace, work: Path) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints progress
        arguments.data = str(shapes.build(work / "data", num_train=192, num_val=64, size=48))
    arguments.workdir, arguments.steps, arguments.evaluations = work / "workdirs", 20, 1
    arguments.image_size = 32


def _config(loss: str, arguments: argparse.Namespace) -> Train:
    every = arguments.steps // arguments.evaluations
    return load_config(
        "quickstart",
        {
            "data.folder": str(arguments.data),
            "seed": arguments.seed,
            "image_size": arguments.image_size,
            "total_steps": arguments.steps,
            "schedule.cosine.total_steps": arguments.steps,
            "schedule.cosine.learning_rate": LEARNING_RATES[loss],
            "evaluate_every": every,
            "checkpoint.every": every,
            "evaluation.splits": ("val", "train"),
            "loss.name": loss,
        },
    )


def _rows(loss: str, workdir: Path) -> list[list[str]]:
    by_step: dict[int, dict[str, float]] = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        by_step.setdefault(row["step"], {}).update(row)
    table, seconds, before = [], 0.0, 0
    for step, values in sorted(by_step.items()):
        if "training/images_per_second" in values:
            images = (step - before) * 64  # the quickstart's batch
            seconds, before = seconds + images / values["training/images_per_second"], step
        if "val/mAP" in values:
            numbers = [f"{values[f'{s}/{m}']:.3f}" for s in ("train", "val") for m in SHOWN]
            table.append([loss, str(step), f"{seconds:.0f}", *numbers])
    return table


if __name__ == "__main__":
    main()
