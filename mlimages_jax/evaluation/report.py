# SPDX-License-Identifier: BSD-3-Clause
"""What an evaluation leaves for people: tables of classes and confusions, calibration, numbers."""

import io
import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.calibration import Calibration
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.single_label import SingleLabelMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSED_PAIRS = 100  # rows of confusion.tsv

_BREAKS_A_TABLE = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")  # for any kind of reader
_DOTS_PER_INCH = 200
_TITLE_WIDTH = 58  # letters, of a line of the title
# Told apart in every kind of colour vision, and in grey.
_BLUE, _ORANGE, _GREY = "#56b4e9", "#d55e00", "#333333"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "figure.titlesize": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


def write_files(
    folder: epath.PathLike,
    metrics: MultiLabelMetrics | SingleLabelMetrics,
    hierarchy: Hierarchy,
    *,
    title: str,
    values: Mapping[str, float] | None = None,
) -> None:
    """Writes per_class.tsv, metrics.json, reliability.png and confusion.tsv.

    The last two are left out where the metrics hold no calibration or no pairs of classes.

    Args:
        folder: where to; it is made.
        metrics: of one evaluation.
        hierarchy: of the same classes.
        title: what was evaluated, for the head of the diagram.
        values: what metrics.json shall hold, such as the loss too; None stands for
            `metrics.compute()`.

    Raises:
        ValueError: the hierarchy has another number of classes.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_per_class_table(folder / "per_class.tsv", metrics, hierarchy)
    _write_values(folder / "metrics.json", metrics.compute() if values is None else values)
    if isinstance(metrics, SingleLabelMetrics) and metrics.confusion is not None:
        write_confusions(folder / "confusion.tsv", metrics, hierarchy)
    if metrics.calibration is not None:
        single = isinstance(metrics, SingleLabelMetrics)
        figure = reliability_diagram(metrics.calibration, title=title, single_label=single)
        _write_png(folder / "reliability.png", figure)


def write_per_class_table(
    path: epath.Path, metrics: MultiLabelMetrics | SingleLabelMetrics, hierarchy: Hierarchy
) -> None:
    """Writes a line a class, tab-separated, best first; classes without an image come last.

    Of many labels an image: class, WordNet id, depth, average precision and name. Of one label:
    class, WordNet id, images, top-1, top-5, the name of the class that is predicted most often
    in its place (no such column where pairs of classes were not counted), and name. Numbers that
    no image says anything about are empty.

    Raises:
        ValueError: the hierarchy has another number of classes.
    """
    _check_classes(metrics, hierarchy)
    if isinstance(metrics, SingleLabelMetrics):
        _write_table(path, *_single_label_classes(metrics, hierarchy))
        return
    precision = metrics.per_class_ap()
    rows = [
        (i, hierarchy.ids[i], hierarchy.depth[i], _share(precision[i]), hierarchy.names[i])
        for i in np.argsort(-np.nan_to_num(precision, nan=-1), kind="stable")
    ]
    _write_table(path, ("class", "id", "depth", "average_precision", "name"), rows)


def write_confusions(path: epath.Path, metrics: SingleLabelMetrics, hierarchy: Hierarchy) -> None:
    """Writes the CONFUSED_PAIRS pairs that are confused most often, a line each, tab-separated.

    WordNet id and name of the true and of the predicted class, how many images, and which share
    of the true class's images these are. Unless all classes are roots, also the name of the
    nearest class above both (or of one of the two, where it is above the other); empty for classes
    of different trees.

    Raises:
        ValueError: the hierarchy has another number of classes, or pairs were not counted.
    """
    _check_classes(metrics, hierarchy)
    header = ["true_id", "true_name", "predicted_id", "predicted_name", "images", "share"]
    is_flat = len(hierarchy.roots) == len(hierarchy)
    if not is_flat:
        header.append("common_ancestor")
    images = metrics.per_class()[:, 0]
    rows = []
    for pair in metrics.worst_pairs(CONFUSED_PAIRS):
        row = [hierarchy.ids[pair.true], hierarchy.names[pair.true]]
        row += [hierarchy.ids[pair.predicted], hierarchy.names[pair.predicted]]
        row += [str(pair.images), _share(pair.images / images[pair.true])]
        if not is_flat:
            row.append(_common_ancestor(pair.true, pair.predicted, hierarchy))
        rows.append(row)
    _write_table(path, header, rows)


def reliability_diagram(calibration: Calibration, *, title: str, single_label: bool) -> "Figure":
    """Share that is right against probability, bin by bin, above the number of cases in each bin.

    Where a bar ends above the diagonal the model is too modest, below it too sure (Guo et al.,
    2017, figure 1). The hatched gaps, weighted by the counts, add up to the calibration error.

    Args:
        calibration: what was counted; may be empty.
        title: what was evaluated.
        single_label: True for the predicted class of each image, False for every label.
    """
    images, probability, accuracy = calibration.table()
    used = np.flatnonzero(images)
    width = 1 / len(images)
    bars = {"x": used * width, "width": width, "align": "edge"}
    unit = "images" if single_label else "judged labels"
    import matplotlib  # here and below: it takes long, and every task starts with this module
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 5.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(height=accuracy[used], facecolor=_BLUE, edgecolor="white", label="right", **bars)
        upper.bar(
            height=(probability - accuracy)[used],
            bottom=accuracy[used],
            facecolor="none",
            edgecolor=_ORANGE,
            hatch="////",
            label="gap to the mean probability",
            **bars,
        )
        line = "calibrated (below: too sure)"
        upper.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label=line)
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Share that is right")
        result = "nothing was counted"
        if used.size:
            figure.legend(loc="outside lower center", ncols=2)  # bars may be anywhere within
            result = f"calibration error {calibration.error():.4f}, {images.sum():,} {unit}"
        lines = [*textwrap.wrap(title, _TITLE_WIDTH), result]
        figure.suptitle("\n".join(lines), parse_math=False)
        lower.bar(height=images[used], facecolor=_BLUE, edgecolor="white", **bars)
        whose = "the predicted class" if single_label else "a label"
        lower.set(xlabel=f"Probability of {whose}", ylabel=unit.capitalize())
        _make_logarithmic(lower, largest=int(images.max()))
        figure.align_ylabels()
    return figure


def _make_logarithmic(axes: "Axes", *, largest: int) -> None:
    axes.set_yscale("log")
    axes.set_ylim(0.5, 2 * max(largest, 5))  # a single one is seen, and two ticks
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _single_label_classes(
    metrics: SingleLabelMetrics, hierarchy: Hierarchy
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of classes, best first by top-1, then top-5, then index."""
    counts = metrics.per_class()
    images = counts[:, :1]
    shares = np.where(images > 0, counts[:, 1:] / np.maximum(images, 1), np.nan)
    header = ["class", "id", "images", "top1", "top5", "taken_for", "name"]
    if metrics.confusion is None:
        header.remove("taken_for")
    taken_for = _most_often_taken_for(metrics)
    ranks = -np.nan_to_num(shares, nan=-1)
    rows = []
    for i in np.lexsort((ranks[:, 1], ranks[:, 0])).tolist():
        row = [str(i), hierarchy.ids[i], str(images[i, 0]), *map(_share, shares[i])]
        if metrics.confusion is not None:
            row.append(hierarchy.names[taken_for[i]] if i in taken_for else "")
        rows.append([*row, hierarchy.names[i]])
    return header, rows


