# SPDX-License-Identifier: BSD-3-Clause
"""Recognises Parquet and Arrow files with the images in them, as `datasets` writes them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlimages_jax.files.counting import counted
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports import img2dataset, packed_images, table_files
from mlimages_jax.prepare.imports.arrow_files import SUFFIXES, ArrowFile
from mlimages_jax.prepare.imports.building import Build
from mlimages_jax.prepare.imports.found import Found, Wish, split_of
from mlimages_jax.prepare.imports.image_roots import ImageRoot, Located
from mlimages_jax.prepare.imports.image_rows import ImageRows
from mlimages_jax.prepare.imports.survey import divide, survey, write_lists
from mlimages_jax.prepare.imports.table import TablePlan, sample_rows
from mlimages_jax.prepare.imports.table_files import TableFile
from mlimages_jax.prepare.imports.table_rows import Table


class _Part(NamedTuple):
    """A file with images, the meaning of its columns, and its split."""

    rows: ImageRows
    table: Table
    split: str | None


def find_image_tables(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for Parquet and Arrow files with images in them.

    Args:
        source: A file, or a folder to search.
        wish: The user's options.
        notes: Receives notes on files that were examined but not used.

    Raises:
        PrepareError: There are some, but one is damaged, or what is what cannot be told.
    """
    if wish.images or wish.table.path_column:  # then the images are files
        return None
    files, is_saved = _files(source)
    parts = _parts(files, wish, notes, must_be=is_saved or source.is_file())
    if not parts:
        return None
    parts = _with_labels(parts, notes)
    plans = divide([one.table for one in parts], [one.split for one in parts], wish.val_fraction)
    sources = [one.rows for one in parts]
    for one, tar in zip(sources, _tars(parts), strict=True):
        one.tar = tar
    # Where the images will be; the folder is made when they are copied.
    found = survey(plans, _located(Path(), plans), wish)

    def write(output: Path) -> Build | None:
        top = source if source.is_dir() else source.parent
        packed = packed_images.pack(sources, output, top=top)
        build = write_lists(plans, _located(packed, plans), wish, output)
        packed_images.remove_others(packed)
        return build

    kind = f"{sources[0].format} files with images in them"
    counts = [*found.counts, *_counts(sources), *table_files.missing_parts(files)]
    return Found(kind, _why(parts, is_saved=is_saved), found.rows, counts, write=write,
                 aside=found.aside)  # fmt: skip


def _files(source: Path) -> tuple[list[TableFile], bool]:
    """Returns the files, and whether save_to_disk wrote them."""
    if source.is_dir():
        saved = table_files.saved_files(source)
        return (saved, True) if saved else (table_files.other_files(source), False)
    if source.suffix.lower() not in SUFFIXES:
        return [], False
    return [TableFile(source, split_of(source, source.parent))], False


def _parts(
    files: Sequence[TableFile], wish: Wish, notes: list[str], *, must_be: bool
) -> list[_Part]:
    """Opens the files; those without images are noted.

    Raises:
        PrepareError: A file is damaged or differs from the others, and is no stray one.
    """
    parts: list[_Part] = []
    errors: list[PrepareError] = []
    others: list[str] = []
    for path, split in files:
        try:
            file = ArrowFile(path)
        except PrepareError as error:
            errors.append(error)
            continue
        rows = ImageRows(file, image_column=wish.image_column)
        if rows.image_column is None:
            others.append(f"{path}: no column contains images")
        else:
            first = parts[0].table if parts else None
            parts.append(_Part(rows, _table(rows, wish, first), split))
    if errors and (parts or must_be):
        raise errors[0]
    notes += others if parts else []  # else they may be tables of another kind
    return parts


def _table(rows: ImageRows, wish: Wish, first: Table | None) -> Table:
    """Returns the meaning of the columns of a file: that of the first file, if there is one."""
    labels = wish.table.label_columns or rows.label_columns
    options = wish.table._replace(
        path_column=rows.image_column, label_columns=labels, find_split=True
    )
    if first is not None:
        columns = first.columns
        needed = {columns.path, *columns.labels, *columns.one_hot, columns.split or columns.path}
        if lacking := needed - {*rows.names}:
            raise PrepareError(
                f"{rows.path}: lacks the column {min(lacking)!r} of {first.path}: import it by "
                "itself, or take it out of the folder"
            )
    return Table(rows.path, options, rows, like=first)


def _with_labels(parts: list[_Part], notes: list[str]) -> list[_Part]:
    """Leaves out splits that come without labels, as tests of competitions do, and notes them."""
    first = {one.split: one for one in reversed(parts)}
    usable = {split for split, one in first.items() if sample_rows(one.table)}
    if not usable:
        return parts  # reading them tells why
    for split in first.keys() - usable:
        notes.append(f"{split} is left out, for none of its first rows is usable: "
                     f"{_first_reason(first[split].table)}")  # fmt: skip
    return [one for one in parts if one.split in usable]


def _first_reason(table: Table) -> str:
    """Returns why the first row of a table is unusable."""
    try:
        next(table.rows(), None)
    except PrepareError as error:
        return str(error)
    return f"{table.path}: it has no rows"


def _tars(parts: Sequence[_Part]) -> list[str]:
    """Returns the names of the tars for the images of each file."""
    numbers: Counter[str] = Counter()
    tars = []
    for one in parts:
        split = one.split or "train"
        tars.append(f"{split}-{numbers[split]:05}.tar")
        numbers[split] += 1
    return tars


def _located(folder: Path, plans: Sequence[TablePlan]) -> Located:
    return Located(folder, [ImageRoot(folder)] * len(plans))


def _why(parts: Sequence[_Part], *, is_saved: bool) -> list[str]:
    rows, table, _ = parts[0]
    columns = table.columns
    labels = ", ".join(map(repr, columns.labels)) or counted(len(columns.one_hot), "column")
    by = ", written by save_to_disk" if is_saved else ""
    lines = [
        f"{counted(len(parts), 'file')}, such as {rows.path}{by}",
        f"images in {rows.image_column!r}, labels in {labels} ({columns.why})",
    ]
    if table.classes:
        lines.append(f"the metadata names {counted(len(table.classes), 'class')}")
    if columns.split:
        lines.append(f"splits in {columns.split!r}")
    return lines


def _counts(sources: Sequence[ImageRows]) -> list[str]:
    statuses = sum((one.statuses() for one in sources), Counter[str]())
    stats = img2dataset.describe_stats(one.path for one in sources)
    return [*img2dataset.describe(statuses), *stats]
