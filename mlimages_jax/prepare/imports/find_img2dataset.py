# SPDX-License-Identifier: BSD-3-Clause
"""Recognises the folder of img2dataset with images as files; its other forms are like others'."""

import functools
from collections import Counter
from pathlib import Path

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports import img2dataset
from mlimages_jax.prepare.imports.found import Found, Wish, shards_below
from mlimages_jax.prepare.imports.image_roots import ImageRoot, Located
from mlimages_jax.prepare.imports.img2dataset import FetchedFiles
from mlimages_jax.prepare.imports.survey import divide, survey, write_lists
from mlimages_jax.prepare.imports.table_rows import Table


def find_fetched_files(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for tables of img2dataset with a folder of images beside each.

    Args:
        source: The folder.
        wish: The user's options.
        notes: Receives notes on tables without images.

    Raises:
        PrepareError: A table is damaged, or its column of labels cannot be told.
    """
    shards = _shards(source, notes)
    if not shards:
        return None
    suffix = _suffix_of(shards)
    tables: list[Table] = []
    for path in shards:
        rows = FetchedFiles(path, suffix=suffix)
        options = wish.table._replace(path_column=img2dataset.IMAGE, find_split=True)
        tables.append(Table(path, options, rows, like=tables[0] if tables else None))
    plans = divide(tables, [None] * len(tables), wish.val_fraction)
    located = Located(source, [ImageRoot(source)] * len(plans))
    found = survey(plans, located, wish)
    write = functools.partial(write_lists, plans, located, wish)

    columns = tables[0].columns
    labels = ", ".join(map(repr, columns.labels or columns.one_hot[:8]))
    why = [
        f"{shards[0]} and others like it have key and status, and images in {shards[0].stem}/",
        f"labels in {labels} ({columns.why})",
    ]
    statuses = sum((FetchedFiles(path, suffix=suffix).statuses() for path in shards), Counter())
    counts = [
        *found.counts,
        *img2dataset.describe(statuses),
        *img2dataset.describe_stats(shards),
    ]
    return Found("what img2dataset fetched, as files", why, found.rows, counts, write=write,
                 aside=found.aside)  # fmt: skip


def _shards(source: Path, notes: list[str]) -> list[Path]:
    """Returns the tables with a folder beside them, if the first is one of img2dataset."""
    if not source.is_dir():
        return []
    paths = shards_below(source, (".parquet",), depth=0)
    shards = [path for path in paths if path.with_suffix("").is_dir()]
    try:
        if not shards or not img2dataset.is_status(FetchedFiles(shards[0], suffix="").names):
            return []
    except PrepareError as error:
        notes.append(str(error))
        return []
    notes += [f"{path}: there is no folder {path.stem}/ beside it"
              for path in paths if path not in shards]  # fmt: skip
    return shards


def _suffix_of(shards: list[Path]) -> str:
    """Returns the suffix of the images, which is the same for all.

    Raises:
        PrepareError: There are no images.
    """
    for path in shards:
        for suffix in img2dataset.FORMATS:
            if next(path.with_suffix("").glob(f"*.{suffix}"), None) is not None:
                return suffix
    raise PrepareError(
        f"{shards[0].parent}: there is no image beside the tables of img2dataset; was it written "
        "as webdataset or parquet, and is a part missing?"
    )
