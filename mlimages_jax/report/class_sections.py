# SPDX-License-Identifier: BSD-3-Clause
"""Sections of the page about classes: frequency, depth, best and worst, the tree, confusions."""

from collections.abc import Sequence

import numpy as np

from mlimages_jax.report import charts
from mlimages_jax.report.class_table import ClassTable
from mlimages_jax.report.content import Bar, Cell, Chart, Section, Table, Tree, TreeColumn
from mlimages_jax.report.run_files import Run
from mlimages_jax.report.tables import number

_MISSING = (
    "`mlimages train` writes per_class.tsv at its end; until then "
    "`mlimages evaluate --checkpoint=W --workdir=E` does, for `mlimages report E`."
)
_EXTREMES = 20  # classes in each of the two tables
_ENOUGH = 5  # images, below which an average precision says little
_MAIN = ("positives", "images", "training positives", "threshold")


def frequency(run: Run) -> Section:
    """Returns the measure of the classes against their frequency, and by their depth."""
    table = run.classes
    if table is None:
        return Section(key="frequency", title="Frequent and rare classes", missing=_MISSING)
    values = table.values(table.measure)
    known = "training positives" in table.columns and table.values("training positives") > 0
    by = "training positives" if np.any(known) else table.support
    frequencies = np.nan_to_num(table.values(by))
    means = charts.means_by_frequency(frequencies, values)
    specification = charts.by_frequency(
        measure=table.measure, frequency=by, frequencies=frequencies, values=values
    )
    title = f"{table.measure.capitalize()} against {by}"
    rows = [[round(m["frequency"], 1), m["classes"], round(m["measure"], 4)] for m in means]
    numbers = Table(title, (f"{by}, about", "classes", f"mean {table.measure}"), rows)
    words = f"Every point is a class, the line the mean of classes with similar {by}."
    drawn = [Chart(title, specification, words, numbers)]
    if depth := _by_depth(table, values):
        drawn.append(depth)
    return Section(key="frequency", title="Frequent and rare classes", text=words, charts=drawn)


def extremes(run: Run) -> Section:
    """Returns the best and the worst classes with enough images."""
    title = "Best and worst classes"
    table = run.classes
    if table is None:
        return Section(key="extremes", title=title, missing=_MISSING)
    values, support = table.values(table.measure), np.nan_to_num(table.values(table.support))
    judged = ~np.isnan(values)
    enough = judged & (support >= _ENOUGH)
    used = enough if enough.sum() > _EXTREMES else judged
    ranked = [i for i in np.argsort(-values, kind="stable").tolist() if used[i]]
    columns = ("class", "below", table.measure, table.support)

    def rows(classes: Sequence[int]) -> list[list[Cell]]:
        return [
            [table.names[i], _parent(table, i), Bar(values[i], f"{values[i]:.4f}"), int(support[i])]
            for i in classes
        ]

    half = min(_EXTREMES, len(ranked) // 2 or 1)
    tables = [
        Table("Best classes", columns, rows(ranked[:half])),
        Table("Worst classes, the worst first", columns, rows(ranked[::-1][:half])),
    ]
    text = f"Of classes with at least {_ENOUGH} {table.support}." if used is enough else ""
    return Section(key="extremes", title=title, text=text, tables=tables if ranked else ())


def differences(runs: Sequence[Run]) -> Section:
    """Returns the classes in which the first of two runs is better or worse by most."""
    key, title = "differences", "Where the runs differ"
    column = _difference(runs)
    if column is None:
        return Section(key=key, title=title, missing=f"For both runs: {_MISSING}")
    table, other = runs[0].classes, runs[1]
    assert table is not None
    known = [(value, i) for i, value in enumerate(column.values) if value]
    support = table.columns[table.support]
    tables = []
    for caption, ranked in (
        (f"Better than in {other.name}", sorted((-value, i) for value, i in known if value > 0)),
        (f"Worse than in {other.name}", sorted((value, i) for value, i in known if value < 0)),
    ):
        rows: list[list[Cell]] = [
            [table.names[i], _parent(table, i), f"{column.values[i]:+.4f}", _whole(support[i])]
            for _, i in ranked[:_EXTREMES]
        ]
        if rows:
            tables.append(Table(caption, ("class", "below", column.name, table.support), rows))
    text = f"Classes whose {table.measure} differs: {len(known):,}."
    return Section(key=key, title=title, text=text, tables=tables)


def tree(runs: Sequence[Run]) -> Section:
    """Returns the class tree, with the difference to a second run."""
    table = runs[0].classes
    if table is None:
        return Section(key="classes", title="All classes", missing=_MISSING)
    columns = [
        TreeColumn(
            name,
            [one if one is None else round(one, 4) for one in values],
            is_main=name == table.measure or name in _MAIN,
            is_fraction=name == table.measure,
        )
        for name, values in table.columns.items()
    ]
    if difference := _difference(runs):
        columns.insert(1, difference)
    drawn = Tree(table.ids, table.names, table.parents, columns)
    text = "Open a class to see those below it, its other numbers, and images of it above."
    return Section(key="classes", title="All classes", text=text, tree=drawn)


def confusions(run: Run) -> Section:
    """Returns the pairs of classes that are confused most often."""
    key, title = "confusions", "Most confused pairs"
    rows: list[list[Cell]] = []
    for row in run.confusions[:50]:
        share = number(row.get("share")) or 0.0
        cells: list[Cell] = [row.get(name, "") for name in ("true_name", "predicted_name")]
        cells += [int(number(row.get("images")) or 0), Bar(min(share, 1.0), f"{share:.1%}")]
        rows.append([*cells, row.get("common_ancestor", "")])
    if not rows:
        missing = (
            "`mlimages train` at its end and `mlimages evaluate` write confusion.tsv, if there are "
            "confusions to count."
        )
        return Section(key=key, title=title, missing=missing)
    names = ("true class", "predicted instead", "images", "of the class", "both are")
    return Section(key=key, title=title, tables=[Table(title, names, rows)])


def _by_depth(table: ClassTable, values: np.ndarray) -> Chart | None:
    """Returns the mean of every depth; None if all classes are roots."""
    depth, judged = table.depth, ~np.isnan(values)
    rows = [
        (str(level), float(values[judged & (depth == level)].mean()), int(count))
        for level, count in enumerate(np.bincount(depth[judged], minlength=1).tolist())
        if count
    ]
    if len(rows) < 2:
        return None
    title = f"Mean {table.measure} by depth in the hierarchy"
    words = ", ".join(f"depth {level}: {value:.3f}" for level, value, _ in rows)
    numbers = Table(title, ("depth", "classes", "mean"), [(d, n, round(v, 4)) for d, v, n in rows])
    specification = charts.bars(rows, label="depth", unit=f"mean {table.measure}")
    return Chart(title, specification, words, numbers)


def _difference(runs: Sequence[Run]) -> TreeColumn | None:
    """Returns how much better each class is than in a second run; None if they have no common one.

    Classes are matched by their ids, as their indices may differ.
    """
    table, other = runs[0].classes, runs[1].classes if len(runs) > 1 else None
    if table is None or other is None or table.measure != other.measure:
        return None
    theirs = dict(zip(other.ids, other.columns[other.measure], strict=True))
    values = [
        None if mine is None or (their := theirs.get(one)) is None else round(mine - their, 4)
        for one, mine in zip(table.ids, table.columns[table.measure], strict=True)
    ]
    return TreeColumn("difference", values, is_main=True)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _parent(table: ClassTable, i: int) -> str:
    return table.names[table.parents[i]] if table.parents[i] >= 0 else ""
