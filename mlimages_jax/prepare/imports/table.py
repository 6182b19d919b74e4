# SPDX-License-Identifier: BSD-3-Clause
"""The command `import table`: tables of images and labels as label lists."""

import hashlib
import itertools
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tyro.conf import Positional

from mlimages_jax.files.counting import counted
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.list_rows import check_name
from mlimages_jax.labels.lists import LabelRow
from mlimages_jax.labels.repeated_names import Repeats, find_repeats
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.building import NO_OPTIONS, Build, BuildOptions
from mlimages_jax.prepare.imports.image_roots import Located, locate
from mlimages_jax.prepare.imports.label_cells import label_name
from mlimages_jax.prepare.imports.manual_dir import (
    CLASS_LIST,
    LIST_SUFFIX,
    ManualDirWriter,
    MissingLabels,
    build_of,
    check_split,
    link_images,
    what_came_and_what_is_next,
    write_manual_dir,
)
from mlimages_jax.prepare.imports.set_aside import BadRow, SetAside
from mlimages_jax.prepare.imports.shell import shell_word
from mlimages_jax.prepare.imports.table_classes import (
    ClassFinder,
    collect_classes,
    flat_hierarchy,
)
from mlimages_jax.prepare.imports.table_rows import (
    SAMPLE_LINES,
    Table,
    TableOptions,
    TableRow,
)


class TablePlan(NamedTuple):
    """A table and how to split it.

    Attributes:
        table: The table to read.
        split_of: Returns the split of a row.
    """

    table: Table
    split_of: Callable[[TableRow], str]


def import_table(
    tables: Positional[list[Path]],
    /,
    *,
    output: Path,
    dictionary: Path | None = None,
    path_column: str | None = None,
    label_columns: tuple[str, ...] = (),
    label_separator: str | None = None,
    hierarchy_separator: str = ">",
    delimiter: str | None = None,
    encoding: str | None = None,
    split: str = "train",
    split_column: str | None = None,
    val_fraction: float = 0.0,
    missing_labels: MissingLabels = "absent",
    images: Path | None = None,
    max_skipped: float = 0.01,
) -> None:
    """Turn tables of image files and labels into label lists.

    Tables are delimited text (.csv, .tsv, .txt; the delimiter is detected), JSON lines (.jsonl),
    one JSON value (.json) or Parquet, also compressed (.gz):

        path,labels
        1.jpg,animal > dog;ball:0.8

        {"path": "1.jpg", "labels": {"animal > dog": 1, "ball": 0.8}}
        {"path": "2.jpg", "labels": ["ball"]}

        file_name;cat;dog
        1.jpg;1;0

    For example, with every tenth image for validation:

        mlimages data import table photos.csv --output photos --val-fraction 0.1

    A label may have a confidence: 1 present (the default), 0 absent, -1 unknown, or in between. One
    row contains all labels of an image. If a label repeats in a row, its highest confidence counts.
    Several columns of numbers are one column per label (one-hot).

    Without a dictionary, the classes are the labels of the tables. A label such as "animal > dog"
    puts dog below animal and adds the class animal, though the list names dog alone: the builder
    adds ancestors if asked for closed labels. "dog" by itself would be another class, without a
    parent. For more images of the same classes, pass the dictionary.txt that this wrote.

    Unusable rows are written to set_aside.tsv with their line and the reason.

    Args:
        tables: .csv, .jsonl, ... files, in UTF-8 or UTF-16.
        output: folder for the lists, the `--manual-dir` of `mlimages data build ml-images`.
        dictionary: the class list (dictionary.txt); labels are the ids of its classes, their
            complete names, or single synonyms that only one class has.
        path_column: column (or key) of the image's path; default: detect it.
        label_columns: column of the labels, or several; default: detect them. Columns of numbers
            from 0 to 1 are one label each.
        label_separator: separator between the labels of a cell; default: detect it (";", "|", ",").
        hierarchy_separator: separator between the names of a label that is a path.
        delimiter: delimiter between columns; default: detect it.
        encoding: encoding of the text, such as cp1252; default: detect UTF-8 or UTF-16.
        split: put all rows into this split.
        split_column: instead, column (or key) with the split of each row.
        val_fraction: instead, fraction of the rows that goes to val, the others to train: chosen by
            a hash of the path, so that an image always gets the same split.
        missing_labels: meaning of classes that an image does not list.
        images: folder of the images; default: search next to the tables.
        max_skipped: fraction of the rows that may be set aside; up to five always may.
    """
    if not tables:
        raise PrepareError("no table given; name at least one")
    if label_separator == "" or not hierarchy_separator:
        raise PrepareError("a separator is empty; omit the option for the default")
    split_of = _split_rule(split, split_column, val_fraction)
    options = TableOptions(
        path_column, label_columns, split_column, label_separator, delimiter, encoding
    )
    plans = [TablePlan(Table(path, options), split_of) for path in tables]
    aside = SetAside(max_skipped)
    write_tables(
        plans,
        locate_images(plans, images=images),
        aside=aside,
        output=output,
        class_list=dictionary,
        hierarchy_separator=hierarchy_separator,
        missing_labels=missing_labels,
        name="mine",
    )


