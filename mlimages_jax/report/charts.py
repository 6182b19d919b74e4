# SPDX-License-Identifier: BSD-3-Clause
"""The charts, as Vega-Lite. Colours are CSS variables, so that a page is light or dark."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np

_HEIGHT = 260
_POINTS = 1_000  # of a line; more cannot be told apart
_COLOURS = [f"var(--series-{i})" for i in range(1, 7)]
_QUIET = "var(--quiet)"


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        name: Its entry in the legend.
        run: Run that it belongs to; runs differ in their dashes.
        values: Values by step.
    """

    name: str
    run: str
    values: Mapping[int, float]


def lines(
    drawn: Sequence[Line], *, unit: str, restarts: Sequence[int] = (), zero: bool = True
) -> dict[str, Any]:
    """Draws values over steps.

    Args:
        drawn: Lines, of one run or several.
        unit: Title of the vertical axis.
        restarts: Steps at which the run was started again, drawn as thin rules.
        zero: Whether the vertical axis begins at 0.
    """
    rows = [
        {"step": step, "value": value, "line": line.name, "run": line.run}
        for line in drawn
        for step, value in _thinned(line.values)
    ]
    names = list(dict.fromkeys(line.name for line in drawn))
    runs = list(dict.fromkeys(line.run for line in drawn))
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(names))]
    encoding: dict[str, Any] = {
        "x": alt.X("step:Q", title="step"),
        "y": alt.Y("value:Q", title=unit, scale=alt.Scale(zero=zero)),
        "color": alt.Color(
            "line:N",
            title=None,
            sort=names,
            scale=alt.Scale(domain=names, range=colours),
            legend=alt.Legend() if len(names) > 1 else None,
        ),
        "tooltip": [
            alt.Tooltip("line:N", title="line"),
            alt.Tooltip("step:Q", format=","),
            alt.Tooltip("value:Q", format=".4g"),
        ],
    }
    if len(runs) > 1:
        encoding["strokeDash"] = alt.StrokeDash(
            "run:N", title=None, sort=runs, legend=alt.Legend(symbolStrokeColor="var(--text)")
        )
        encoding["tooltip"].append(alt.Tooltip("run:N"))
    # A line with a single value would not be seen without its point.
    few = all(len(line.values) <= 30 for line in drawn)
    curve = _chart("lines").mark_line(point=few, strokeWidth=1.6)
    layers = [curve.encode(**encoding)]
    if restarts:
        rule = _chart("restarts").mark_rule(strokeDash=[2, 3], color=_QUIET)
        layers.insert(0, rule.encode(x="step:Q", tooltip=[alt.Tooltip("step:Q", title="restart")]))
    return _finished(layers, lines=rows, restarts=[{"step": step} for step in restarts])


def by_frequency(
    *, measure: str, frequency: str, frequencies: np.ndarray, values: np.ndarray
) -> dict[str, Any]:
    """Draws a measure of every class against its frequency, and the mean of equal parts.

    Args:
        measure: Column of the class tree.
        frequency: Column of the class tree; the axis is logarithmic and leaves out 0.
        frequencies: float64 [C], the same numbers.
        values: float64 [C], the measure; nan where it is undefined.
    """
    x = alt.X(
        "frequency:Q",
        title=f"{frequency} (log scale)",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(grid=False),
    )
    y = alt.Y("measure:Q", title=measure, scale=alt.Scale(domain=[0, 1]))
    points = (
        _chart("classes")
        .transform_calculate(
            measure=f"datum[{measure!r}]", frequency=f"datum[{frequency!r}]"
        )
        .transform_filter("datum.frequency > 0 && isValid(datum.measure)")
        # Thousands of points would be as many stops for a screen reader: the tree has the numbers.
        .mark_point(size=10, opacity=0.45, filled=True, color=_COLOURS[0], aria=False)
        .encode(
            x=x, y=y,
            tooltip=[alt.Tooltip("name:N"), alt.Tooltip("measure:Q", title=measure, format=".3f"),
                     alt.Tooltip("frequency:Q", title=frequency, format=",")],
        )
    )  # fmt: skip
    means = _chart("means")
    point = alt.OverlayMarkDef(color=_COLOURS[1])
    line = means.mark_line(point=point, strokeWidth=2.5, color=_COLOURS[1]).encode(
        x=x, y=y,
        tooltip=[alt.Tooltip("measure:Q", title="mean", format=".3f"),
                 alt.Tooltip("classes:Q", format=",")],
    )  # fmt: skip
    return _finished(
        [points, line],
        classes=[],  # the page fills it in, from its class tree
        means=means_by_frequency(frequencies, values),
    )


