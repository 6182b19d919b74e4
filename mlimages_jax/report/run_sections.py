# SPDX-License-Identifier: BSD-3-Clause
"""Sections of the page about the training as a whole: summary, where the time went, curves."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mlimages_jax.monitoring import goodput
from mlimages_jax.report import charts
from mlimages_jax.report.charts import Line
from mlimages_jax.report.content import Bar, Cell, Chart, Section, Table
from mlimages_jax.report.run_files import Run
from mlimages_jax.settings.tasks import TABLES

_TRAIN = "`mlimages train` writes {} to its workdir."
_RATE = "training/images_per_second"
_SHOWN = (
    "step", "mAP", "balanced_mAP", "mAP_head", "mAP_medium", "mAP_tail", "top1", "top5",
    "precision@5", "recall@5", "f1@5", "hierarchical_f1", "calibration_error", "loss", "examples",
)  # fmt: skip

_CURVES = (  # title, unit, and the last parts of the metrics' names
    ("Loss", "loss", ("loss",)),
    ("Metrics of evaluations", "metric", ("mAP", "top1", "top5")),
    ("Learning rate", "learning rate", ("learning_rate",)),
    ("Throughput", "images per second", ("images_per_second",)),
    ("Devices waiting for images", "fraction of the time", ("input_wait",)),
)


def summary(runs: Sequence[Run]) -> Section:
    """Returns what the runs are, how they are used, and how far they have come."""
    columns = ["", *(run.name for run in runs)]
    facts: list[list[Cell]] = [
        ["Steps", *map(_steps, runs)],
        ["State", *(run.state or None for run in runs)],
        ["Starts", *(len(run.runs) or None for run in runs)],
        ["Devices", *(_devices(run) for run in runs)],
        ["Images per second, median", *(_median(run, _RATE) for run in runs)],
        ["Goodput", *(_goodput(run) for run in runs)],
        ["Data set", *(str(run.settings.get("data.folder", "")) or None for run in runs)],
    ]
    found = [name for name in _SHOWN if any(name in run.values for run in runs)]
    evaluated: list[list[Cell]] = [
        [name, *(run.values.get(name) for run in runs)] for name in found
    ]
    tables = [Table("The runs" if len(runs) > 1 else "The run", columns, facts)]
    if evaluated:
        tables.append(Table("Evaluation", columns, evaluated))
    changed = changed_settings([run.settings for run in runs])
    if changed:
        names = ["setting", "default", *(run.name for run in runs)]
        caption = f"{len(changed)} settings that differ from their defaults"
        tables.append(Table(caption, names, changed, is_folded=True))
    missing = "" if any(run.settings for run in runs) else _TRAIN.format("config.json")
    return Section(key="summary", title="Summary", tables=tables, missing=missing)


def time(runs: Sequence[Run]) -> Section:
    """Returns where the time went, over all starts."""
    tables = []
    for run in runs:
        seconds = goodput.summary(run.runs)
        total = sum(seconds.values())
        rows: list[list[Cell]] = [
            [name, goodput.EXPLAINED[name], round(value, 1), _share(value, total)]
            for name, value in seconds.items()
            if value
        ]
        if rows:
            starts = f"{len(run.runs)} starts" if len(run.runs) > 1 else "one start"
            caption = f"{run.name}: {total:,.0f} seconds, {starts}"
            tables.append(Table(caption, ("", "what it is", "seconds", "fraction"), rows))
    missing = "" if tables else _TRAIN.format("goodput.jsonl")
    return Section(key="time", title="Where the time went", tables=tables, missing=missing)


def curves(runs: Sequence[Run]) -> Section:
    """Returns the curves over all starts: losses, metrics, learning rate and throughput."""
    restarts = [int(one["restored"]) for one in runs[0].runs if one["restored"]]
    drawn = []
    for title, unit, wanted in _CURVES:
        lines = [
            Line(name if len(wanted) > 1 else name.removesuffix(f"/{wanted[0]}"), run.name, values)
            for run in runs
            for name, values in run.series.items()
            if name.rpartition("/")[2] in wanted
        ]
        if lines:
            specification = charts.lines(lines, unit=unit, restarts=restarts, zero=unit != "loss")
            drawn.append(Chart(title, specification, _in_words(lines), _few_values(title, lines)))
    text = "Dashed vertical rules are restarts. " if restarts else ""
    return Section(
        key="curves",
        title="Curves",
        text=f"{text}Steps that were repeated after a restart appear once, as they were last."
        if drawn
        else "",
        charts=drawn,
        missing="" if drawn else _TRAIN.format("metrics.jsonl, a line every `log_every` steps,"),
    )


def changed_settings(several: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    """Returns rows of name, default and values, of settings that are not at their defaults."""
    rows: list[list[Cell]] = []
    for name, setting in TABLES["train"].items():
        default = None if setting.is_required else _text(setting.default)
        values = [_text(one[name]) if name in one else default for one in several]
        if any(value != default for value in values):
            rows.append([name, default, *values])
    return rows


def _text(value: Any) -> str:
    """Formats a value; tuples as the lists that they are in JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _steps(run: Run) -> str | None:
    total = run.settings.get("total_steps")
    if run.step is None:
        return None
    return f"{run.step:,} of {total:,}" if isinstance(total, int) else f"{run.step:,}"


def _devices(run: Run) -> str | None:
    found = dict.fromkeys(str(one["devices"]) for one in run.runs if one.get("devices"))
    return " / ".join(found) or None


def _median(run: Run, name: str) -> float | None:
    values = [*run.series.get(name, {}).values()]
    return round(statistics.median(values), 1) if values else None


def _goodput(run: Run) -> Cell:
    seconds = goodput.summary(run.runs)
    total = sum(seconds.values())
    return _share(seconds["step"], total) if total else None


def _share(part: float, total: float) -> Bar:
    return Bar(part / total, f"{part / total:.1%}")


def _in_words(lines: Sequence[Line]) -> str:
    parts = []
    for line in lines:
        (first, start), (last, end) = ([*line.values.items()][i] for i in (0, -1))
        parts.append(f"{line.name}: {start:.4g} at step {first:,}, {end:.4g} at step {last:,}")
    return "; ".join(parts)


def _few_values(title: str, lines: Sequence[Line]) -> Table | None:
    """Returns the values as a table if there are at most 50 steps, as those of evaluations."""
    steps = sorted({step for line in lines for step in line.values})
    several = len({line.run for line in lines}) > 1
    names = [f"{line.run}: {line.name}" if several else line.name for line in lines]
    rows: list[list[Cell]] = [[step, *(line.values.get(step) for line in lines)] for step in steps]
    return Table(f"{title}, by step", ("step", *names), rows) if len(steps) <= 50 else None
