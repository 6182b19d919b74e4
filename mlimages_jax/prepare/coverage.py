# SPDX-License-Identifier: BSD-3-Clause
"""The command `coverage`: reports how much of a list is present, what is missing, and why."""

import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from tyro.conf import Positional

from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.escaping import one_line, tsv_row
from mlimages_jax.image_shards.outcome import OK, Image
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import ANY_CLASS, LabelList, iter_label_list
from mlimages_jax.labels.rows import row_names
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.outcomes import Outcomes, open_outcomes
from mlimages_jax.prepare.url_lists import count_rows

NOT_TRIED = "not_tried"
_BY_CLASS = "coverage_by_class.tsv"
_MISSING = "missing.tsv"


@dataclasses.dataclass
class Coverage:
    """The outcome of the rows of one list, according to manifests.

    Attributes:
        path: Path of the list.
        rows: Number of rows.
        sources: Number of rows with an image, by its source.
        errors: Number of the other rows, by error; `NOT_TRIED` if no manifest has the name.
    """

    path: Path
    rows: int = 0
    sources: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    errors: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def there(self) -> int:
        """Number of rows whose image is present."""
        return self.sources.total()

    def __str__(self) -> str:
        untried = self.errors[NOT_TRIED]
        lines = [f"{self.path}: {self.rows:,} rows", self._line("present", self.there)]
        lines += [self._line(f"  from {source}", n) for source, n in self.sources.most_common()]
        lines.append(self._line("failed", self.errors.total() - untried))
        lines += [
            self._line(f"  {error}", count)
            for error, count in self.errors.most_common()
            if error != NOT_TRIED
        ]
        lines.append(self._line("not tried", untried))
        return "\n".join(lines)

    def _line(self, what: str, count: int) -> str:
        return f"  {one_line(what):<40} {count:>12,} {count / max(self.rows, 1):>7.2%}"


class ClassCoverage:
    """Counts images per class (confidence above 0): listed ones, and those present.

    Args:
        num_classes: C.

    Attributes:
        listed: int64 [C].
        there: int64 [C].
    """

    def __init__(self, num_classes: int):
        self.listed = np.zeros(num_classes, np.int64)
        self.there = np.zeros(num_classes, np.int64)

    def add(self, part: LabelList, there: np.ndarray) -> None:
        """Counts R rows; `there` is bool [R], whether the row's image is present."""
        positive = part.confidences > 0
        label_there = np.repeat(there, np.diff(part.offsets))
        for counts, chosen in (self.listed, positive), (self.there, positive & label_there):
            counts += np.bincount(part.classes[chosen], minlength=len(counts))


def coverage(
    lists: Positional[tuple[Path, ...]],
    /,
    *,
    manifests: tuple[str, ...],
    dictionary: Path | None = None,
    output_dir: Path | None = None,
) -> None:
    r"""Report how much of a list is present, what is missing, and why.

    Reads the manifests of `download` and `extract`, also while those run. If several manifests
    know a name, one that has the image counts; so those of many machines can be combined. A row of
    image shards needs 24 bytes of memory.

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
    """
    if not lists:
        raise PrepareError("no label list given: name one or more")
    if dictionary is not None and output_dir is None:
        raise PrepareError("--dictionary adds a table: give its folder with --output-dir")
    hierarchy = None if dictionary is None else Hierarchy.from_file(dictionary)
    classes = None if hierarchy is None else ClassCoverage(len(hierarchy))
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_outcomes(manifests))
        missing = None
        if output_dir is not None:
            output_dir.mkdir(parents=True, exist_ok=True)
            missing = stack.enter_context(_new_table(output_dir / _MISSING))
            missing.write(tsv_row(("name", "error", "message", "list")))
        for path in lists:
            covered = cover(path, opened, classes=classes, missing=missing)
            if not covered.rows:
                raise PrepareError(f"{path}: there are no rows; copy or download the list again")
            print(covered, flush=True)
    if output_dir is not None and hierarchy is not None and classes is not None:
        with _new_table(output_dir / _BY_CLASS) as file:
            write_by_class(file, hierarchy, classes)


def cover(
    path: Path,
    manifests: Sequence[Outcomes],
    *,
    classes: ClassCoverage | None = None,
    missing: TextIO | None = None,
) -> Coverage:
    """Looks up each row of a list, in memory that does not depend on the length of the list.

    Args:
        path: Path of the list.
        manifests: Manifests to search.
        classes: Counter to add to.
        missing: File that gets a line for each row without an image.

    Raises:
        LabelListError: A row cannot be read, or has a class that `classes` does not have.
    """
    result = Coverage(path)
    num_classes = ANY_CLASS if classes is None else len(classes.listed)
    with progress(count_rows([path]), what=path.name, unit=" rows") as bar:
        for part in iter_label_list(path, num_classes=num_classes):
            names = [name.decode() for name in row_names(part)]
            found = _look_up(names, manifests)
            there = np.array([name in found and found[name].status == OK for name in names], bool)
            result.rows += len(names)
            for name, is_there in zip(names, there.tolist(), strict=True):
                if is_there:
                    result.sources[str(found[name].source)] += 1
                    continue
                image = found.get(name)
                error = NOT_TRIED if image is None else str(image.error)
                result.errors[error] += 1
                if missing is not None:
                    message = "" if image is None else " ".join(str(image.message).split())
                    missing.write(tsv_row((name, error, message, path.name)))
            if classes is not None:
                classes.add(part, there)
            bar.update(len(names))
    return result


def write_by_class(file: TextIO, hierarchy: Hierarchy, classes: ClassCoverage) -> None:
    """Writes the table of classes, in class order."""
    file.write(tsv_row(("class", "wordnet_id", "name", "listed", "there", "share")))
    counts = zip(classes.listed.tolist(), classes.there.tolist(), strict=True)
    rows = zip(hierarchy.ids, hierarchy.names, counts, strict=True)
    for class_, (wordnet_id, name, (listed, there)) in enumerate(rows):
        fraction = f"{there / listed:.4f}" if listed else ""
        file.write(tsv_row((class_, wordnet_id, name, listed, there, fraction)))


def _look_up(names: list[str], manifests: Sequence[Outcomes]) -> dict[str, Image]:
    """Returns the rows of names: from the first manifest with the image, else the last one."""
    found: dict[str, Image] = {}
    left = sorted(names)  # neighbours are stored on the same page of the database
    for manifest in manifests:
        found |= manifest.get(left)
        left = [name for name in left if name not in found or found[name].status != OK]
    return found


@contextlib.contextmanager
def _new_table(path: Path) -> Iterator[TextIO]:
    """Opens a text file that gets its final name once it is complete."""
    with (
        complete_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file
