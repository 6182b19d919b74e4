# SPDX-License-Identifier: BSD-3-Clause
"""Question: does pretraining help with kinds of things that it never saw?

Pretrains the quickstart's network with several labels per image, on stamps and drawn shapes, but
without the kinds used for finetuning: in every tree of classes the largest kind stays, and all
others with at least 10 images are removed with their images. Then finetunes it on the removed
kinds, one class per image, with half of the images of every class, against the same network with
random initial weights. Both use configs/finetune.py:224, reduced in the same way, nothing frozen,
with the same images, order and steps, each at its best learning rate from the same list. A separate
seed selects the rates. Every seed of the result has its own halves, order, crops and new weights;
pretraining runs once.

    python benchmarks/transfer.py --data=STAMPS --output=OUT
    python benchmarks/transfer.py --quick       # on drawn images, to check that it works

STAMPS contains dictionary.txt, train_image_list.txt, val_image_list.txt and images/. OUT gets
transfer.md, transfer.png and a workdir per run; the same command resumes from those.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from matplotlib.figure import Figure
from peers import transfer_sets
from peers.setting import load_config, where_and_when

from mlimages_jax.settings import Train
from mlimages_jax.training import train
from tfds_builders import shapes

TUNING_SEED = 0  # selects the learning rates; not part of the result
STARTS = ("pretrained", "scratch")
NETWORK = ("stage_sizes", "stage_widths", "stem_width", "stem_kernel", "norm_momentum", "dtype")
EVALUATIONS = 8  # per finetuning


class Run(NamedTuple):
    """A finetuning; steps, top-1 and loss have one value per evaluation."""

    start: str
    rate: float
    seed: int
    steps: list[int]
    top1: list[float]
    loss: list[float]


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of the stamps")
    parser.add_argument("--output", type=Path, help="folder for tables and figure")
    parser.add_argument("--size", type=int, default=48, help="pixels")
    parser.add_argument("--shapes", type=int, default=1000, help="drawn images to pretrain on")
    parser.add_argument("--pretraining_steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=800, help="of finetuning")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 0.1, 0.03, 0.01])
    parser.add_argument("--seeds", type=int, default=3, help="in addition to the tuning seed")
    parser.add_argument("--quick", action="store_true", help="on drawn images; takes a minute")
    arguments = parser.parse_args()
    if not arguments.quick and not (arguments.data and arguments.output):
        parser.error("pass --data and --output, or --quick")
    if arguments.shapes < 10 or arguments.seeds < 2:
        parser.error(
            "a deviation needs --seeds 2 or more, and a validation set --shapes 10 or more"
        )
    return arguments


def make_quick(arguments: argparse.Namespace, work: Path) -> None:
    """Draws images to replace the stamps, and shortens every part."""
    arguments.data = shapes.draw(work / "stamps", num_train=160, num_val=40, size=32)
    dictionary = arguments.data / "dictionary.txt"  # ids must differ from those of the shapes
    dictionary.write_text(dictionary.read_text().replace("\tx", "\tstamp"))
    arguments.output, arguments.size, arguments.shapes = work / "output", 32, 20
    arguments.pretraining_steps = arguments.steps = 2 * EVALUATIONS
    arguments.rates, arguments.seeds = [0.1], 1


def pretraining_config(arguments: argparse.Namespace, folder: Path) -> Train:
    """Returns the quickstart's settings with the asymmetric loss, at the rate of losses.py."""
    steps = arguments.pretraining_steps
    return load_config(
        "quickstart",
        {
            "data.folder": str(folder),
            "image_size": arguments.size,
            "total_steps": steps,
            "loss.name": "asymmetric",
            "schedule.cosine.learning_rate": 0.05,
            "schedule.cosine.warmup_steps": min(100, steps // 10),
            "schedule.cosine.total_steps": steps,
            "evaluate_every": 0,
            "checkpoint.every": steps,
        },
    )


def finetuning_config(
    arguments: argparse.Namespace, folder: Path, *, init_from: str, rate: float, seed: int
) -> Train:
    """Returns variant 224 with the quickstart's network: smaller, shorter, nothing frozen."""
    network = load_config("quickstart", {}).model
    return load_config(
        "finetune",
        {
            "seed": seed,
            "data.folder": str(folder),
            "image_size": arguments.size,
            "batch_size": 32,
            "group_size": 32,
            "total_steps": arguments.steps,
            **{f"model.{name}": getattr(network, name) for name in NETWORK},
            "schedule.staircase.learning_rate": rate,
            "schedule.staircase.decay_steps": arguments.steps // 4,  # 150,000 of 600,000
            "optimizer.freeze": (),
            "evaluation.sizes": (arguments.size,),
            "evaluate_every": arguments.steps // EVALUATIONS,
            "checkpoint.every": arguments.steps,
            "input.num_threads": 2,
            "init_from": init_from,
        },
        variant="224",
    )


def finetune(
    arguments: argparse.Namespace, folder: Path, *, start: str, rate: float, seed: int
) -> Run:
    """Finetunes and reads the curves."""
    init_from = str(arguments.output / "pretraining") if start == "pretrained" else ""
    config = finetuning_config(arguments, folder, init_from=init_from, rate=rate, seed=seed)
    workdir = arguments.output / f"{start}_rate_{rate}_seed_{seed}"
    train.train(config, workdir)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    curve = {row["step"]: row for row in rows if "val/top1" in row}  # the last row of a step counts
    top1, loss = ([row[f"val/{name}"] for row in curve.values()] for name in ("top1", "loss"))
    return Run(start, rate, seed, list(curve), top1, loss)


def run_all(arguments: argparse.Namespace, sets: list[Path]) -> tuple[list[Run], list[Run]]:
    """Selects the rate of each start on the first set, then trains on the others with it.

    Returns:
        The runs of the search, and the runs of the result.
    """
    search = [
        finetune(arguments, sets[TUNING_SEED], start=start, rate=rate, seed=TUNING_SEED)
        for rate in arguments.rates
        for start in STARTS
    ]
    result = []
    for start in STARTS:
        mine = [run for run in search if run.start == start]
        best = max(mine, key=lambda run: (run.top1[-1], -run.loss[-1]))
        for seed, folder in enumerate(sets):
            if seed != TUNING_SEED:
                result.append(finetune(arguments, folder, start=start, rate=best.rate, seed=seed))
    return search, result


def spread(values: Iterable[float]) -> str:
    """Formats the mean and the sample standard deviation."""
    numbers = np.array(list(values))
    return f"{numbers.mean():.3f} ± {numbers.std(ddof=1):.3f}"


def search_table(search: list[Run]) -> list[str]:
    """Returns the table with the last evaluation of the runs of the search."""
    rates = sorted({run.rate for run in search}, reverse=True)
    lines = ["| top-1 (loss) at rate | " + " | ".join(map(str, rates)) + " |"]
    lines.append("|---|" + "---:|" * len(rates))
    for start in STARTS:
        last = {run.rate: run for run in search if run.start == start}
        cells = (f"{last[rate].top1[-1]:.3f} ({last[rate].loss[-1]:.2f})" for rate in rates)
        lines.append(f"| {start} | " + " | ".join(cells) + " |")
    return lines


def result_table(result: list[Run]) -> list[str]:
    """Returns the table of means and deviations; differences are between runs with equal seeds."""
    ours, other = ([run for run in result if run.start == start] for start in STARTS)
    lines = ["| step | " + " | ".join(f"{s} top-1" for s in STARTS) + " | difference | "
             + " | ".join(f"{s} loss" for s in STARTS) + " | difference |"]  # fmt: skip
    lines.append("|---:|" + "---:|" * 6)
    for place, step in enumerate(ours[0].steps):
        cells = []
        for name in ("top1", "loss"):
            mine, theirs = ([getattr(run, name)[place] for run in runs] for runs in (ours, other))
            gains = (a - b for a, b in zip(mine, theirs, strict=True))
            cells += [spread(mine), spread(theirs), spread(gains)]
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return lines


def draw_curves(result: list[Run], path: Path) -> None:
    """Draws the mean over seeds, a band of one standard deviation, and a thin line per seed."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (name, title) in zip(
        figure.subplots(1, 2), (("top1", "top-1"), ("loss", "loss")), strict=True
    ):
        for start, colour in zip(STARTS, ("tab:blue", "tab:orange"), strict=True):
            runs = [run for run in result if run.start == start]
            values, steps = np.array([getattr(run, name) for run in runs]), runs[0].steps
            mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
            axes.plot(steps, mean, marker="o", color=colour, label=f"{start}, rate {runs[0].rate}")
            axes.fill_between(steps, mean - deviation, mean + deviation, color=colour, alpha=0.15)
            axes.plot(steps, values.T, color=colour, linewidth=0.6, alpha=0.6)
        axes.set_xlabel("steps of finetuning")
        axes.set_ylabel(f"validation {title}")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def compare(arguments: argparse.Namespace) -> None:
    """Builds the sets, trains, and prints and writes the results."""
    logging.set_verbosity(logging.INFO)
    arguments.output.mkdir(parents=True, exist_ok=True)
    lines, begin = [where_and_when(), ""], time.perf_counter()
    stamps = transfer_sets.read_stamps(arguments.data)
    images, used = transfer_sets.new_images(stamps), transfer_sets.old_images(stamps)
    every = [name for names in images.values() for name in names]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints progress
            first = transfer_sets.pretraining_set(stamps, work / "pretraining", arguments.shapes)
            sets = [
                transfer_sets.finetuning_set(images, stamps.folder, work, seed)
                for seed in range(arguments.seeds + 1)
            ]
        train.train(pretraining_config(arguments, first), arguments.output / "pretraining")
        seconds = time.perf_counter() - begin
        search, result = run_all(arguments, sets)
    largest = max(len(names) // 2 for names in images.values())
    num_val = sum(len(names) // 2 for names in images.values())
    lines += [
        f"Pretraining: {len(used)} stamps and {arguments.shapes} shapes, "
        f"{arguments.pretraining_steps} steps, {seconds:.0f} s with building. Finetuning: "
        f"{len(every) - num_val} images to train and {num_val} to validate of "
        f"{len(images)} classes ({', '.join(images)}), {arguments.steps} steps of 32. Images "
        f"in common: {transfer_sets.common_images(stamps.folder, used, every)}. Always the largest "
        f"class: top-1 {largest / num_val:.3f}.",
        "", f"The rates, with seed {TUNING_SEED}:", "", *search_table(search),
        "", f"Seeds 1 to {arguments.seeds}, mean ± standard deviation:", "", *result_table(result),
        "", f"{time.perf_counter() - begin:.0f} s; load {os.getloadavg()[0]:.1f} at the end",
    ]  # fmt: skip
    draw_curves(result, arguments.output / "transfer.png")
    (arguments.output / "transfer.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Runs the comparison, with `--quick` on images drawn for it."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            make_quick(arguments, Path(folder))
        compare(arguments)


if __name__ == "__main__":
    main()
