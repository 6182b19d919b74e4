# SPDX-License-Identifier: BSD-3-Clause
"""The page of a data set: its numbers, classes by frequency and as a tree, and some images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlimages_jax.data.dataset import Shard
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.data.records import DamagedRecordError, Records, record_at
from mlimages_jax.evaluation import shown_classes, thumbnails
from mlimages_jax.files.remote import write_text
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.statistics import ABSENT, CERTAIN, SOFT, UNKNOWN, ListStatistics
from mlimages_jax.prepare.stats.table import lines
from mlimages_jax.report import charts
from mlimages_jax.report.content import (
    Chart,
    Image,
    Page,
    Section,
    Table,
    Tag,
    Tree,
    TreeColumn,
    data_url,
)
from mlimages_jax.report.page import html

_IMAGES = 48
_EXTREMES = 20  # classes in each of the two tables
_MOST_TAGS = 40  # bars of the histogram


def write_page(
    path: Path,
    statistics: ListStatistics,
    numbers: dict[str, Any],
    *,
    title: str,
    shards: Sequence[Shard],
) -> None:
    """Writes the page.

    Args:
        path: The file.
        statistics: What was counted.
        numbers: The same as for `table.table`.
        title: What was counted, such as the folder of a data set.
        shards: Shards of one split, for images to show; empty for label lists.
    """
    hierarchy = statistics.hierarchy
    images = _images(shards, hierarchy) if shards else []
    total = numbers["images"]["total"]
    sections = [
        _summary(numbers),
        _frequency(statistics.images_per_class, statistics.tags),
        _shown(images, shards),
        _tree(statistics),
        _extremes(hierarchy, statistics.images_per_class),
    ]
    subtitle = f"{total:,} images, {len(hierarchy):,} classes."
    write_text(path, html(Page(title, subtitle, (), sections)))


def _summary(numbers: dict[str, Any]) -> Section:
    rows = [
        (
            name.replace("  ", "\N{EM SPACE}", 1),
            "" if value is None else value,
            remark.strip().rstrip("#").rstrip(),
        )
        for name, value, remark in lines(numbers)
    ]
    return Section(
        key="summary", title="Summary", tables=[Table("The data", ("", "number", ""), rows)]
    )


def _frequency(images: np.ndarray, tags: np.ndarray) -> Section:
    counts = np.sort(images[images > 0])[::-1]
    without = int((images == 0).sum())
    words = f"{len(counts):,} classes have images, {without:,} have none."
    drawn = []
    if counts.size:
        title = "Images per class, the most frequent first"
        most = f"{words} The most frequent has {counts[0]:,}, the rarest {counts[-1]:,}."
        drawn.append(Chart(title, charts.ranked(counts), most))
    rows = [(str(n), float(tags[n]), int(tags[n])) for n in range(min(len(tags), _MOST_TAGS))]
    while rows and not rows[-1][2]:
        rows.pop()
    title = "Images by their number of tags"
    table = Table(title, ("tags", "images"), [(name, count) for name, _, count in rows])
    specification = charts.bars(rows, label="tags", unit="images", is_fraction=False)
    drawn.append(Chart(title, specification, "The numbers are in the table.", table))
    return Section(key="frequency", title="Frequent and rare classes", text=words, charts=drawn)


def _shown(images: Sequence[Image], shards: Sequence[Shard]) -> Section:
    missing = "" if images else "`mlimages data stats --dataset=DATA --html=FILE` shows images."
    text = f"Spaced evenly over the split {shards[0].split}." if images else ""
    return Section(key="images", title="Images", text=text, images=images, missing=missing)


def _tree(statistics: ListStatistics) -> Section:
    hierarchy, labels = statistics.hierarchy, statistics.labels
    columns = [
        TreeColumn("images", statistics.images_per_class.tolist(), is_main=True),
        TreeColumn("certain", labels[CERTAIN].tolist()),
        TreeColumn("soft", labels[SOFT].tolist()),
        TreeColumn("absent", labels[ABSENT].tolist()),
        TreeColumn("unknown", labels[UNKNOWN].tolist()),
        TreeColumn("without their parent", statistics.orphans.tolist()),
    ]
    tree = Tree(hierarchy.ids, hierarchy.names, hierarchy.parents.tolist(), columns)
    text = "Open a class to see those below it, its other numbers, and images of it above."
    return Section(key="classes", title="All classes", text=text, tree=tree)


def _extremes(hierarchy: Hierarchy, images: np.ndarray) -> Section:
    ranked = np.argsort(-images, kind="stable").tolist()
    half = min(_EXTREMES, max(len(ranked) // 2, 1))
    tables = [
        Table(caption, ("class", "images"), [(hierarchy.names[i], int(images[i])) for i in some])
        for caption, some in (
            ("The most frequent classes", ranked[:half]),
            ("The rarest classes, the rarest first", ranked[::-1][:half]),
        )
    ]
    return Section(key="extremes", title="Most frequent and rarest classes", tables=tables)


def _images(shards: Sequence[Shard], hierarchy: Hierarchy) -> list[Image]:
    """Returns images spaced evenly over shards, without those that cannot be read."""
    records = Records([str(shard.path) for shard in shards])
    shown = []
    for position in thumbnails.spaced(len(records), _IMAGES) if len(records) else ():
        try:
            record = record_at(records, position)
            pixels = thumbnails.thumbnail(record.jpeg)
        except (DamagedRecordError, BadImage):
            continue
        classes = [i for i, c in zip(record.labels, record.confidences, strict=True) if c > 0]
        specific = shown_classes.true_classes(record, hierarchy, threshold=1e-6)
        tags = [Tag("label", hierarchy.names[i]) for i in specific]
        above = {int(one) for i in classes for one in (i, *hierarchy.ancestors(int(i)))}
        source = data_url(thumbnails.as_jpeg(pixels), "jpeg")
        shown.append(Image(record.name, source, tags, sorted(above)))
    return shown
