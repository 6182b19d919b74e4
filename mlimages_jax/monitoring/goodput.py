# SPDX-License-Identifier: BSD-3-Clause
"""Accounts for the time of a training, across all restarts: `mlimages goodput WORKDIR`."""

import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath
from tyro.conf import Positional

from mlimages_jax.distributed import process_identity
from mlimages_jax.files import paths
from mlimages_jax.files.remote import append_line, read_json_lines

# Categories of a run's own clock, in the order of the table; all other time is `startup`.
CATEGORIES = ("startup", "restore", "compile", "input", "step", "evaluation", "save")
EXPLAINED = {
    "startup": "imports, waiting for other processes, opening the data set, device initialisation",
    "restore": "restoring a checkpoint, or initialising the state",
    "compile": "compiling the training step",
    "input": "devices idle, waiting for images",
    "step": "productive training steps",
    "lost": "training steps repeated after a restart",
    "evaluation": "evaluations during training and at the end",
    "save": "the blocking part of checkpointing",
    "gap": "between a run's last line and the next run, while steps were left",
}

Line = dict[str, Any]
_KEYS = {"start", "time", "restored", "step", "seconds"}


class Goodput:
    """The clock of one run, which assigns every second to exactly one category.

    Each call of `write` appends a JSON line to workdir/goodput.jsonl: {"start", "time": seconds
    since 1970, "restored", "step": updates done at the start and now, "seconds": {category: seconds
    since the start}, "finished": whether nothing is left to do}. The time between the last line of
    a killed run and the next run counts as gap. A run that ends before it has a state, such as a
    start that was refused, writes nothing: it has neither done nor lost a step.

    Durations are measured with a monotonic clock. With "boot" and "uptime" the next run can tell by
    the same clock how long ago a line was written, if it runs on the same machine.

    Args:
        path: Path of the file; None to write nothing (on all processes but the first).
        started: Value of time.monotonic() when the program started; None for now.

    Attributes:
        restored: Updates done when the run started; None until its state is available.
        step: Updates done.
        finished: Set this to True when nothing is left to do.
        category: The category that counts now.
        devices: What the run computes on, such as "8 x TPU v5"; written as "devices" if set.
    """

    def __init__(self, path: epath.PathLike | None, *, started: float | None = None):
        self._path = epath.Path(path) if path else None
        now = time.monotonic()
        self._began = self._since = now if started is None else started
        self._start = time.time() - (now - self._began)
        self.category = "startup"
        self._seconds = dict.fromkeys(CATEGORIES, 0.0)
        self.restored: int | None = None
        self.step = 0
        self.finished = False
        self.devices = ""

    def __enter__(self) -> "Goodput":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the last line and logs the table."""
        with contextlib.suppress(*[OSError] if kind else []):  # do not mask the original error
            self.write()
            if self._path and self.restored is not None:
                logging.info("%s", table(read(self._path)))

    @contextlib.contextmanager
    def phase(self, category: str) -> Iterator[None]:
        """Assigns the time of the block to a category, then switches back to the previous one."""
        before = self.category
        self._switch(category)
        try:
            yield
        finally:
            self._switch(before)

    def move(self, seconds: float, category: str) -> None:
        """Moves seconds from the current category to another one."""
        self._seconds[self.category] -= seconds
        self._seconds[category] += seconds

    def write(self) -> None:
        """Appends a line with the current state of the clock."""
        self._switch(self.category)
        if self._path is None or self.restored is None:
            return
        line = {
            "start": round(self._start, 3),
            "time": round(self._start + self._since - self._began, 3),
            "restored": self.restored,
            "step": self.step,
            "seconds": {name: round(value, 3) for name, value in self._seconds.items()},
            "finished": self.finished,
            "boot": process_identity.boot(),
            "uptime": round(process_identity.uptime(), 3),
            **({"devices": self.devices} if self.devices else {}),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, json.dumps(line))

    def _switch(self, category: str) -> None:
        now = time.monotonic()
        self._seconds[self.category] += now - self._since
        self._since, self.category = now, category


def read(path: epath.PathLike) -> list[Line]:
    """Reads the last line of every run, oldest first; skips lines truncated by a kill."""
    # Lines of a run have the same start, so the dict keeps the last of each.
    last = {line["start"]: line for line in read_json_lines(path) if line.keys() >= _KEYS}
    return [run for i, run in enumerate(last.values()) if i == 0 or not _did_nothing(run)]


def summary(runs: list[Line]) -> dict[str, float]:
    """Seconds by category, which add up to the wall-clock time of the training.

    Steps that a run logged and the next one repeated count as `lost`, at the average step time of
    the earlier run. The time after a finished run is not counted.
    """
    total = dict.fromkeys(EXPLAINED, 0.0)
    for run, following in itertools.zip_longest(runs, runs[1:]):
        seconds = run["seconds"]
        for name, value in seconds.items():
            total[name] += value
        if following is None:
            break
        if not _was_finished(run, following):
            total["gap"] += _gap(run, following)
        done = run["step"] - run["restored"]
        again = min(max(run["step"] - following["restored"], 0), done)
        if again:
            lost = seconds["step"] * again / done
            total["lost"] += lost
            total["step"] -= lost
    return total


def _did_nothing(run: Line) -> bool:
    """Returns whether a line is from a refused start, which earlier versions logged."""
    return run["restored"] == run["step"] == 0 and not run["seconds"].get("step")


def _was_finished(run: Line, following: Line) -> bool:
    """Returns whether a run was finished; in old files only the run after it shows that."""
    idle = following["restored"] == following["step"] == run["step"]
    return run.get("finished", False) or (idle and not following["seconds"].get("step"))


def _gap(run: Line, following: Line) -> float:
    """Seconds between two runs, by the uptime of a common machine, else by the wall clocks."""
    if run.get("boot") and run["boot"] == following.get("boot"):
        ran = following["time"] - following["start"]
        return max(0.0, following["uptime"] - ran - run["uptime"])
    return max(0.0, following["start"] - run["time"])


def table(runs: list[Line]) -> str:
    """Returns the summary as a printable table."""
    total = summary(runs)
    wall = sum(total.values())
    lines = [f"{len(runs)} runs, {runs[-1]['step']} steps, {wall:,.0f} s in total"]
    lines += [
        f"  {name:<11}{value:>12,.1f} s {100 * value / max(wall, 1e-9):>6.1f}%  {EXPLAINED[name]}"
        for name, value in total.items()
    ]
    return "\n".join(lines)


def show(workdir: Positional[str], /) -> None:
    """Show how a training spent its time, across all restarts.

        mlimages goodput workdirs/quickstart

    Args:
        workdir: workdir of the training.
    """
    path = epath.Path(paths.expanded(workdir)) / "goodput.jsonl"
    if not path.exists() or not (runs := read(path)):
        sys.exit(f"error: {path} is missing or empty: give the workdir of a training")
    print(table(runs))