def locate_images(plans: Sequence[TablePlan], *, images: Path | None) -> Located:
    """Searches for the images of the first rows of each table, in `images` or next to the table."""
    samples = [[row.path for row in sample_rows(plan.table)] for plan in plans]
    around = [[images] if images else [plan.table.path.parent] for plan in plans]
    return locate(samples, around)


def sample_rows(table: Table) -> list[TableRow]:
    """Returns the usable rows among the first ones."""
    rows = table.rows(lambda line, reason: None, limit=SAMPLE_LINES)
    return list(itertools.islice(rows, SAMPLE_LINES))


def write_tables(
    plans: Sequence[TablePlan],
    located: Located,
    *,
    aside: SetAside,
    output: Path,
    class_list: Path | None,
    hierarchy_separator: str,
    missing_labels: MissingLabels,
    name: str,
    build_options: BuildOptions = NO_OPTIONS,
) -> Build | None:
    """Writes the lists of some tables, and prints counts and the next commands.

    Args:
        plans: The tables and how to split them.
        located: Where their images are.
        aside: Receives unusable rows.
        output: As for `import_table`.
        class_list: `dictionary` of `import_table`.
        hierarchy_separator: As for `import_table`.
        missing_labels: `missing_labels` of `import_table`.
        name: Name of the data set in the printed command.
        build_options: What the user has said about that command.

    Returns:
        The build that is next; None if the images have to come first.

    Raises:
        PrepareError: Too many rows are unusable, or a file as a whole is.
    """
    hierarchy = _hierarchy([plan.table for plan in plans], class_list, hierarchy_separator)
    finder = ClassFinder(hierarchy, separator=hierarchy_separator)
    with write_manual_dir(
        output, hierarchy, missing_labels=missing_labels, images=located.folder
    ) as writer:
        rows = _Rows(writer, finder, aside, keep_zeros=missing_labels == "unknown")
        for plan, name_of in zip(plans, located.namers(), strict=True):
            rows.write(plan, name_of)
        aside.check()
    aside.write(output)
    if text := _of_repeats(rows.repeats(), output, list(writer.images)):
        print(text)
    if aside.count:
        print(aside.summary(output))
    is_linked = link_images(output, located.folder)
    build = build_of(output, name, hierarchy, build_options)
    print(
        what_came_and_what_is_next(
            build, hierarchy, writer, missing_labels=missing_labels, is_linked=is_linked,
            are_urls=located.are_urls,
        )
    )  # fmt: skip
    return build if is_linked else None


def _hierarchy(tables: Sequence[Table], class_list: Path | None, separator: str) -> Hierarchy:
    """Returns the classes: of the dictionary, else those that all tables name, else collected."""
    if class_list:
        return Hierarchy.from_file(class_list)
    named = [table.classes for table in tables]
    if all(names is not None for names in named):
        return flat_hierarchy(itertools.chain.from_iterable(filter(None, named)))
    return collect_classes(tables, separator=separator)


