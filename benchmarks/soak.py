# SPDX-License-Identifier: BSD-3-Clause
"""Does a long training leak? Descriptors, threads and memory of 10,000 tiny steps with 300 saves.

    python benchmarks/soak.py
    python benchmarks/soak.py --steps 600 --saves 20    # short form

The process is observed from outside. The exit code is 1 if, after the first fifth of the training,
descriptors or threads grow by more than SLACK or memory by more than SLACK_MB.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from faults import LONGEST, command
from peers.job import Job

from mlimages_jax.files.remote import read_json_lines
from tfds_builders import shapes

SLACK, SLACK_MB = 8, 64  # growth allowed for caches and thread pools of libraries
ROW = "| {:>7} | {:>11} | {:>7} | {:>9} |"


class Sample(NamedTuple):
    """The resources of a process at one moment.

    Attributes:
        step: Number of updates so far.
        descriptors: Number of open files, sockets and pipes.
        threads: Number of operating system threads.
        megabytes: Resident memory.
    """

    step: int
    descriptors: int
    threads: int
    megabytes: int


def look(pid: int, workdir: Path) -> Sample:
    """Samples a process; raises OSError if it has ended."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    steps = [line["step"] for line in read_json_lines(workdir / "metrics.jsonl")]
    return Sample(
        max(steps, default=0),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(status["Threads"]),
        int(status["VmRSS"].split()[0]) // 1024,
    )


def watch(job: Job, workdir: Path, *, seconds: float) -> list[Sample]:
    """Samples the process until it ends."""
    samples = []
    while job.processes[0].poll() is None:
        try:
            samples.append(look(job.processes[0].pid, workdir))
        except (OSError, KeyError):  # a zombie has neither memory nor files
            break
        time.sleep(seconds)
    return samples


def main() -> None:
    """Runs the training, prints ten rows, and exits with 1 if something has grown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--saves", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = shapes.build(Path(name) / "data", num_train=96, num_val=24, size=32)
        workdir = Path(name) / "workdir"
        flags = {
            "total_steps": arguments.steps, "schedule.cosine.total_steps": arguments.steps,
            "checkpoint.every": max(1, arguments.steps // arguments.saves), "log_every": 20,
            "evaluate_every": 0,
        }  # fmt: skip
        words = [*command(workdir, data), *(f"--config.{k}={v}" for k, v in flags.items())]
        with Job(Path(name) / "logs", words, devices=2) as job:
            samples = watch(job, workdir, seconds=1.0)
            codes = job.wait(seconds=LONGEST)
            if codes != [0]:
                sys.exit(f"the training exited with {codes}:\n{job.output()[-3000:]}")
    sys.exit(judge([sample for sample in samples if sample.step]))


def judge(samples: list[Sample]) -> str | None:
    """Prints some of the samples; returns what has grown, if anything."""
    print(ROW.format("step", "descriptors", "threads", "RSS, MB"))
    shown = range(0, len(samples), max(1, len(samples) // 10))
    for sample in [samples[number] for number in shown] + samples[-1:]:
        print(ROW.format(*sample))
    early = samples[: max(1, len(samples) // 5)]
    late = samples[-max(1, len(samples) // 5) :]
    grown = []
    for field, slack in (("descriptors", SLACK), ("threads", SLACK), ("megabytes", SLACK_MB)):
        before, after = (max(getattr(one, field) for one in part) for part in (early, late))
        if after > before + slack:
            grown.append(f"{field}: {before} in the first fifth, {after} in the last")
    return f"grown: {'; '.join(grown)}" if grown else None


if __name__ == "__main__":
    main()
