# SPDX-License-Identifier: BSD-3-Clause
"""The command `stats`: statistics of label lists or a built data set, as table, JSON, figures."""

import functools
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from etils import epath
from tyro.conf import OmitArgPrefixes, Positional

from mlimages_jax.data.dataset import Shard
from mlimages_jax.data.records import read_in_place
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.checksums import sha256
from mlimages_jax.files.escaping import tsv_row
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.statistics import ABSENT, CERTAIN, SOFT, UNKNOWN, ListStatistics
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.built_set import BuiltSet
from mlimages_jax.prepare.problems import ProblemList
from mlimages_jax.prepare.release_report import Held, release_report
from mlimages_jax.prepare.stats.counting import Source, count, open_data_set, open_lists
from mlimages_jax.prepare.stats.table import table

_COLUMNS = (
    "class", "wordnet_id", "name", "depth", "images", "certain", "soft", "absent", "unknown",
    "without_parent",
)  # fmt: skip


def stats(
    lists: Positional[tuple[Path, ...]] = (),
    /,
    *,
    dictionary: Path | None = None,
    dataset: str | None = None,
    split: str | None = None,
    output_dir: Path | None = None,
    html: Path | None = None,
    threshold: int = 100,
    engine: OmitArgPrefixes[EngineOptions] = EngineOptions(),
) -> None:
    r"""Show statistics of label lists or a built data set: classes, tags, confidences, closure.

    Of lists, counted together as if they were one:

        mlimages data stats train_urls.txt --dictionary dictionary.txt

    Of a data set, all of its splits or one, with files and figures:

        mlimages data stats --dataset data/ml_images/released_320/1.0.0 \
            --split train --output-dir statistics

    A tag is a label with a positive confidence; an image belongs to the classes of its tags. A
    row is closed over ancestors if the parent of every tag is a tag of the row too, with at least
    the same confidence; the command `labels` closes lists.

    The output folder gets statistics.json with all numbers, per_class.tsv with a row for each
    class, and two figures for a paper, images_per_class and tags_per_image (.png and .svg).
    --html writes one page to look at: the numbers, the classes as a tree, and images of a data set.

    Args:
        lists: label lists: one image or URL per line, then its labels, class:confidence.
        dictionary: the class list (dictionary.txt) of the label lists.
        dataset: instead of lists, folder or URL of a built data set.
        split: split of the data set, such as train; default: all of them.
        output_dir: folder for the files; created if missing.
        html: file for the page, such as stats.html.
        threshold: a class with more images than this counts as trainable.
        engine: where the rows are counted, in blocks of a list or files of a data set; the result
            is the same.
    """
    if threshold < 1:
        raise PrepareError(f"--threshold {threshold}: give a number of images, 1 or more")
    if html is not None:
        _check_page(html)
    hierarchy, sources = _open(lists, dictionary, dataset, split)
    if output_dir is not None:
        _check_output(output_dir)
    with engine.open() as opened:
        problems = ProblemList(None)
        statistics, rows = count(hierarchy, sources, engine=opened, problems=problems)
    promised, counted = sum(source.expected for source in sources), sum(rows.values())
    numbers = {
        "sources": rows,
        "records_not_counted": promised - counted if dataset is not None else 0,
        **statistics.compute(trainable_above=threshold),
    }
    print(table(numbers))
    held = [
        Held(source.name, source.expected if dataset else rows[source.name],
             "" if dataset else sha256(Path(source.name)))
        for source in sources
    ]  # fmt: skip
    if report := release_report(hierarchy, held):
        print(f"\n{report}")
    if output_dir is not None:
        write_files(output_dir, statistics, numbers)
    if html is not None:
        from mlimages_jax.prepare.stats.page import write_page

        shards = _shards_to_show(dataset, sources[0].name) if dataset else []
        title = str(dataset) if dataset else " and ".join(path.name for path in lists)
        write_page(html, statistics, numbers, title=title, shards=shards)
        print(f"\n{html}: the page")


def write_files(folder: Path, statistics: ListStatistics, numbers: dict[str, Any]) -> None:
    """Writes the numbers, the table of classes and the figures, each atomically.

    Raises:
        PrepareError: A file cannot be written.
    """
    from mlimages_jax.prepare.stats import figures  # importing matplotlib takes half a second

    text = json.dumps(numbers, indent=2) + "\n"
    _replace(folder / "statistics.json", lambda path: path.write_text(text, encoding="utf-8"))
    _replace(folder / "per_class.tsv", functools.partial(_write_classes, statistics))
    drawn = {
        "images_per_class": figures.images_per_class(
            statistics.images_per_class, trainable_above=numbers["classes"]["trainable_above"]
        ),
        "tags_per_image": figures.tags_per_image(statistics.tags),
    }
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            save = functools.partial(figures.save, figure, kind=kind)
            _replace(folder / f"{name}.{kind}", save)


def _open(
    lists: Sequence[Path],
    class_list: Path | None,
    dataset: str | None,
    split: str | None,
) -> tuple[Hierarchy, list[Source]]:
    """Checks which options go together, and opens the files they name."""
    if bool(lists) == (dataset is not None):
        raise PrepareError("give either label lists or --dataset FOLDER")
    if dataset is not None:
        if class_list is not None:
            raise PrepareError("a built data set has its own dictionary: leave --dictionary out")
        return open_data_set(epath.Path(dataset), split=split)
    if class_list is None:
        raise PrepareError("label lists need --dictionary FILE, their class list")
    if split is not None:
        raise PrepareError("--split is for data sets: name the split's own label list instead")
    return open_lists(lists, class_list)


def _shards_to_show(dataset: str, split: str) -> list[Shard]:
    """Returns the files of which the page shows images: none if single records cannot be read."""
    folder = epath.Path(dataset)
    return BuiltSet.open(folder).shards_of([split]) if read_in_place(folder) else []


def _check_output(folder: Path) -> None:
    """Fails before a long job rather than at its end."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PrepareError("--output-dir draws figures with matplotlib: pip install matplotlib")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _no_place(folder, error) from error


def _check_page(file: Path) -> None:
    """Fails before a long job rather than at its end."""
    try:
        from mlimages_jax.prepare.stats import page  # noqa: F401  # its libraries are an extra
    except ModuleNotFoundError as error:
        raise PrepareError(f"--html: {error}: pip install -e '.[report]' in the clone") from error
    if not file.parent.is_dir():
        raise PrepareError(f"--html {file}: there is no folder {file.parent}")


def _no_place(path: Path, error: OSError) -> PrepareError:
    return PrepareError(f"{path}: {error.strerror}; free some space or choose another --output-dir")


def _write_classes(statistics: ListStatistics, path: Path) -> None:
    hierarchy, labels = statistics.hierarchy, statistics.labels
    columns = (
        range(len(hierarchy)), hierarchy.ids, hierarchy.names, hierarchy.depth,
        statistics.images_per_class, labels[CERTAIN], labels[SOFT], labels[ABSENT],
        labels[UNKNOWN], statistics.orphans,
    )  # fmt: skip
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in (_COLUMNS, *zip(*columns, strict=True)):
            file.write(tsv_row(row))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that gets its final name once it is complete."""
    try:
        with complete_file(path) as unfinished:
            write(unfinished)
    except OSError as error:
        raise _no_place(path, error) from error
