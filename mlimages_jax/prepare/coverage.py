# SPDX-License-Identifier: BSD-3-Clause
"""The command `coverage`: reports how much of a list is present, what is missing, and why."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from tyro.conf import OmitArgPrefixes, Positional

from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import tsv_row
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.coverage_slices import SlicedCoverage
from mlimages_jax.prepare.covered_rows import ClassCoverage, Coverage, cover
from mlimages_jax.prepare.outcomes import open_outcomes
from mlimages_jax.prepare.url_lists import count_rows

_BY_CLASS = "coverage_by_class.tsv"
_MISSING = "missing.tsv"
_SLICES = 16  # of the names on a cluster of unknown size
_LOCAL = EngineOptions()


def coverage(
    lists: Positional[tuple[Path, ...]],
    /,
    *,
    manifests: tuple[str, ...],
    dictionary: Path | None = None,
    output_dir: Path | None = None,
    engine: OmitArgPrefixes[EngineOptions] = _LOCAL,
) -> None:
    r"""Report how much of a list is present, what is missing, and why.

    Reads the manifests of `download` and `extract`, also while those run. If several manifests
    know a name, one that has the image counts; so those of many machines can be combined. A row of
    image shards needs 24 bytes of memory, 90 while all of them are sorted.

        mlimages data coverage train_image_list.txt val_image_list.txt \
            --manifests urls/manifest.sqlite ml_images/manifest.sqlite \
            --dictionary dictionary_and_semantic_hierarchy.txt --output-dir report

    Prints the rows of each list: present (by source), failed (by error), not tried. Writes into
    the folder report

        missing.tsv             name, error, message, list: each row without an image
        coverage_by_class.tsv   class, WordNet id, name, images listed, there, share; with
                                --dictionary. Labels of confidence 0 or -1 are not counted

    Args:
        lists: label lists, of URLs or of image names.
        manifests: manifest.sqlite files, and folders with such files or with image shards, on a
            disk or in a bucket; any number.
        dictionary: the class list (dictionary.txt) of the label lists.
        output_dir: folder for the tables; created if missing.
        engine: where the names are looked up, in as many slices as there are workers: each needs
            memory for its slice only, and the result is the same.
    """
    if not lists:
        raise PrepareError("no label list given: name one or more")
    if dictionary is not None and output_dir is None:
        raise PrepareError("--dictionary adds a table: give its folder with --output-dir")
    hierarchy = None if dictionary is None else Hierarchy.from_file(dictionary)
    classes = None if hierarchy is None else ClassCoverage(len(hierarchy))
    with contextlib.ExitStack() as stack:
        table: TextIO | None = None
        if output_dir is not None:
            output_dir.mkdir(parents=True, exist_ok=True)
            table = stack.enter_context(_new_table(output_dir / _MISSING))
            table.write(tsv_row(("name", "error", "message", "list")))
        here = engine.engine == "local" and not engine.workers
        look_up = _here if here else functools.partial(_on_workers, engine)
        for one in look_up(lists, manifests, classes, table):
            if not one.rows:
                raise PrepareError(
                    f"{one.path}: there are no rows; copy or download the list again"
                )
            print(one, flush=True)
    if output_dir is not None and hierarchy is not None and classes is not None:
        with _new_table(output_dir / _BY_CLASS) as file:
            write_by_class(file, hierarchy, classes)


def _here(
    lists: Sequence[Path],
    manifests: Sequence[str],
    classes: ClassCoverage | None,
    table: TextIO | None,
) -> Iterator[Coverage]:
    """Yields the outcome of each list, after adding to the counts of classes and the table."""
    missing = None if table is None else _Table(table)
    with open_outcomes(manifests) as opened:
        for path in lists:
            with progress(count_rows([path]), what=path.name, unit=" rows") as bar:
                covered = cover(path, opened, classes=classes, missing=missing, bar=bar)
            yield covered


def _on_workers(
    engine: EngineOptions,
    lists: Sequence[Path],
    manifests: Sequence[str],
    classes: ClassCoverage | None,
    table: TextIO | None,
) -> Iterator[Coverage]:
    """Does the same on the workers of an engine."""
    job = SlicedCoverage(
        lists=lists,
        manifests=manifests,
        num_classes=None if classes is None else len(classes.listed),
        wants_missing=table is not None,
    )
    with engine.open() as opened:
        result = job.run(opened, slices=engine.workers or _SLICES)
    if classes is not None:
        for some in result.classes():
            classes.listed += some.listed
            classes.there += some.there
    if table is not None:
        table.writelines(result.missing())
    yield from result.lists


class _Table:
    """Writes the rows without an image to a file; see `MissingRows`."""

    def __init__(self, file: TextIO):
        self._file = file

    def add(self, row: int, line: str) -> None:
        self._file.write(line)


def write_by_class(file: TextIO, hierarchy: Hierarchy, classes: ClassCoverage) -> None:
    """Writes the table of classes, in class order."""
    file.write(tsv_row(("class", "wordnet_id", "name", "listed", "there", "share")))
    counts = zip(classes.listed.tolist(), classes.there.tolist(), strict=True)
    rows = zip(hierarchy.ids, hierarchy.names, counts, strict=True)
    for class_, (wordnet_id, name, (listed, there)) in enumerate(rows):
        fraction = f"{there / listed:.4f}" if listed else ""
        file.write(tsv_row((class_, wordnet_id, name, listed, there, fraction)))


@contextlib.contextmanager
def _new_table(path: Path) -> Iterator[TextIO]:
    """Opens a text file that gets its final name once it is complete."""
    with (
        complete_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file