def means_by_frequency(frequencies: np.ndarray, values: np.ndarray) -> list[dict[str, float]]:
    """Returns the mean of classes of similar frequency, three parts for each factor of ten.

    Args:
        frequencies: [C], 0 to 1.
        values: float [C]; nan is left out.
    """
    used = (frequencies > 0) & ~np.isnan(values)
    part = np.floor(3 * np.log10(np.where(used, frequencies, 1))).astype(int)
    return [
        {
            "frequency": float(10 ** np.log10(frequencies[used & (part == one)]).mean()),
            "measure": float(values[used & (part == one)].mean()),
            "classes": int((used & (part == one)).sum()),
        }
        for one in np.unique(part[used]).tolist()
    ]


def bars(
    rows: Sequence[tuple[str, float, int]], *, label: str, unit: str, is_fraction: bool = True
) -> dict[str, Any]:
    """Draws a bar for each row.

    Args:
        rows: Label, value, and number of what the value is of.
        label: Title of the horizontal axis.
        unit: Title of the vertical axis.
        is_fraction: Whether values are from 0 to 1, and are written above the bars.
    """
    scale = alt.Scale(domain=[0, 1]) if is_fraction else alt.Scale()
    data = [{"label": name, "value": value, "classes": count} for name, value, count in rows]
    base = _chart("rows").encode(
        x=alt.X("label:N", title=label, sort=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=unit, scale=scale),
        tooltip=[
            alt.Tooltip("label:N", title=label),
            alt.Tooltip("value:Q", title=unit, format=".4" if is_fraction else ","),
            *([alt.Tooltip("classes:Q", format=",")] if is_fraction else []),
        ],
    )
    text = base.mark_text(dy=-7, color="var(--text)").encode(text=alt.Text("value:Q", format=".2f"))
    layers = [base.mark_bar(color=_COLOURS[0]), *([text] if is_fraction else [])]
    return _finished(layers, rows=data)


def ranked(counts: np.ndarray) -> dict[str, Any]:
    """Draws counts, int [n], in descending order and above 0, on a logarithmic axis."""
    points = _thinned({rank: int(count) for rank, count in enumerate(counts, start=1)})
    chart = _chart("ranks").mark_line(color=_COLOURS[0], interpolate="step-after")
    encoded = chart.encode(
        x=alt.X("rank:Q", title="classes, most frequent first"),
        y=alt.Y("images:Q", title="images (log scale)", scale=alt.Scale(type="log")),
        tooltip=[alt.Tooltip("rank:Q", format=","), alt.Tooltip("images:Q", format=",")],
    )
    ranks = [{"rank": rank, "images": count} for rank, count in points]
    return _finished([encoded], ranks=ranks)


def calibration(rows: Sequence[tuple[float, float, int]]) -> dict[str, Any]:
    """Draws accuracy against probability: rows of (mean probability, accuracy, predictions)."""
    data = [{"probability": p, "accuracy": a, "predictions": n} for p, a, n in rows]
    unit = alt.Scale(domain=[0, 1])
    x = alt.X("probability:Q", title="mean probability", scale=unit)
    y = alt.Y("accuracy:Q", title="accuracy", scale=unit)
    ideal = [{"probability": v, "accuracy": v} for v in (0, 1)]
    diagonal = (
        _chart("ideal").mark_line(strokeDash=[4, 4], color=_QUIET, strokeWidth=1).encode(x=x, y=y)
    )
    point = alt.OverlayMarkDef(color=_COLOURS[0])
    curve = _chart("bins").mark_line(point=point, color=_COLOURS[0])
    tooltip = [
        alt.Tooltip("probability:Q", format=".3f"),
        alt.Tooltip("accuracy:Q", format=".3f"),
        alt.Tooltip("predictions:Q", format=","),
    ]
    layers = [diagonal, curve.encode(x=x, y=y, tooltip=tooltip)]
    return _finished(layers, ideal=ideal, bins=data)


def _chart(name: str) -> alt.Chart:
    """Begins a chart of data that are given by name in the end: Altair would check every row."""
    return alt.Chart(alt.NamedData(name=name))


def _finished(layers: Sequence[Any], **data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the specification of charts one above the other, with their data by name.

    It is as wide as its place, and transparent.
    """
    sized = alt.layer(*layers).properties(
        width="container", height=_HEIGHT, background="transparent"
    )
    specification: dict[str, Any] = sized.configure(
        font="system-ui, sans-serif",
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        axis=alt.AxisConfig(
            labelColor="var(--text)", titleColor="var(--text)", gridColor="var(--line)",
            domainColor=_QUIET, tickColor=_QUIET, titleFontWeight="normal",
        ),
        legend=alt.LegendConfig(
            labelColor="var(--text)", orient="bottom", symbolType="stroke", labelLimit=300,
        ),
        view=alt.ViewConfig(stroke=None),
    ).to_dict()  # fmt: skip
    return specification | {"datasets": data}


def _thinned(values: Mapping[int, float]) -> list[tuple[int, float]]:
    """Returns at most _POINTS values, and always the last."""
    points = list(values.items())
    stride = -(-len(points) // _POINTS)
    return points[:-1:stride] + points[-1:] if points else []
