# SPDX-License-Identifier: BSD-3-Clause
"""Recognises tables of images and labels: a single file, or the tables of a folder of images."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mlimages_jax.files.counting import counted
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.building import Build
from mlimages_jax.prepare.imports.columns import LABELS, SPLIT_WORDS
from mlimages_jax.prepare.imports.found import (
    DEFAULT_VAL_FRACTION,
    SHOWN_ROWS,
    Found,
    Wish,
    files_below,
    split_of,
)
from mlimages_jax.prepare.imports.image_roots import ImageRoot, Located, locate
from mlimages_jax.prepare.imports.set_aside import BadRow, SetAside
from mlimages_jax.prepare.imports.table import TablePlan, in_val, sample_rows, write_tables
from mlimages_jax.prepare.imports.table_rows import KINDS, Table, TableRow, table_suffix

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face
_SHOWN_COLUMNS = 8
_NOT_IN_FOLDERS = (".txt", ".data", ".json")  # rarely tables when found in a folder


def find_tables(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for tables.

    Args:
        source: A file, or a folder to search.
        wish: The user's options.
        notes: Receives notes on files that were examined but not used.

    Raises:
        PrepareError: The given file cannot be read, or too many of its rows are unusable.
    """
    if source.is_file():
        if table_suffix(source) not in KINDS:
            return None
        tables = [Table(source, wish.table._replace(find_split=True))]
        top = source.parent
    else:
        tables, top = _tables_of(source, wish, notes), source
    if not tables:
        return None
    plans = _plans(tables, top, wish)
    located = _located(plans, top, wish)
    if source.is_dir() and not wish.images and not located.are_urls:
        kept = [i for i, root in enumerate(located.roots) if root is not None]
        notes += [f"{plan.table.path}: none of its images is in {source} or below"
                  for i, plan in enumerate(plans) if i not in kept]  # fmt: skip
        plans = [plans[i] for i in kept]
        if not plans:
            return None
        located = located._replace(roots=[located.roots[i] for i in kept])
    return _found(plans, located, wish)


def find_metadata(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for Hugging Face's metadata with labels; these take precedence over folder names."""
    if not source.is_dir():
        return None
    names = {path.name.lower() for path in files_below(source, depth=2)}
    if not names & set(METADATA):
        return None
    tables = [
        table
        for table in _tables_of(source, wish, [])
        if wish.table.label_columns or set(map(str.lower, table.columns.labels)) & set(LABELS)
    ]
    return find_tables(source, wish, notes) if tables else None


def _found(plans: list[TablePlan], located: Located, wish: Wish) -> Found:
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
            splits[plan.split_of(row)] += 1
            labels.update(label for label, _ in row.labels)
            if number < SHOWN_ROWS:
                shown.append(_shown(plan.split_of(row), name, row))
    aside.check()
    if not aside.total:
        names = ", ".join(str(plan.table.path) for plan in plans)
        raise PrepareError(f"{names}: there are no rows with images; is the file complete?")
    counts = [f"{split}: {counted(count, 'image')}" for split, count in splits.items()]
    counts.append(counted(len(labels), "different label"))
    counts += [_where(plan, root) for plan, root in zip(plans, located.roots, strict=True)
               if not located.are_urls]  # fmt: skip

    def write(output: Path) -> Build | None:
        return write_tables(
            plans, located, aside=SetAside(wish.max_skipped), output=output,
            class_list=wish.class_list, hierarchy_separator=">", missing_labels=wish.missing_labels,
            name=wish.name,
        )  # fmt: skip

    why = [line for plan in plans for line in _why(plan.table)]
    return Found("a table of images and labels", why, shown, counts, write=write, aside=aside)


def _tables_of(folder: Path, wish: Wish, notes: list[str]) -> list[Table]:
    """Returns Hugging Face's metadata files, or else all tables that can be read."""
    suffixes = [kind for kind in KINDS if kind not in _NOT_IN_FOLDERS]
    paths = []
    for path in files_below(folder, depth=2):
        if table_suffix(path) not in suffixes:
            continue
        if "submission" in path.name.lower():  # Kaggle's sample submissions have made-up labels
            notes.append(
                f"{path}: by its name a form for predictions; if it is not, import it by itself"
            )
            continue
        paths.append(path)
    metadata = [path for path in paths if path.name.lower() in METADATA]
    tables = []
    for path in metadata or paths:
        try:
            tables.append(Table(path, wish.table._replace(find_split=True)))
        except PrepareError as error:
            notes.append(str(error))
    return tables


def _plans(tables: list[Table], top: Path, wish: Wish) -> list[TablePlan]:
    names = [split_of(table.path, top) for table in tables]
    is_known = any(names) or any(table.columns.split for table in tables)
    fraction = wish.val_fraction
    if fraction is None:
        fraction = 0.0 if is_known else DEFAULT_VAL_FRACTION
    if fraction and "val" in names:
        raise PrepareError(f"--val-fraction {fraction:g}: there already is a table of val")
    return [
        TablePlan(table, _rule(table, name or "train", fraction))
        for table, name in zip(tables, names, strict=True)
    ]


def _rule(table: Table, split: str, fraction: float) -> Callable[[TableRow], str]:
    if table.columns.split is not None:
        return lambda row: SPLIT_WORDS.get((row.split or "").strip().lower(), row.split or "")
    if split == "train" and fraction:
        return lambda row: "val" if in_val(row.path, fraction) else split
    return lambda row: split


def _located(plans: list[TablePlan], top: Path, wish: Wish) -> Located:
    samples = [[row.path for row in sample_rows(plan.table)] for plan in plans]
    around = [[wish.images] if wish.images else [plan.table.path.parent, top] for plan in plans]
    return locate(samples, around, [split_of(plan.table.path, top) or "" for plan in plans])


def _shown(split: str, name: str, row: TableRow) -> str:
    labels = [label if value == 1 else f"{label} ({value:g})" for label, value in row.labels]
    some = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    return f"{split}: {name} -> {some or 'no labels'}"


def _where(plan: TablePlan, root: ImageRoot | None) -> str:
    if root is None:
        return f"{plan.table.path}: none of its images was found; give their folder with --images"
    folder = root.folder / root.prefix
    return f"looked for {counted(root.looked_for, 'image')}, found {root.found:,} in {folder}"


def _why(table: Table) -> list[str]:
    columns = table.columns
    labels = ", ".join(map(repr, columns.labels))
    if not labels:
        more = ", ..." if len(columns.one_hot) > _SHOWN_COLUMNS else ""
        some = ", ".join(map(repr, columns.one_hot[:_SHOWN_COLUMNS]))
        labels = f"{len(columns.one_hot)} columns: {some}{more}"
    lines = [
        f"{table.path}: {table.format}",
        f"  path in {columns.path!r}, labels in {labels} ({columns.why})",
    ]
    if columns.labels and table.is_separated:
        lines.append(f"  labels of a cell are separated by {table.separator!r}")
    elif table.has_blanks:
        lines.append("  a cell is one label; if spaces separate labels: --label-separator ' '")
    if columns.split:
        lines.append(f"  splits in {columns.split!r}")
    return lines