def label_row(row: TableRow, finder: ClassFinder, *, name: str) -> LabelRow:
    """Returns the row with class indices instead of labels, each class once with its maximum.

    Args:
        row: A row of a table.
        finder: Finds its classes.
        name: Name of its image in the list.

    Raises:
        ValueError: A label means no class, or the path cannot be a name in a list.
    """
    check_name(name)
    labels: dict[int, float] = {}
    for label, confidence in row.labels:
        class_ = finder.find(label)
        labels[class_] = max(labels.get(class_, confidence), confidence)
    classes = np.fromiter(labels, np.int32, len(labels))
    return LabelRow(name, classes, np.fromiter(labels.values(), np.float32, len(labels)))


def in_val(path: str, fraction: float) -> bool:
    """Returns whether an image belongs to this fraction of all; depends on its path alone."""
    # By the path, not the row: an image stays in its split when rows are added or reordered.
    # Names in tars and on disks need not be UTF-8; surrogates stand for such bytes.
    digest = hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _split_rule(
    split: str, split_column: str | None, val_fraction: float
) -> Callable[[TableRow], str]:
    """Returns the function that gives the split of a row."""
    if not 0 <= val_fraction < 1:
        raise PrepareError(f"--val-fraction {val_fraction} is not at least 0 and below 1")
    if (split_column is not None) + (val_fraction > 0) + (split != "train") > 1:
        raise PrepareError("give only one of --split, --split-column and --val-fraction")
    check_split(split)
    if split_column is not None:
        return lambda row: (row.split or "").strip()  # the writer rejects an empty split
    if not val_fraction:
        return lambda row: split
    return lambda row: "val" if in_val(row.path, val_fraction) else split


class _Rows:
    """Writes the rows of tables, one table after the other."""

    def __init__(
        self, writer: ManualDirWriter, finder: ClassFinder, aside: SetAside, *, keep_zeros: bool
    ):
        self._writer, self._finder, self._aside = writer, finder, aside
        self._keep_zeros = keep_zeros
        self._paths: dict[str, array[int]] = {}  # hashes of the paths of each split, 8 bytes each

    def write(self, plan: TablePlan, name_of: Callable[[str], str]) -> None:
        """Writes a table; unusable rows are set aside."""
        path = plan.table.path
        one_hot = set() if self._keep_zeros else {*map(label_name, plan.table.columns.one_hot)}

        def set_aside(line: int, reason: str) -> None:
            self._aside.add(BadRow(str(path), str(line), reason))

        for row in plan.table.rows(set_aside):
            # In one-hot columns, 0 means the same as leaving the class out of the list.
            if one_hot:
                labels = [one for one in row.labels if one[1] != 0 or one[0] not in one_hot]
                row = row._replace(labels=labels)
            try:
                name = name_of(row.path)
                found = label_row(row, self._finder, name=name)
                split = plan.split_of(row)
                self._writer.write(split, [found])
            except (ValueError, PrepareError) as error:
                set_aside(row.line, str(error))
                continue
            self._aside.total += 1
            # Python's hash differs between processes, but all of these are compared in this one.
            self._paths.setdefault(split, array("q")).append(hash(name))

    def repeats(self) -> Repeats:
        """Returns the names of more than one row."""
        return find_repeats(
            {split: np.frombuffer(one, np.int64) for split, one in self._paths.items()}
        )


def _of_repeats(repeats: Repeats, output: Path, splits: Sequence[str]) -> str:
    """Describes rows that repeat a path: how to merge them, and what makes results invalid."""
    lines = []
    if within := sum(repeats.within.values()):
        rows = f"{counted(within, 'row')} {'has' if within == 1 else 'have'}"
        lines.append(
            f"{rows} the path of an earlier row of the same split, and each counts as a separate "
            "image with its own labels only. If a table has one row per label of an image, merge "
            "them:"
        )
        folder = shell_word(output)
        lines += [
            f"  mlimages data labels {folder}/{split}{LIST_SUFFIX} --merge "
            f"--dictionary {folder}/{CLASS_LIST} --output {folder}/{split}{LIST_SUFFIX}"
            for split in splits
        ]
    lines += [
        f"{counted(shared, 'image')} {'is' if shared == 1 else 'are'} in {one} and in {other}: "
        "a test on one says nothing about training on the other; keep each in one split (the "
        "builder refuses images of train in val or test)"
        for (one, other), shared in repeats.between.items()
    ]
    return "\n".join(lines)
