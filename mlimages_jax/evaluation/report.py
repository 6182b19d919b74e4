# SPDX-License-Identifier: BSD-3-Clause
"""The files of an evaluation: per-class table, confusions, calibration and metrics."""

import io
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from mlimages_jax.evaluation.class_details import COLUMNS, ClassDetails, fraction
from mlimages_jax.files.escaping import finite
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.calibration import Calibration
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.single_label import SingleLabelMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSED_PAIRS = 100  # rows of confusion.tsv
CALIBRATION = ("from", "to", "predictions", "mean_probability", "accuracy")  # calibration.tsv

# Everything that str.splitlines or a spreadsheet may take for a line or column end.
_BREAKS_A_TABLE = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_DOTS_PER_INCH = 200
_TITLE_WIDTH = 58  # characters per line of the title
# Distinguishable with any kind of colour vision, and in greyscale.
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
    details: ClassDetails | None = None,
) -> None:
    """Writes per_class.tsv, metrics.json, reliability.png, calibration.tsv and confusion.tsv.

    The last three are omitted if the metrics have no calibration, or no confusions were counted.

    Args:
        folder: Output folder; it is created.
        metrics: Metrics of one evaluation.
        hierarchy: A hierarchy of the same classes.
        title: Title of the diagram, which says what was evaluated.
        values: Contents of metrics.json, for example with the loss; None uses
            `metrics.compute()`. With several labels per image the means of groups of classes are
            added.
        details: Numbers of the classes, for several labels per image; None computes them.

    Raises:
        ValueError: If the hierarchy has another number of classes.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = metrics.compute() if values is None else values
    if isinstance(metrics, MultiLabelMetrics):
        _check_classes(metrics, hierarchy)
        details = details or ClassDetails.of(metrics, hierarchy)
        values = {**values, **details.means()}
    write_per_class_table(folder / "per_class.tsv", metrics, hierarchy, details)
    _write_values(folder / "metrics.json", values)
    if metrics.has_pairs:
        write_confusions(folder / "confusion.tsv", metrics, hierarchy)
    if metrics.calibration is not None:
        single = isinstance(metrics, SingleLabelMetrics)
        figure = reliability_diagram(metrics.calibration, title=title, single_label=single)
        _write_png(folder / "reliability.png", figure)
        _write_table(
            folder / "calibration.tsv", CALIBRATION, _calibration_rows(metrics.calibration)
        )


def write_per_class_table(
    path: epath.Path,
    metrics: MultiLabelMetrics | SingleLabelMetrics,
    hierarchy: Hierarchy,
    details: ClassDetails | None = None,
) -> None:
    """Writes one tab-separated line per class, best first; classes without images come last.

    The columns for several labels per image are `class_details.COLUMNS`. For one label per image
    they are class, WordNet id, images, top-1, top-5, the class most often predicted instead
    (omitted without a confusion matrix), and name. Numbers that are undefined, for lack of images,
    are empty.

    Raises:
        ValueError: If the hierarchy has another number of classes.
    """
    _check_classes(metrics, hierarchy)
    if isinstance(metrics, SingleLabelMetrics):
        _write_table(path, *_single_label_classes(metrics, hierarchy))
        return
    details = details or ClassDetails.of(metrics, hierarchy)
    _write_table(path, COLUMNS, details.rows())


def write_confusions(
    path: epath.Path, metrics: MultiLabelMetrics | SingleLabelMetrics, hierarchy: Hierarchy
) -> None:
    """Writes the CONFUSED_PAIRS most frequently confused pairs, one tab-separated line each.

    The columns are WordNet id and name of the true and of the predicted class, number of images,
    and their fraction of the true class's images. Unless all classes are roots, the last column
    is the name of the nearest common ancestor (which may be one of the two classes); it is empty
    for classes of different trees.

    Raises:
        ValueError: If the hierarchy has another number of classes, or no pairs were counted.
    """
    _check_classes(metrics, hierarchy)
    # The names of columns are those of version 0.1, which scripts read.
    header = ["true_id", "true_name", "predicted_id", "predicted_name", "images", "share"]
    is_flat = len(hierarchy.roots) == len(hierarchy)
    if not is_flat:
        header.append("common_ancestor")
    images = metrics.images_of_classes()
    rows = []
    for pair in metrics.worst_pairs(CONFUSED_PAIRS):
        row = [hierarchy.ids[pair.true], hierarchy.names[pair.true]]
        row += [hierarchy.ids[pair.predicted], hierarchy.names[pair.predicted]]
        row += [str(pair.images), fraction(pair.images / images[pair.true])]
        if not is_flat:
            row.append(_common_ancestor(pair.true, pair.predicted, hierarchy))
        rows.append(row)
    _write_table(path, header, rows)


def reliability_diagram(calibration: Calibration, *, title: str, single_label: bool) -> "Figure":
    """Draws accuracy against probability in bins, above the number of cases per bin.

    Where a bar ends above the diagonal the model is underconfident, below it overconfident (Guo et
    al., 2017, figure 1). The hatched gaps, weighted by the counts, add up to the calibration error.

    Args:
        calibration: The counts; may be empty.
        title: Title, which says what was evaluated.
        single_label: True for the predicted class of each image, False for every label.
    """
    images, probability, accuracy = calibration.table()
    used = np.flatnonzero(images)
    width = 1 / len(images)
    bars = {"x": used * width, "width": width, "align": "edge"}
    unit = "images" if single_label else "judged labels"
    import matplotlib  # a slow import, which most tasks do not need
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 5.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(
            height=accuracy[used], facecolor=_BLUE, edgecolor="white", label="correct", **bars
        )
        upper.bar(
            height=(probability - accuracy)[used],
            bottom=accuracy[used],
            facecolor="none",
            edgecolor=_ORANGE,
            hatch="////",
            label="gap to the mean probability",
            **bars,
        )
        line = "perfectly calibrated (below: overconfident)"
        upper.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label=line)
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
        result = "no predictions"
        if used.size:
            figure.legend(loc="outside lower center")  # inside it might cover bars
            result = f"calibration error {calibration.error():.4f}, {images.sum():,} {unit}"
        lines = [*textwrap.wrap(title, _TITLE_WIDTH), result]
        figure.suptitle("\n".join(lines), parse_math=False)  # names may contain dollar signs
        lower.bar(height=images[used], facecolor=_BLUE, edgecolor="white", **bars)
        whose = "the predicted class" if single_label else "a label"
        lower.set(xlabel=f"Probability of {whose}", ylabel=unit.capitalize())
        _make_logarithmic(lower, largest=int(images.max()))
        figure.align_ylabels()
    return figure


def _calibration_rows(calibration: Calibration) -> Iterator[tuple[object, ...]]:
    """Yields the bins of the reliability diagram; numbers of empty ones are empty."""
    table = calibration.table()
    ends = np.linspace(0, 1, len(table.images) + 1)
    for low, high, *values in zip(ends[:-1], ends[1:], *table, strict=True):
        count, probability, accuracy = values
        yield f"{low:.4f}", f"{high:.4f}", count, fraction(probability), fraction(accuracy)


def _make_logarithmic(axes: "Axes", *, largest: int) -> None:
    axes.set_yscale("log")
    axes.set_ylim(0.5, 2 * max(largest, 5))  # shows counts of 1, and at least two ticks
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _single_label_classes(
    metrics: SingleLabelMetrics, hierarchy: Hierarchy
) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the class table, sorted by top-1, then top-5, then index."""
    counts = metrics.per_class()
    images = counts[:, :1]
    fractions = np.where(images > 0, counts[:, 1:] / np.maximum(images, 1), np.nan)
    header = ["class", "id", "images", "top1", "top5", "taken_for", "name"]
    if metrics.confusion is None:
        header.remove("taken_for")
    taken_for = _most_often_taken_for(metrics)
    ranks = -np.nan_to_num(fractions, nan=-1)
    rows = []
    for i in np.lexsort((ranks[:, 1], ranks[:, 0])).tolist():
        row = [str(i), hierarchy.ids[i], str(images[i, 0]), *map(fraction, fractions[i])]
        if metrics.confusion is not None:
            row.append(hierarchy.names[taken_for[i]] if i in taken_for else "")
        rows.append([*row, hierarchy.names[i]])
    return header, rows


