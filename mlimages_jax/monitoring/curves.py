# SPDX-License-Identifier: BSD-3-Clause
"""Draws the loss and the metrics of a run over its steps, from metrics.jsonl, as a PNG."""

import io
from typing import TYPE_CHECKING, Any

from absl import logging
from etils import epath

from mlimages_jax.files.remote import read_json_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "curves.png"
_TRAINING = "training"
_METRICS = ("mAP", "top1", "top5")
_DOTS_PER_INCH = 150
# Distinguishable with any kind of colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_GREY = "#999999"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def write_curves(workdir: epath.PathLike) -> None:
    """Draws curves.png in a workdir: losses on the left, metrics of evaluations on the right.

    Draws nothing while there are no metrics. Steps that were repeated after a restart appear once,
    as they were the last time.

    Args:
        workdir: Folder of a training run, which may still be running.
    """
    workdir = epath.Path(workdir)
    series = read_series(workdir / "metrics.jsonl")
    if not series:
        return
    try:
        import matplotlib  # a slow import, which most tasks do not need
        from matplotlib.figure import Figure
    except ImportError as error:  # no reason to end a training
        logging.log_first_n(logging.WARNING, "%s is not drawn: %s", 1, NAME, error)
        return

    names = sorted({name.partition("/")[0] for name in series} - {_TRAINING})
    colours = dict(zip(names, _COLOURS * (1 + len(names) // len(_COLOURS)), strict=False))
    colours[_TRAINING] = _GREY
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        losses = [(f"{name}/loss", name, "-") for name in (_TRAINING, *names)]
        _draw(left, series, losses, colours, title="Loss")
        metrics = [
            (f"{name}/{metric}", f"{name} {metric}", style)
            for metric, style in zip(_METRICS, ("-", "--", ":"), strict=True)
            for name in names
        ]
        _draw(right, series, metrics, colours, title="Metrics of evaluations")
        right.set_ylim(bottom=0)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
    # Drawn in memory, because the workdir may be in a bucket.
    (workdir / NAME).write_bytes(file.getvalue())


def read_series(path: epath.PathLike) -> dict[str, dict[int, float]]:
    """Reads metrics.jsonl: values by step, by the name of the metric; the last of a step counts."""
    series: dict[str, dict[int, float]] = {}
    for line in read_json_lines(path):
        step = line.pop("step", None)
        if not isinstance(step, int):
            continue
        for name, value in line.items():
            if isinstance(value, int | float):
                series.setdefault(name, {})[step] = value
    return {name: dict(sorted(values.items())) for name, values in series.items()}


def _draw(
    axes: "Axes",
    series: dict[str, dict[int, float]],
    lines: list[tuple[str, str, str]],
    colours: dict[str, str],
    *,
    title: str,
) -> None:
    """Draws some series: (name in the file, label, line style)."""
    drawn = False
    for name, label, style in lines:
        if values := series.get(name):
            marker = "o" if len(values) == 1 else None
            axes.plot(
                list(values), list(values.values()), style, color=colours[name.partition("/")[0]],
                label=label, marker=marker, linewidth=1.2,
            )  # fmt: skip
            drawn = True
    axes.set(title=title, xlabel="Step")
    if drawn:
        axes.legend()
