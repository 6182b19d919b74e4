# SPDX-License-Identifier: BSD-3-Clause
"""Faults at random moments of a training in one or two processes: how it ends, what it costs.

    python benchmarks/faults.py               # 20 SIGTERM, 8 SIGKILL, 2 or 3 of each other fault
    python benchmarks/faults.py --times 1     # one of each
    python benchmarks/faults.py --processes 1 --times 15
    python benchmarks/faults.py --only SIGKILL --times 100

Each trial starts a training, injects the fault, runs the same command again until it finishes, and
compares the result with an undisturbed training: the loss of every step, which a different batch
would change, and every bit of the last checkpoint. Lost steps are those that were logged and then
repeated by the next run. The moment is drawn from the entire time between the first log line and
the end of the undisturbed training: start-up, compilation, steps, evaluations, saves.
"""

import argparse
import functools
import itertools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from peers.job import Job

from mlimages_jax.checkpoints import manager
from mlimages_jax.files.remote import read_json_lines
from mlimages_jax.monitoring import goodput
from tfds_builders import shapes

STEPS, SAVED_EVERY, EVALUATED_EVERY = 120, 15, 40
DEVICES = 2  # per process
FIRST_LINE = "process 0 of "
LONGEST = 600  # seconds that a training may take
ROW = "| {:44} | {:>5} | {:22} | {:>13} | {:>10} | {:>12} | {:>9} |"

SLOW_INPUT = """
import sys, threading, time
if "--process_id=1" in sys.argv:
    from mlimages_jax.data import records
    whole, reads, lock = records.Records.__getitem__, [0], threading.Lock()
    def late(self, index):
        with lock:
            reads[0] += 1
            if reads[0] % 600 == 0:
                time.sleep(5)
        return whole(self, index)
    records.Records.__getitem__ = late
"""
# Stands for a full disk without root or a file system of its own: Python ignores SIGXFSZ, so a
# write beyond the limit fails with an OSError.
FULL_DISK = """
import resource, sys
if "--process_id=0" in sys.argv:  # this process writes the replicated arrays
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
"""


class Fault(NamedTuple):
    """A fault to inject.

    Attributes:
        name: Name in the table.
        fraction: Number of trials, as a fraction of `--times`.
        strike: Called on the running processes at a random moment; None injects nothing.
        prefix: Python code to run before the program, on its first start only.
        harm: Called on the workdir before the restart.
        second: Whether the same command is started a second time while the first is running.
    """

    name: str
    fraction: float
    strike: Callable[[Job, random.Random], None] | None = None
    prefix: str = ""
    harm: Callable[[Path, random.Random], None] | None = None
    second: bool = False


class Outcome(NamedTuple):
    """The outcome of one trial.

    Attributes:
        codes: Exit code of each process after the fault.
        seconds: Time from the fault until the last process exited.
        lost: Number of repeated steps.
        same_losses: Whether every step has the loss of the undisturbed training.
        same_bits: Whether the last checkpoint equals that of the undisturbed training.
    """

    codes: tuple[int, ...]
    seconds: float
    lost: int
    same_losses: bool
    same_bits: bool


def send(kind: signal.Signals, *, times: int = 1, everyone: bool = False) -> Callable[..., None]:
    """Returns a strike that sends a signal to one random process, or to all."""

    def strike(job: Job, rng: random.Random) -> None:
        victims = list(job.processes) if everyone else [rng.choice(list(job.processes))]
        for _ in range(times):
            for number in victims:
                job.send(number, kind)
            time.sleep(0.01)

    return strike


def flip_bits(workdir: Path, rng: random.Random) -> None:
    """Flips a bit in the largest file of the newest checkpoint."""
    newest = max(_steps(workdir), key=lambda step: int(step.name), default=None)
    if newest is not None:
        path = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def cut_files(workdir: Path, rng: random.Random) -> None:
    """Truncates every file of the newest checkpoint to half, and adds an empty newer checkpoint."""
    steps = _steps(workdir)
    newest = max(steps, key=lambda step: int(step.name), default=None)
    for path in newest.rglob("*") if newest is not None else ():
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if newest is not None:
        newest.with_name(str(int(newest.name) + rng.randrange(1, 5))).mkdir()


