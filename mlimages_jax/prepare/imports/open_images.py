# SPDX-License-Identifier: BSD-3-Clause
"""The command `import open-images`: image-level labels of Open Images as label lists."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from mlimages_jax.files.counting import counted
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.list_rows import check_row
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.manual_dir import (
    MissingLabels,
    build_of,
    what_came_and_what_is_next,
    write_manual_dir,
)
from mlimages_jax.prepare.imports.open_images_classes import (
    Edge,
    Tree,
    make_hierarchy,
    read_descriptions,
    read_tree,
    write_dropped,
)
from mlimages_jax.prepare.imports.open_images_labels import Verdicts

DROPPED_EDGES = "dropped_edges.tsv"


def import_open_images(
    *,
    output: Path,
    descriptions: Path,
    hierarchy: Path | None = None,
    train: tuple[Path, ...] = (),
    val: tuple[Path, ...] = (),
    test: tuple[Path, ...] = (),
    machine: Literal["drop", "keep"] = "drop",
    missing_labels: MissingLabels = "absent",
    name: str = "{id}.jpg",
) -> None:
    r"""Turn image-level labels of Open Images into label lists.

    Import all splits of a set in one command:

        mlimages data import open-images --output open_images \
            --descriptions class-descriptions.csv \
            --hierarchy bbox_labels_600_hierarchy.json \
            --train train-annotations-human-imagelabels.csv \
            --val validation-annotations-human-imagelabels.csv \
            --missing-labels unknown

    Annotators verified some classes of each image: confirmed ones get confidence 1, rejected ones
    are listed with 0. The tables say nothing about all other classes. As unknown, these take part
    in neither loss nor metrics; as absent, they count as negatives, which is wrong for classes that
    nobody looked for.

    A class here has one parent. If the hierarchy gives it several, the parent on its longest path
    to a root is kept, and the others are listed in dropped_edges.tsv. "Part" is not an is-a
    relation and gives no parent. A class found only in descriptions or labels has none either.

    The rows that are kept stay in memory: about 26 MB per million, plus 150 MB.

    Args:
        output: folder for the lists, the `--manual-dir` of `mlimages data build ml-images`.
        descriptions: table of LabelName and DisplayName, with or without that header.
        hierarchy: JSON of nested LabelName, Subcategory and Part. Without it all classes are roots.
        train: tables of ImageID, Source, LabelName and Confidence for train: human-verified and
            machine-generated ones, also compressed (.gz), in any order.
        val: tables for val, likewise.
        test: tables for test, likewise.
        machine: what to do with rows of the source "machine": drop them, or keep them with their
            confidence where there is no human verdict.
        missing_labels: meaning of classes that an image does not list.
        name: names of the image files under images/, with {id} for the image's id, such as
            "{split}/{id}.jpg".
    """
    tables = {
        split: paths for split, paths in (("train", train), ("val", val), ("test", test)) if paths
    }
    if not tables:
        raise PrepareError("no tables of labels given: use --train, --val or --test")
    names = {split: name.replace("{split}", split) for split in tables}
    for template in names.values():
        _check_name(template)
    known = read_descriptions(descriptions)
    tree = read_tree(hierarchy) if hierarchy else None

    # Filled by all tables, in order of appearance: what becomes a class is known only after the
    # last one, since a class may occur in the labels of a single split.
    numbers: dict[str, int] = {}
    verdicts = {
        split: _read(paths, numbers, with_machine=machine == "keep")
        for split, paths in tables.items()
    }
    try:
        classes, dropped = make_hierarchy(known, tree, numbers)
    except ValueError as error:
        raise PrepareError(f"{hierarchy}: {error}; remove one of these edges") from error
    class_of_number = np.array([classes.index(id_) for id_ in numbers], np.int32)
    with write_manual_dir(output, classes, missing_labels=missing_labels) as writer:
        for split, template in names.items():
            writer.write(split, verdicts[split].label_rows(template, class_of_number))
    write_dropped(output / DROPPED_EDGES, dropped, classes)

    rows = sum((part.rows for part in verdicts.values()), Counter())
    print(_account(rows, machine, classes, known, tree, dropped))
    build = build_of(output, "mine", classes)
    print(what_came_and_what_is_next(build, classes, writer, missing_labels=missing_labels))


def _read(paths: Sequence[Path], numbers: dict[str, int], *, with_machine: bool) -> Verdicts:
    verdicts = Verdicts(numbers)
    for path in paths:
        verdicts.read(path, with_machine=with_machine)
    return verdicts


def _check_name(template: str) -> None:
    try:
        if "{id}" not in template:
            raise ValueError("it must contain {id}")
        # Ids of Open Images have 16 hexadecimal digits. Other {fields} raise a LookupError.
        check_row(template.format(id="0" * 16), [], [], num_classes=1)
    except (ValueError, LookupError) as error:
        raise PrepareError(f"--name {template!r} is not a file name: {error}") from error


def _account(
    rows: Mapping[str, int],
    machine: str,
    classes: Hierarchy,
    known: Mapping[str, str],
    tree: Tree | None,
    dropped: Sequence[Edge],
) -> str:
    """Summarises what was read and decided."""
    unnamed = sum(id_ not in known for id_ in classes.ids)
    lines = [
        f"{count:,} rows of {source}" + (", dropped" * (source == "machine" and machine == "drop"))
        for source, count in sorted(rows.items())
    ]
    lines.append(f"{counted(unnamed, 'class')} without a description: the id is the name")
    if tree:
        if tree.top not in classes.ids:
            lines.append(f"the outermost class, {tree.top}, was left out: it has no description")
        implied = sum(edge.implied for edge in dropped)
        lines.append(
            f"{len(dropped):,} edges dropped; {implied:,} of them lose nothing, because the parent "
            f"is still an ancestor; {tree.parts:,} entries of Part give no parent"
        )
    return "\n".join(lines)
