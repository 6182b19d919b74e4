# SPDX-License-Identifier: BSD-3-Clause
"""Recognises WebDataset: tars of images and labels whose names share their beginning."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

from mlimages_jax.data.archives import Archive, ArchiveError
from mlimages_jax.files.counting import counted
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports import img2dataset
from mlimages_jax.prepare.imports.columns import LABELS
from mlimages_jax.prepare.imports.delimited import SAMPLE_LINES
from mlimages_jax.prepare.imports.found import Found, Wish, shards_below, split_of
from mlimages_jax.prepare.imports.image_roots import ImageRoot, Located
from mlimages_jax.prepare.imports.survey import divide, survey, write_lists
from mlimages_jax.prepare.imports.table_rows import Table
from mlimages_jax.prepare.imports.tar_samples import (
    CLS,
    IMAGE,
    JSON,
    TXT,
    Sample,
    TarSamples,
    is_image,
    samples,
)

_SUFFIX = ".tar"
_FIRST = 10  # samples by which a tar is recognised
_FEW_TEXTS = 10  # different texts that may be classes however few images there are


def find_webdataset(source: Path, wish: Wish, notes: list[str]) -> Found | None:
    """Looks for tars of samples.

    Args:
        source: A tar, or a folder to search.
        wish: The user's options.
        notes: Receives notes on tars of something else.

    Raises:
        PrepareError: There are some, but they cannot be read, or what is what cannot be told.
    """
    if wish.images or wish.table.path_column:
        return None
    top = source if source.is_dir() else source.parent
    paths = _tars(source, wish, notes)
    if not paths:
        return None
    tables = _tables(paths, top, wish)
    plans = divide(tables, [split_of(path, top) for path in paths], wish.val_fraction)
    located = Located(top, [ImageRoot(top)] * len(plans))
    found = survey(plans, located, wish)
    write = functools.partial(write_lists, plans, located, wish)

    columns = tables[0].columns
    labels = ", ".join(map(repr, columns.labels or columns.one_hot[:8]))
    why = [
        f"{counted(len(paths), 'tar')}, such as {paths[0]}, with an image and labels in a sample",
        f"labels in {labels} ({columns.why})",
    ]
    counts = [*found.counts, *img2dataset.describe_stats(paths)]
    return Found("WebDataset", why, found.rows, counts, write=write, aside=found.aside)


def _tars(source: Path, wish: Wish, notes: list[str]) -> list[Path]:
    """Returns the tars of samples; in a folder of them, others are noted."""
    if source.is_file():
        is_tar = source.name.lower().endswith(_SUFFIX)
        return [source] if is_tar and _has_samples(source, wish, notes) else []
    others: list[str] = []
    # All are examined: a tar of something else must not make its images part of the set.
    tars = [path for path in shards_below(source, (_SUFFIX,)) if _has_samples(path, wish, others)]
    notes += others if tars else []  # else another kind of data may be what they are
    return tars


def _has_samples(path: Path, wish: Wish, notes: list[str]) -> bool:
    """Returns whether an image among the first samples has labels beside it."""
    try:
        with Archive(path) as archive:
            first = list(itertools.islice(samples(archive), _FIRST))
    except (ArchiveError, PrepareError, OSError) as error:
        notes.append(f"{path}: {error}")
        return False
    if any(_has_labels(one, wish) for one in first if isinstance(one, Sample)):
        return True
    notes.append(f"{path}: its first members are no images with labels of the same name")
    return False


def _has_labels(sample: Sample, wish: Wish) -> bool:
    lasts = {part.rpartition(".")[2] for part in sample.parts}
    has_image = any(map(is_image, sample.parts)) or wish.image_column in sample.parts
    said = {*wish.table.label_columns} & sample.parts.keys()
    return has_image and bool(lasts & {CLS, JSON, TXT} or said)


def _tables(paths: Sequence[Path], top: Path, wish: Wish) -> list[Table]:
    """Returns the tars with the meaning of the parts of samples, which the first tar shows."""
    first = TarSamples(paths[0], top=top, image=wish.image_column)
    read = [row for _, row in first.read(SAMPLE_LINES, None)]
    rows = [row for row in read if isinstance(row, dict)]
    if not rows:
        raise PrepareError(f"{first.path}: {next(iter(read), 'there are no samples')}")
    said = wish.table.label_columns
    first.names = tuple(dict.fromkeys([IMAGE, *(name for row in rows for name in row), *said]))
    options = wish.table._replace(
        path_column=IMAGE, label_columns=said or _label_columns(first, rows), find_split=True
    )
    table = Table(first.path, options, first)
    others = (TarSamples(path, top=top, image=wish.image_column) for path in paths[1:])
    return [table, *(Table(one.path, options, one, like=table) for one in others)]


def _label_columns(source: TarSamples, rows: Sequence[dict[str, object]]) -> tuple[str, ...]:
    """Returns the part with the labels, unless JSON has a key that says so by its name.

    Raises:
        PrepareError: It would be a text, and the texts look like captions.
    """
    if any(name.strip().lower() in LABELS for name in source.names):
        return ()
    for part in (CLS, TXT):
        if part in source.names:
            break
    else:
        return ()
    texts = {str(row.get(part)) for row in rows}
    if part == TXT and len(texts) > max(_FEW_TEXTS, len(rows) // 2):
        raise PrepareError(
            f"{source.path}: its only labels would be those in .txt, and they look like captions: "
            f"{min(texts)[:60]!r}. Give --label-columns txt if they are labels, or the key of the "
            ".json that is"
        )
    return (part,)
