# SPDX-License-Identifier: BSD-3-Clause
"""Where the time of a training went, over all its restarts: `python -m mlimages_jax.goodput W`."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from mlimages_jax.remote_files import append_line

# Of a run's own clock, in this order; what is neither named nor inside another is `startup`.
CATEGORIES = ("startup", "restore", "compile", "input", "step", "evaluation", "save")
EXPLAINED = {
    "startup": "imports, other processes, data set, first use of the devices",
    "restore": "reading a checkpoint, or making the first state",
    "compile": "of the training step",
    "input": "idle, waiting for pictures",
    "step": "training steps that count",
    "lost": "training steps done again after a restart",
    "evaluation": "on the way and at the end",
    "save": "what training waited for; the rest runs beside it",
    "gap": "from a run's last line to the start of the next",
}

Line = dict[str, Any]


class Goodput:
    """The clock of one run: every second belongs to one category.

    Writes a JSON line now and then to workdir/goodput.jsonl, {"start", "time": seconds since 1970,
    "restored", "step": updates done then and now, "seconds": {category: since the start}}; a
    killed run has lost the time since its last line, which counts as gap.

    Args:
        path: of the file; None writes nothing (all processes but the first).
        started: seconds since 1970 at which the program began; None: now.

    Attributes:
        restored: updates done when the run began.
        step: updates done.
    """

    def __init__(self, path: epath.PathLike | None, *, started: float | None = None):
        self._path = epath.Path(path) if path else None
        self._start = self._since = time.time() if started is None else started
        self._category = "startup"
        self._seconds = dict.fromkeys(CATEGORIES, 0.0)
        self.restored = self.step = 0

    def __enter__(self) -> "Goodput":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the last line, and logs the table."""
        with contextlib.suppress(*[OSError] if kind else []):  # not in the place of the first error
            self.write()
            if self._path:
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
        if self._path is None:
            return
        line = {
            "start": round(self._start, 3),
            "time": round(self._since, 3),
            "restored": self.restored,
            "step": self.step,
            "seconds": {name: round(value, 3) for name, value in self._seconds.items()},
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, json.dumps(line))

    def _switch(self, category: str) -> None:
        now = time.time()
        self._seconds[self._category] += now - self._since
        self._since, self._category = now, category


def read(path: epath.PathLike) -> list[Line]:
    """The last line of every run, oldest first; a line cut off by a kill is left out."""
    last: dict[float, Line] = {}
    for text in epath.Path(path).read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            line = json.loads(text)
            last[line["start"]] = line
    return list(last.values())


def summary(runs: list[Line]) -> dict[str, float]:
    """Seconds by category; they add up to the time from the first start to the last line.

    Steps that a run had logged and the next one did again are `lost`, with that run's seconds a
    step. A run that another one overlaps makes the gap negative.
    """
    total = dict.fromkeys(EXPLAINED, 0.0)
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        seconds = run["seconds"]
        for name, value in seconds.items():
            total[name] += value
        if following is None:
            break
        total["gap"] += following["start"] - run["time"]
        done = run["step"] - run["restored"]
        again = min(max(run["step"] - following["restored"], 0), done)
        if again:
            lost = seconds["step"] * again / done
            total["lost"] += lost
            total["step"] -= lost
    return total


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
    if len(arguments) != 1:
        sys.exit("usage: python -m mlimages_jax.goodput WORKDIR")
    path = epath.Path(arguments[0]) / "goodput.jsonl"
    if not path.exists() or not (runs := read(path)):
        sys.exit(f"error: {path} holds no lines: name the workdir of a training")
    print(table(runs))


if __name__ == "__main__":
    main(sys.argv[1:])
