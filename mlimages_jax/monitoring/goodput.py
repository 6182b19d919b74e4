# SPDX-License-Identifier: BSD-3-Clause
"""Where the time of a training went, over all its restarts: `python -m mlimages_jax.goodput W`."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from mlimages_jax.distributed import process_identity
from mlimages_jax.files import paths
from mlimages_jax.files.remote import append_line, read_json_lines

# Of a run's own clock, in this order; what is neither named nor inside another is `startup`.
CATEGORIES = ("startup", "restore", "compile", "input", "step", "evaluation", "save")
EXPLAINED = {
    "startup": "imports, other processes, data set, first use of the devices",
    "restore": "reading a checkpoint, or making the first state",
    "compile": "of the training step",
    "input": "idle, waiting for images",
    "step": "training steps that count",
    "lost": "training steps done again after a restart",
    "evaluation": "on the way and at the end",
    "save": "what training waited for; the rest runs beside it",
    "gap": "from a run's last line to the start of the next, while steps were left",
}

Line = dict[str, Any]
_KEYS = {"start", "time", "restored", "step", "seconds"}


class Goodput:
    """The clock of one run: every second belongs to one category.

    Writes a JSON line now and then to workdir/goodput.jsonl, {"start", "time": seconds since 1970,
    "restored", "step": updates done then and now, "seconds": {category: since the start},
    "finished": whether nothing was left to do}; a killed run has lost the time since its last line,
    which counts as gap. A run that never came as far as its state, such as a start that was
    refused, writes nothing: it has neither done nor lost a step.

    Durations are of a clock that nobody sets. "boot" and "uptime" tell the next run how long ago a
    line was written by the same clock, where the machine is the same.

    Args:
        path: of the file; None writes nothing (all processes but the first).
        started: of time.monotonic(), when the program began; None: now.

    Attributes:
        restored: updates done when the run began; None until its state is there.
        step: updates done.
        finished: to be set when nothing is left to do.
    """

    def __init__(self, path: epath.PathLike | None, *, started: float | None = None):
        self._path = epath.Path(path) if path else None
        now = time.monotonic()
        self._began = self._since = now if started is None else started
        self._start = time.time() - (now - self._began)
        self._category = "startup"
        self._seconds = dict.fromkeys(CATEGORIES, 0.0)
        self.restored: int | None = None
        self.step = 0
        self.finished = False

    def __enter__(self) -> "Goodput":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the last line, and logs the table."""
        with contextlib.suppress(*[OSError] if kind else []):  # not in the place of the first error
            self.write()
            if self._path and self.restored is not None:
                logging.info("%s", table(read(self._path)))

    @contextlib.contextmanager
    def phase(self, category: str) -> Iterator[None]:
        """Counts what happens inside for a category, then goes on with the one before."""
        before = self._category
        self._switch(category)
        try:
            yield
        finally:
            self._switch(before)

    def move(self, seconds: float, category: str) -> None:
        """Counts so many seconds of the present category for another one instead."""
        self._seconds[self._category] -= seconds
        self._seconds[category] += seconds

    def write(self) -> None:
        """Appends a line."""
        self._switch(self._category)
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
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, json.dumps(line))

    def _switch(self, category: str) -> None:
        now = time.monotonic()
        self._seconds[self._category] += now - self._since
        self._since, self._category = now, category


def read(path: epath.PathLike) -> list[Line]:
    """The last line of every run, oldest first; a line cut off by a kill is left out."""
    last = {line["start"]: line for line in read_json_lines(path) if line.keys() >= _KEYS}
    return [run for i, run in enumerate(last.values()) if i == 0 or not _did_nothing(run)]


def summary(runs: list[Line]) -> dict[str, float]:
    """Seconds by category; they add up to the time that the training took, from run to run.

    Steps that a run had logged and the next one did again are `lost`, with that run's seconds a
    step. The time behind a run that left nothing to do belongs to no training.
    """
    total = dict.fromkeys(EXPLAINED, 0.0)
    for run, following in zip(runs, [*runs[1:], None], strict=True):
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
    """Whether it was a start that was refused, of which earlier versions left a line."""
    return run["restored"] == run["step"] == 0 and not run["seconds"].get("step")


def _was_finished(run: Line, following: Line) -> bool:
    """Whether nothing was left to do; lines of earlier versions show it in the run behind them."""
    idle = following["restored"] == following["step"] == run["step"]
    return run.get("finished", False) or (idle and not following["seconds"].get("step"))


def _gap(run: Line, following: Line) -> float:
    """Seconds between two runs: by the machine's own clock, or else by those that people set."""
    if run.get("boot") and run["boot"] == following.get("boot"):
        ran = following["time"] - following["start"]
        return max(0.0, following["uptime"] - ran - run["uptime"])
    return max(0.0, following["start"] - run["time"])


def table(runs: list[Line]) -> str:
    """A summary for people."""
    total = summary(runs)
    wall = sum(total.values())
    lines = [f"{len(runs)} runs, {runs[-1]['step']} steps, {wall:,.0f} s in all"]
    lines += [
        f"  {name:<11}{value:>12,.1f} s {100 * value / max(wall, 1e-9):>6.1f}%  {EXPLAINED[name]}"
        for name, value in total.items()
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Prints the table of a workdir."""
    parser = argparse.ArgumentParser(
        prog="python -m mlimages_jax.goodput", description="Where the time of a training went."
    )
    parser.add_argument("workdir", help="of the training, such as workdirs/quickstart")
    workdir = parser.parse_args(arguments).workdir
    path = epath.Path(paths.expanded(workdir)) / "goodput.jsonl"
    if not path.exists() or not (runs := read(path)):
        sys.exit(f"error: {path} holds no lines: name the workdir of a training")
    print(table(runs))
