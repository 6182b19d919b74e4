# SPDX-License-Identifier: BSD-3-Clause
"""Makes one label list from others, part by part, and counts what happened to rows and labels."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mlimages_jax.files.escaping import one_line
from mlimages_jax.files.safe_paths import UnsafeNameError, check_name
from mlimages_jax.image_shards.outcome import OK
from mlimages_jax.labels.class_map import map_classes, replace_classes
from mlimages_jax.labels.closure import close_rows
from mlimages_jax.labels.corrections import (
    Changes,
    Corrected,
    correct,
    count_changes,
    read_corrections,
)
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.image_names import encode_name
from mlimages_jax.labels.label_keys import MAX_CLASSES
from mlimages_jax.labels.lists import LabelList, LabelListWriter, iter_label_list
from mlimages_jax.labels.merging import merge_rows
from mlimages_jax.labels.rows import join_lists, rename_rows, row_names, take_rows
from mlimages_jax.monitoring.progress_bar import progress
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.outcomes import Outcomes
from mlimages_jax.prepare.url_lists import count_rows

_SHOWN_CLASSES = 20
_CERTAIN = np.float32(0.7)  # the weighted loss counts labels from here on as positive


@dataclasses.dataclass(frozen=True)
class Classes:
    """The class lists of the input lists and of the new list.

    Attributes:
        source: Class list of the input; None if not given.
        target: Class list of the new list; the same object as `source` if nothing changes.
        drop: Whether to drop labels of unknown classes instead of raising an error.
    """

    source: Hierarchy | None
    target: Hierarchy | None
    drop: bool


class LabelsJob:
    """Makes the list part by part, and counts rows and labels.

    Args:
        lists: Label lists.
        classes: Class lists of the input and of the new list.
        close: Whether to close rows over the ancestors in `classes.target`.
        merge: Whether to merge rows with the same name.
        corrections: File of other parents for the classes of `classes.target`.

    Raises:
        PrepareError: The target is missing where it is needed.

    Attributes:
        counts: Numbers of rows and labels, by what happened to them.
        dropped: Number of dropped labels, by class index of the lists.
        absent: Number of rows whose image is in no manifest, by error.
        confidences: Number of labels of the new list, by range of confidence.
    """

    def __init__(
        self,
        *,
        lists: Sequence[Path],
        classes: Classes,
        close: bool,
        merge: bool,
        corrections: Path | None = None,
    ):
        if classes.target is None and (close or classes.drop):
            raise PrepareError(
                "give --dictionary, the class list: --close and --unknown-classes=drop need it"
            )
        if corrections is not None and not close:
            raise PrepareError("--corrections change what --close adds: give --close too")
        self._lists, self._classes = lists, classes
        self._close, self._merge = close, merge
        self._corrected: Corrected | None = None
        if corrections is not None and classes.target is not None:
            self._corrected = correct(classes.target, read_corrections(corrections))
        self._changes = Changes(0, 0, 0)
        self.counts: collections.Counter[str] = collections.Counter()
        self.dropped: collections.Counter[int] = collections.Counter()
        self.absent: collections.Counter[str] = collections.Counter()
        self.confidences: collections.Counter[str] = collections.Counter()

    def run(self, output: Path, manifests: Sequence[Outcomes] = ()) -> None:
        """Writes the new list, which gets its final name once it is complete.

        Raises:
            LabelListError: A row cannot be read.
            PrepareError: A class is unknown.
        """
        parts = self._read()
        if manifests:
            parts = (self._files_of(part, manifests) for part in parts)
        if self._merge:
            parts = self._merged(parts)
        with LabelListWriter(output) as writer:
            for part in parts:
                if self._close and self._classes.target is not None:
                    part = self._closed(part, self._classes.target)
                writer.write(part)
                self._count_written(part)

    def _read(self) -> Iterator[LabelList]:
        """Yields the rows of all lists, with the classes of the new one."""
        classes = self._classes
        # Dropped labels may have any index, and without a class list nothing limits it.
        limit = MAX_CLASSES if classes.source is None or classes.drop else len(classes.source)
        table = _class_table(classes)
        with progress(count_rows(self._lists), what="labels", unit=" rows") as bar:
            for path in self._lists:
                for part in iter_label_list(path, num_classes=limit):
                    self.counts["rows read"] += len(part)
                    self.counts["labels read"] += len(part.classes)
                    yield part if table is None else self._replaced(path, part, table)
                    bar.update(len(part))
        if not self.counts["rows read"]:
            names = ", ".join(map(str, self._lists))
            raise PrepareError(f"{names}: there are no rows; copy or download the list again")

    def _replaced(self, path: Path, part: LabelList, table: np.ndarray) -> LabelList:
        """Returns a part of a list with the classes of the new one."""
        known, unknown = replace_classes(part, table)
        if len(unknown) and not self._classes.drop:
            raise PrepareError(self._complaint(path, part, int(unknown[0])))
        self._count_dropped(part, known, unknown)
        return known

    def _complaint(self, path: Path, part: LabelList, label: int) -> str:
        row = part[int(np.searchsorted(part.offsets, label, side="right")) - 1]
        class_ = self._describe(int(part.classes[label]))
        return (
            f"{path}: {row.name}: class {class_} is not in the new dictionary; "
            "drop such labels with --unknown-classes drop"
        )

    def _count_dropped(self, part: LabelList, known: LabelList, unknown: np.ndarray) -> None:
        classes, counts = np.unique(part.classes[unknown], return_counts=True)
        self.dropped.update(dict(zip(classes.tolist(), counts.tolist(), strict=True)))
        emptied = (np.diff(known.offsets) == 0) & (np.diff(part.offsets) > 0)
        self.counts["rows that lost all labels"] += int(emptied.sum())

    def _files_of(self, part: LabelList, manifests: Sequence[Outcomes]) -> LabelList:
        """Keeps the rows whose image is present, under the names of their files."""
        files = []  # one per row; empty if the image is missing
        found = _find_files([name.decode() for name in row_names(part)], manifests)
        for file, error in found:
            self.absent.update([error] if error else [])
            files.append(file.encode())
        rows = np.flatnonzero([len(file) for file in files])
        return rename_rows(take_rows(part, rows), [files[row] for row in rows.tolist()])

    def _merged(self, parts: Iterable[LabelList]) -> Iterator[LabelList]:
        # In memory at once: the rows of one image may be at both ends of the lists.
        label_list = join_lists(list(parts))
        self.counts["rows merged into others"] += len(label_list)
        for part in merge_rows(label_list):
            self.counts["rows merged into others"] -= len(part)
            yield part

    def _closed(self, part: LabelList, hierarchy: Hierarchy) -> LabelList:
        if self._corrected is not None:
            changes = count_changes(part, hierarchy, self._corrected.hierarchy)
            self._changes = self._changes.plus(changes)
            hierarchy = self._corrected.hierarchy
        closed = close_rows(part, hierarchy)
        added = np.diff(closed.offsets) - np.diff(part.offsets)
        self.counts["added by closing"] += int(added.sum())
        self.counts["rows that closing added to"] += int(np.count_nonzero(added))
        return closed

    def _count_written(self, part: LabelList) -> None:
        self.counts["rows written"] += len(part)
        self.counts["labels written"] += len(part.classes)
        values = part.confidences
        ranges = {
            "-1 (unknown)": values == -1,
            "0 (absent)": values == 0,
            f"below {_CERTAIN:.1f}": (values > 0) & (values < _CERTAIN),
            f"{_CERTAIN:.1f} to 1": (values >= _CERTAIN) & (values < 1),
            "1": values == 1,
        }
        self.confidences.update({text: int(chosen.sum()) for text, chosen in ranges.items()})

    def summary(self) -> str:
        """Returns the counts of rows and labels, one per line."""
        counts = self.counts
        lines = [(counts["rows read"], "rows read")]
        lines += [(count, f"  left out: {error}") for error, count in self.absent.most_common()]
        lines += [(counts["rows merged into others"], "  merged into others")] * self._merge
        lines += [(counts["rows written"], "rows written"), (counts["labels read"], "labels read")]
        if self._classes.drop:
            lines.append((self.dropped.total(), "  dropped: unknown class"))
            lines += self._most_dropped()
            lines.append((counts["rows that lost all labels"], "  rows left without any label"))
        if self._close:
            rows = f"{counts['rows that closing added to']:,} rows"
            lines.append((counts["added by closing"], f"  added by closing, to {rows}"))
        if self._corrected is not None:
            lines.append((self._changes.added, f"    of these by corrections ({self._corrected})"))
            lines.append((self._changes.removed, "    not added due to corrections"))
        lines.append((counts["labels written"], "labels written"))
        lines += [(count, f"  {text}") for text, count in self.confidences.items()]
        return "\n".join(f"{count:>14,} {text}" for count, text in lines)

    def _most_dropped(self) -> list[tuple[int, str]]:
        ranked = self.dropped.most_common()
        lines = [(n, f"    {self._describe(class_)}") for class_, n in ranked[:_SHOWN_CLASSES]]
        rest = ranked[_SHOWN_CLASSES:]
        if rest:
            lines.append((sum(n for _, n in rest), f"    {len(rest):,} more classes"))
        return lines

    def _describe(self, class_: int) -> str:
        source = self._classes.source
        if source is None or class_ >= len(source):
            return str(class_)
        return one_line(f"{class_} {source.ids[class_]} ({source.names[class_]})")


def _class_table(classes: Classes) -> np.ndarray | None:
    """Returns the table for `replace_classes`, or None if it would change nothing."""
    if classes.source is None or classes.target is None:
        return None
    if classes.source is classes.target:
        return np.arange(len(classes.target), dtype=np.int32) if classes.drop else None
    return map_classes(classes.source, classes.target)


def _find_files(
    names: Sequence[str], manifests: Sequence[Outcomes]
) -> Iterator[tuple[str, str | None]]:
    """Yields (file, None) for every name, or ("", error) if no manifest has the image."""
    files: dict[str, str] = {}
    errors: dict[str, str] = {}
    for manifest in manifests:
        wanted = [name for name in names if name not in files]
        for name, image in manifest.get(wanted).items():
            if image.status != OK:
                errors.setdefault(name, image.error or "failed")
            elif image.file is not None and (file := _listed_name(image.file)):
                files[name] = file
            elif image.file is not None:
                errors.setdefault(name, "unsafe_name")
    for name in names:
        if name in files:
            yield files[name], None
        else:
            yield "", errors.get(name, "in no manifest")


def _listed_name(file: str) -> str | None:
    """Returns the list name of a manifest's file, or None if the path is unsafe."""
    try:
        check_name(file)
    except UnsafeNameError:
        return None
    return encode_name(file)