def halve_lines(workdir: Path, _: random.Random) -> None:
    """Truncates the last line of every JSON Lines file, as a kill or a full disk does."""
    for path in workdir.glob("*.jsonl"):
        data = path.read_bytes()
        last = data.rstrip(b"\n").rfind(b"\n") + 1
        path.write_bytes(data[: last + (len(data) - last) // 2])


def _steps(workdir: Path) -> list[Path]:
    return [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]


KILL_ALL = send(signal.SIGKILL, everyone=True)
FAULTS = (
    Fault("SIGTERM to one process", 1, send(signal.SIGTERM)),
    Fault("SIGHUP to one process", 0.15, send(signal.SIGHUP)),
    Fault("SIGTERM to all", 0.15, send(signal.SIGTERM, everyone=True)),
    Fault("20 SIGTERM to one, 10 ms apart", 0.15, send(signal.SIGTERM, times=20)),
    Fault("SIGKILL of one process", 0.4, send(signal.SIGKILL)),
    Fault("SIGKILL of all", 0.15, KILL_ALL),
    Fault("the disk of one is full when it saves", 0.1, prefix=FULL_DISK),
    Fault("reads of one process hang 5 s, again and again", 0.1, prefix=SLOW_INPUT),
    Fault("killed; a bit of the newest checkpoint flips", 0.15, KILL_ALL, harm=flip_bits),
    Fault("killed; the newest checkpoint is cut off", 0.15, KILL_ALL, harm=cut_files),
    Fault("killed; half a last line", 0.15, KILL_ALL, harm=halve_lines),
    Fault("a second run in the workdir", 0.15, second=True),
)


def command(workdir: Path, data: Path) -> list[str]:
    """Returns the arguments of the program."""
    values = {
        "task": "train", "data.folder": data, "image_size": 32, "batch_size": 16, "group_size": 4,
        "total_steps": STEPS, "log_every": 1, "evaluate_every": EVALUATED_EVERY,
        "model.stage_sizes": "(1, 1)", "model.stage_widths": "(16, 32)", "model.stem_width": 8,
        "schedule.cosine.warmup_steps": 20, "schedule.cosine.total_steps": STEPS,
        "evaluation.batch_size": 16, "checkpoint.every": SAVED_EVERY, "input.num_threads": 2,
    }  # fmt: skip
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return ["--config=configs/quickstart.py", f"--workdir={workdir}", *flags]


def losses(workdir: Path) -> dict[int, float]:
    """Returns the loss of every step, from the last line logged for it."""
    # A later line replaces an earlier one, so the steps that a restart repeats are compared too.
    lines = read_json_lines(workdir / "metrics.jsonl")
    return {line["step"]: line["training/loss"] for line in lines if "training/loss" in line}


def start(work: Path, arguments: list[str], *, processes: int, prefix: str = "") -> Job:
    """Starts the processes of a training."""
    return Job(work / "logs", arguments, count=processes, devices=DEVICES, prefix=prefix)


def finish(work: Path, arguments: list[str], *, processes: int) -> None:
    """Restarts the training and waits until it finishes."""
    with start(work, arguments, processes=processes) as job:
        codes = job.wait(seconds=LONGEST)
        if any(codes):
            sys.exit(f"the restart exited with {codes}:\n{job.output(0)[-3000:]}")


def same_bits(one: Path, other: Path) -> bool:
    """Returns whether the last checkpoints are equal."""
    equal = jax.tree.map(np.array_equal, manager.load(one), manager.load(other))
    return all(jax.tree.leaves(equal))


def steps_lost(workdir: Path) -> int:
    """Returns the number of steps that one run logged and the next one repeated."""
    runs = goodput.read(workdir / "goodput.jsonl")
    pairs = itertools.pairwise(runs)
    return sum(max(0, run["step"] - following["restored"]) for run, following in pairs)


def refused(work: Path, arguments: list[str], *, processes: int) -> None:
    """Starts the same command while the first is running; it must exit with 1."""
    with start(work / "second", arguments, processes=processes) as job:
        codes = job.wait(seconds=LONGEST)
        if set(codes) != {1} or "is in use by" not in job.output(0):
            sys.exit(f"the second run exited with {codes}:\n{job.output(0)[-3000:]}")


def trial(
    fault: Fault,
    work: Path,
    *,
    data: Path,
    reference: Path,
    processes: int,
    duration: float,
    rng: random.Random,
) -> Outcome:
    """Injects a fault, restarts the training and compares the results."""
    workdir = work / "disturbed"
    arguments = command(workdir, data)
    with start(work, arguments, processes=processes, prefix=fault.prefix) as job:
        job.until(FIRST_LINE, seconds=LONGEST)
        if fault.strike:
            time.sleep(rng.uniform(0, duration))
            fault.strike(job, rng)
        begin = time.monotonic()
        if fault.second:
            refused(work, arguments, processes=processes)
        codes = tuple(job.wait(seconds=LONGEST))
        seconds = time.monotonic() - begin
    if fault.harm:
        fault.harm(workdir, rng)
    if any(codes) or fault.harm:  # a fault in the last moment may find the training complete
        finish(work, arguments, processes=processes)
    return Outcome(
        codes,
        seconds,
        steps_lost(workdir),
        losses(workdir) == losses(reference),
        same_bits(workdir, reference),
    )


def print_row(fault: Fault, outcomes: list[Outcome]) -> None:
    """Prints the worst outcome of all trials of a fault."""
    seen = Counter(outcome.codes for outcome in outcomes)
    codes = ", ".join(f"{n} x {'/'.join(map(str, pair))}" for pair, n in seen.most_common())
    ended = f"{max(o.seconds for o in outcomes):.0f}" if fault.strike else ""
    print(
        ROW.format(
            fault.name,
            len(outcomes),
            codes,
            ended,
            max(o.lost for o in outcomes),
            f"{sum(o.same_losses for o in outcomes)} of {len(outcomes)}",
            f"{sum(o.same_bits for o in outcomes)} of {len(outcomes)}",
        ),
        flush=True,
    )


def main() -> None:
    """Runs the trials and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="trials of SIGTERM to one process")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--processes", type=int, default=2, choices=(1, 2), help="per training")
    parser.add_argument("--only", default="", help="faults with this text in their names")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        data = shapes.build(Path(name) / "data", num_train=96, num_val=24, size=32)
        reference = Path(name) / "reference"
        with start(Path(name), command(reference, data), processes=arguments.processes) as job:
            job.until(FIRST_LINE, seconds=LONGEST)
            begin = time.monotonic()
            assert job.wait(seconds=LONGEST) == [0] * arguments.processes, job.output(0)
            duration = time.monotonic() - begin
        one = functools.partial(
            trial, data=data, reference=reference, processes=arguments.processes
        )
        print(f"{STEPS} steps, saved every {SAVED_EVERY}, in {duration:.0f} s\n")
        print(ROW.format("fault", "times", "exit codes", "ended after, s", "steps lost",
                         "same losses", "same bits"))  # fmt: skip
        for fault in (fault for fault in FAULTS if arguments.only in fault.name):
            outcomes = []
            for number in range(max(1, round(fault.fraction * arguments.times))):
                work = Path(name) / f"{FAULTS.index(fault)}-{number}"
                outcomes.append(one(fault, work, rng=rng, duration=duration))
                print(f"{fault.name}, trial {number + 1}: {outcomes[-1]}", file=sys.stderr)
            print_row(fault, outcomes)


if __name__ == "__main__":
    main()
