# SPDX-License-Identifier: BSD-3-Clause
"""Recognises tables of images and labels: a single file, or the tables of a folder of images."""

import functools
from pathlib import Path

from mlimages_jax.files.counting import counted
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.columns import LABELS
from mlimages_jax.prepare.imports.found import Found, Wish, files_below, split_of
from mlimages_jax.prepare.imports.image_roots import ImageRoot, Located, locate
from mlimages_jax.prepare.imports.survey import divide, survey, write_lists
from mlimages_jax.prepare.imports.table import TablePlan, sample_rows
from mlimages_jax.prepare.imports.table_rows import KINDS, Table, table_suffix

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
    names = [split_of(table.path, top) for table in tables]
    plans = divide(tables, names, wish.val_fraction)
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
    found = survey(plans, located, wish)
    counts = found.counts
    counts += [_where(plan, root) for plan, root in zip(plans, located.roots, strict=True)
               if not located.are_urls]  # fmt: skip
    write = functools.partial(write_lists, plans, located, wish)

    why = [line for plan in plans for line in _why(plan.table)]
    kind = "a table of images and labels"
    return Found(kind, why, found.rows, counts, write=write, aside=found.aside)


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


def _located(plans: list[TablePlan], top: Path, wish: Wish) -> Located:
    samples = [[row.path for row in sample_rows(plan.table)] for plan in plans]
    around = [[wish.images] if wish.images else [plan.table.path.parent, top] for plan in plans]
    return locate(samples, around, [split_of(plan.table.path, top) or "" for plan in plans])


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
