# SPDX-License-Identifier: BSD-3-Clause
"""Complete trainings with `mlimages_jax.main`: the rate that reaches the device, the cost of saves.

`quickstart` draws images, trains and evaluates; `pretraining` feeds a generated set of JPEG files
through the real pipeline to the full network; `from_a_cpu` starts on this machine's CPU and resumes
on the device.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers.generated_set import write_set
from peers.process import BENCHMARKS

from accelerator_sections import ENVIRONMENT, Section, Settings, table

REPOSITORY = BENCHMARKS.parent
WITHOUT_EVALUATION = "--config.evaluation.splits=()"
SHARDS, RECORDS_OF_SHARD = 32, 128  # 4,096 images of 320 x 427, some 180 MB


def quickstart(_: Settings) -> Iterator[Section]:
    """Runs the quickstart of the README; without its evaluations where nothing draws figures."""
    options = [] if importlib.util.find_spec("matplotlib") else [WITHOUT_EVALUATION]
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "quickstart"
        seconds = train("quickstart.py", workdir, *options)
        rows = metrics(workdir)
        parts = goodput(workdir)
    last = {name: value for row in rows for name, value in row.items()}
    values = {"seconds": seconds, "mAP": last.get("val/mAP"), "goodput": parts}
    values |= _rates(rows)
    yield Section(_as_table("quickstart", values), values)


def pretraining(settings: Settings) -> Iterator[Section]:
    """Runs configs/pretrain.py with the batch of one device, from disk, with intermediate saves.

    Once each with the input in threads and in worker processes.
    """
    steps = 10 * settings.steps
    options = [
        "--config.log_every=10", f"--config.total_steps={steps}", "--config.evaluate_every=0",
        f"--config.checkpoint.every={max(steps // 3, 1)}", f"--config.batch_size={settings.batch}",
        f"--config.image_size={settings.size}", f"--config.model.dtype={settings.dtype}",
        WITHOUT_EVALUATION,
        f"--config.group_size={min(32, settings.batch)}",
        f"--config.input.num_threads={os.cpu_count()}",
    ]  # fmt: skip
    if settings.depth == 50:
        options.append("--config.model.stage_sizes=(3,4,6,3)")
    with tempfile.TemporaryDirectory() as folder:
        data = write_set(
            Path(folder) / "set", classes=settings.classes, shards=SHARDS,
            records=RECORDS_OF_SHARD, images=True,
        )  # fmt: skip
        for workers in 0, max(2, (os.cpu_count() or 2) // 2):
            workdir = Path(folder) / f"W{workers}"
            seconds = train(
                "pretrain.py:released", workdir, f"--config.data.folder={data}",
                f"--config.input.num_workers={workers}", *options,
            )  # fmt: skip
            values = {"seconds": seconds, "worker processes": workers, "goodput": goodput(workdir)}
            values |= _rates(metrics(workdir))
            yield Section(_as_table(f"pretraining, {workers} workers", values), values)


def from_a_cpu(_: Settings) -> Iterator[Section]:
    """Compares a training begun on the CPU and resumed on the device with one all on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "cpu", Path(folder) / "both"
        short = ["--config.log_every=1", "--config.evaluate_every=0", WITHOUT_EVALUATION]
        # The learning rates of the one with 12 steps, also where 8 are all.
        short += [
            "--config.schedule.cosine.total_steps=12",
            "--config.schedule.cosine.warmup_steps=4",
        ]
        on_cpu = {"JAX_PLATFORMS": "cpu"}
        train("quickstart.py", first, "--config.total_steps=12", *short, environment=on_cpu)
        shutil.copytree(first / "data", second / "data")
        train("quickstart.py", second, "--config.total_steps=8", *short, environment=on_cpu)
        train("quickstart.py", second, "--config.total_steps=12", *short)
        losses = [
            {row["step"]: row["training/loss"] for row in metrics(path) if "training/loss" in row}
            for path in (first, second)
        ]
    differences = [abs(losses[1][step] / losses[0][step] - 1) for step in range(9, 13)]
    values = {"largest relative difference of the loss, steps 9 to 12": max(differences)}
    yield Section(
        table(["begun on the CPU", ""], [[k, f"{v:.1e}"] for k, v in values.items()]), values
    )


def train(
    config: str, workdir: Path, *options: str, environment: dict[str, str] | None = None
) -> float:
    """Runs `mlimages_jax.main`; returns the time it took.

    Raises:
        RuntimeError: The training failed; the message has the end of its log.
    """
    start = time.perf_counter()
    ended = subprocess.run(
        [
            sys.executable, "-m", "mlimages_jax.main", f"--config=configs/{config}",
            f"--workdir={workdir}", *options,
        ],
        cwd=REPOSITORY,
        env=os.environ | ENVIRONMENT | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    if ended.returncode:
        raise RuntimeError("\n".join(ended.stdout.splitlines()[-15:]))
    return time.perf_counter() - start


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def goodput(workdir: Path) -> dict[str, float]:
    """Returns the seconds of the last run by category."""
    return json.loads((workdir / "goodput.jsonl").read_text().splitlines()[-1])["seconds"]


def _rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns medians over the second half of the log, after the first steps."""
    found = {}
    for name in ("images_per_second", "input_wait"):
        series = [row[f"training/{name}"] for row in rows if f"training/{name}" in row]
        late = sorted(series[len(series) // 2 :])
        found[name] = late[len(late) // 2]
    return found


def _as_table(name: str, values: dict[str, Any]) -> str:
    flat = {key: value for key, value in values.items() if not isinstance(value, dict)}
    flat |= {f"{key}, s": value for key, value in values["goodput"].items()}
    rows = [[key, "-" if value is None else f"{value:.4g}"] for key, value in flat.items()]
    return table([name, ""], rows)