def _most_often_taken_for(metrics: SingleLabelMetrics) -> dict[int, int]:
    """Maps each class with mistakes to the class most often predicted instead."""
    found: dict[int, int] = {}
    if metrics.confusion is not None:
        for pair in metrics.worst_pairs(metrics.confusion.size):
            found.setdefault(pair.true, pair.predicted)
    return found


def _common_ancestor(one: int, other: int, hierarchy: Hierarchy) -> str:
    """Returns the name of the deepest class above or equal to both; "" if there is none."""
    above = {other, *hierarchy.ancestors(other).tolist()}  # ancestors come nearest first
    common = (i for i in [one, *hierarchy.ancestors(one).tolist()] if i in above)
    nearest = next(common, None)
    return "" if nearest is None else hierarchy.names[nearest]


def _check_classes(metrics: MultiLabelMetrics | SingleLabelMetrics, hierarchy: Hierarchy) -> None:
    if metrics.num_classes != len(hierarchy):
        raise ValueError(
            f"metrics of {metrics.num_classes} classes but a hierarchy of {len(hierarchy)}: give "
            "the class list of the data set that was evaluated"
        )


def _write_table(path: epath.Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes tab-separated lines; characters that would break a line or column become spaces."""
    lines = (
        "\t".join(_BREAKS_A_TABLE.sub(" ", str(cell)) for cell in row) for row in [header, *rows]
    )
    # As bytes: in text mode, line ends and encoding would be those of the system.
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _write_values(path: epath.Path, values: Mapping[str, float]) -> None:
    """Writes a JSON object; nan and infinity become null, because JSON has neither."""
    path.write_bytes((json.dumps(finite(values), indent=1) + "\n").encode())


def _write_png(path: epath.Path, figure: "Figure") -> None:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
    path.write_bytes(file.getvalue())
