# SPDX-License-Identifier: BSD-3-Clause
"""Divides recognised tables into splits, counts what is in them, and writes their lists."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.files.counting import counted
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.building import Build
from mlimages_jax.prepare.imports.columns import SPLIT_WORDS
from mlimages_jax.prepare.imports.found import DEFAULT_VAL_FRACTION, SHOWN_ROWS, Wish
from mlimages_jax.prepare.imports.image_roots import Located
from mlimages_jax.prepare.imports.set_aside import BadRow, SetAside
from mlimages_jax.prepare.imports.table import TablePlan, in_val, write_tables
from mlimages_jax.prepare.imports.table_rows import Table, TableRow

_NAMED_TABLES = 4


class Survey(NamedTuple):
    """What is in some tables.

    Attributes:
        rows: The first rows of the first tables, as they were understood.
        counts: Number of images of each split and of different labels, as text.
        aside: Unusable rows.
    """

    rows: Sequence[str]
    counts: list[str]
    aside: SetAside


def divide(
    tables: Sequence[Table], names: Sequence[str | None], val_fraction: float | None
) -> list[TablePlan]:
    """Plans the splits of tables.

    Args:
        tables: The tables.
        names: The split of each, as its name or folder says; None: unknown, which is train.
        val_fraction: Fraction of train to use for val; None: the default if nothing says what the
            splits are, else none.

    Raises:
        PrepareError: A fraction is asked for, and there is a val.
    """
    is_known = any(names) or any(table.columns.split for table in tables)
    fraction = val_fraction
    if fraction is None:
        fraction = 0.0 if is_known else DEFAULT_VAL_FRACTION
    if fraction and "val" in names:
        raise PrepareError(f"--val-fraction {fraction:g}: there already is a table of val")
    return [
        TablePlan(table, _rule(table, name or "train", fraction))
        for table, name in zip(tables, names, strict=True)
    ]


def survey(plans: Sequence[TablePlan], located: Located, wish: Wish) -> Survey:
    """Reads all rows once.

    Args:
        plans: The tables and how to split them.
        located: Where their images are.
        wish: The user's options.

    Raises:
        PrepareError: There are no rows, or too many are unusable.
    """
    aside = SetAside(wish.max_skipped)
    splits: Counter[str] = Counter()
    labels: set[str] = set()
    shown: list[str] = []
    for plan, name_of in zip(plans, located.namers(), strict=True):
        path = str(plan.table.path)
        labels.update(plan.table.columns.one_hot)

        def set_aside(line: int, reason: str, path: str = path) -> None:
            aside.add(BadRow(path, str(line), reason))

        for number, row in enumerate(plan.table.rows(set_aside)):
            try:
                name = name_of(row.path)
            except ValueError as error:
                set_aside(row.line, str(error))
                continue
            aside.total += 1
            split = plan.split_of(row)
            splits[split] += 1
            labels.update(label for label, _ in row.labels)
            if number < SHOWN_ROWS and splits[split] <= SHOWN_ROWS:
                shown.append(_shown(split, name, row))
    aside.check()
    if not aside.total:
        names = ", ".join(str(plan.table.path) for plan in plans[:_NAMED_TABLES])
        raise PrepareError(f"{names}: there are no rows with images; is the file complete?")
    counts = [f"{split}: {counted(count, 'image')}" for split, count in splits.items()]
    return Survey(shown, [*counts, counted(len(labels), "different label")], aside)


def write_lists(
    plans: Sequence[TablePlan], located: Located, wish: Wish, output: Path
) -> Build | None:
    """Writes the lists, see `write_tables`, and returns the build that is next."""
    return write_tables(
        plans,
        located,
        aside=SetAside(wish.max_skipped),
        output=output,
        class_list=wish.class_list,
        hierarchy_separator=">",
        missing_labels=wish.missing_labels,
        name=wish.name,
        build_options=wish.build_options,
    )


def _rule(table: Table, split: str, fraction: float) -> Callable[[TableRow], str]:
    if table.columns.split is not None:
        return lambda row: SPLIT_WORDS.get((row.split or "").strip().lower(), row.split or "")
    if split == "train" and fraction:
        return lambda row: "val" if in_val(row.path, fraction) else split
    return lambda row: split


def _shown(split: str, name: str, row: TableRow) -> str:
    labels = [label if value == 1 else f"{label} ({value:g})" for label, value in row.labels]
    some = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    return f"{split}: {name} -> {some or 'no labels'}"