def _most_often_taken_for(metrics: SingleLabelMetrics) -> dict[int, int]:
    """Of each class that was ever confused, the class predicted most often in its place."""
    found: dict[int, int] = {}
    if metrics.confusion is not None:
        for pair in metrics.worst_pairs(metrics.confusion.size):
            found.setdefault(pair.true, pair.predicted)
    return found


def _common_ancestor(one: int, other: int, hierarchy: Hierarchy) -> str:
    """The name of the deepest class that is above or equal to both; empty if there is none."""
    above = {other, *hierarchy.ancestors(other).tolist()}
    common = (i for i in [one, *hierarchy.ancestors(one).tolist()] if i in above)
    nearest = next(common, None)
    return "" if nearest is None else hierarchy.names[nearest]


def _check_classes(metrics: MultiLabelMetrics | SingleLabelMetrics, hierarchy: Hierarchy) -> None:
    if metrics.num_classes != len(hierarchy):
        raise ValueError(
            f"metrics of {metrics.num_classes} classes and a hierarchy of {len(hierarchy)}: give "
            "the dictionary of the data set that was evaluated"
        )


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _write_table(path: epath.Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Tab-separated lines; what would break a line or a column within a cell becomes a blank."""
    lines = (
        "\t".join(_BREAKS_A_TABLE.sub(" ", str(cell)) for cell in row) for row in [header, *rows]
    )
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _write_values(path: epath.Path, values: Mapping[str, float]) -> None:
    """A JSON object; nan and infinity become null, as JSON has neither."""
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    path.write_bytes((json.dumps(finite, indent=1) + "\n").encode())


def _write_png(path: epath.Path, figure: "Figure") -> None:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
    path.write_bytes(file.getvalue())
