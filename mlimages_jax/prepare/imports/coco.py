# SPDX-License-Identifier: BSD-3-Clause
"""The command `import coco`: COCO instances as label lists of the categories in each image."""

import graphlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mlimages_jax.files.counting import counted
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.list_rows import check_row
from mlimages_jax.labels.lists import LabelRow
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.building import NO_OPTIONS, Build, BuildOptions
from mlimages_jax.prepare.imports.coco_file import CocoImage, Instances
from mlimages_jax.prepare.imports.image_roots import Located, locate
from mlimages_jax.prepare.imports.manual_dir import (
    build_of,
    link_images,
    what_came_and_what_is_next,
    write_manual_dir,
)
from mlimages_jax.prepare.imports.set_aside import BadRow, SetAside


def import_coco(
    *,
    output: Path,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
    closed: bool = False,
    name: str | None = None,
    images: Path | None = None,
    max_skipped: float = 0.01,
) -> None:
    r"""Turn COCO instances into label lists: the categories that each image shows.

    Import all splits of a set in one command:

        mlimages data import coco --output coco \
            --train annotations/instances_train2017.json \
            --val annotations/instances_val2017.json

    A category is a label of an image if at least one annotation, crowds included, has it.
    Super-categories become parents; a category with the name of a super-category is the same class
    ("person"), and so are categories with equal names. Class ids are the names. COCO looked for
    every category in every image, so categories that an image does not list are absent, and an
    image without annotations has an empty row.

    The images are searched for next to the annotations: in train2017/ and val2017/, in images/, ...
    Names in the lists are relative to the folder that all splits share. Unusable entries are
    written to set_aside.tsv with the reason.

    Args:
        output: folder for the lists, the `--manual-dir` of `mlimages data build ml-images`.
        train: instances of the split train, a JSON file.
        val: instances of val, likewise.
        test: instances of test, likewise.
        closed: list super-categories too; the builder's `--labels=closed` does the same later.
        name: names of the image files under images/, with {file_name} or {id}, and optionally
            {split}, such as "{split}2017/{file_name}"; default: detect them.
        images: folder of the images; default: search next to the annotations.
        max_skipped: fraction of the entries that may be set aside; up to five always may.
    """
    paths = {
        split: path for split, path in (("train", train), ("val", val), ("test", test)) if path
    }
    if not paths:
        raise PrepareError("no instances given: name a file with --train, --val or --test")
    if name is not None:
        _check_template(name)
    aside = SetAside(max_skipped)
    instances = {split: Instances(path, aside) for split, path in paths.items()}
    located = locate_images(instances, around=[images] if images else None)
    if name is not None:
        located = Located(images, located.roots)
    write_coco(
        instances, located, aside=aside, output=output, closed=closed, template=name, name="mine"
    )


def locate_images(
    instances: Mapping[str, Instances], *, around: Sequence[Path] | None = None
) -> Located:
    """Searches for the images of each split.

    Args:
        instances: Instances of each split.
        around: Folders to search; None: the folder of each file, or its parent if the folder is
            called annotations.
    """
    lists = [list(part.images) for part in instances.values()]
    folders = [around or _around(part.path) for part in instances.values()]
    return locate(lists, folders, list(instances))


def write_coco(
    instances: Mapping[str, Instances],
    located: Located,
    *,
    aside: SetAside,
    output: Path,
    closed: bool,
    template: str | None,
    name: str,
    build_options: BuildOptions = NO_OPTIONS,
) -> Build | None:
    """Writes the lists of all splits, and prints counts and the next commands.

    Args:
        instances: Instances of each split, created with `aside`.
        located: Where their images are.
        aside: Receives unusable entries.
        output: As for `import_coco`.
        closed: As for `import_coco`.
        template: As `name` of `import_coco`.
        name: Name of the data set in the printed command.
        build_options: What the user has said about that command.

    Returns:
        The build that is next; None if the images have to come first.

    Raises:
        PrepareError: The splits belong to different sets, or too many entries are unusable.
    """
    hierarchy = make_hierarchy(list(instances.values()), aside)
    with write_manual_dir(
        output, hierarchy, missing_labels="absent", images=located.folder
    ) as writer:
        for (split, part), namer in zip(instances.items(), located.namers(), strict=True):
            name_of = _namer(namer, template, split)
            writer.write(split, _rows(part, hierarchy, name_of, aside, closed=closed))
        aside.check()
        if not writer.images.total():
            files = ", ".join(str(part.path) for part in instances.values())
            raise PrepareError(f"{files}: no image can be used, so there is nothing to write")
    aside.write(output)
    if aside.count:
        print(aside.summary(output))
    if merged := sum(part.merged for part in instances.values()):
        have = "has" if merged == 1 else "have"
        text = f"{counted(merged, 'category')} {have} the name of an earlier one"
        print(f"{text}, and the two are one class")
    is_linked = link_images(output, located.folder)
    build = build_of(output, name, hierarchy, build_options)
    print(
        what_came_and_what_is_next(
            build, hierarchy, writer, missing_labels="absent", is_linked=is_linked,
            are_urls=located.are_urls,
        )
    )  # fmt: skip
    return build if is_linked else None


def make_hierarchy(parts: Sequence[Instances], aside: SetAside) -> Hierarchy:
    """Makes one class per name: categories in file order, each after its super-category.

    Args:
        parts: The splits; the first must have all categories.
        aside: Receives super-categories that form a cycle.

    Raises:
        PrepareError: A split has categories that the first does not have.
    """
    first, *others = parts
    for other in others:
        if not other.categories.items() <= first.categories.items():
            raise PrepareError(
                f"{other.path}: the categories differ from {first.path}; use files of one set"
            )
    # "person" is its own super-category in COCO.
    above = {
        name: up if up != name else None for name, up in first.categories.values()
    }  # fmt: skip
    _without_cycles(above, first.path, aside)
    order = dict.fromkeys(
        one for name, up in first.categories.values() for one in (up, name) if one
    )
    place = {name: i for i, name in enumerate(order)}
    parents = [place.get(above.get(name) or "", -1) for name in order]
    return Hierarchy(tuple(order), tuple(order), np.array(parents, np.int32))


def _without_cycles(above: dict[str, str | None], path: Path, aside: SetAside) -> None:
    """Makes one category of every cycle a root."""
    while True:
        try:
            graphlib.TopologicalSorter({name: [up] for name, up in above.items() if up}).prepare()
            return
        except graphlib.CycleError as error:
            cycle = error.args[1]
            way = " -> ".join(cycle)
            message = f"the super-categories form a cycle: {way}; correct one"
            aside.add(BadRow(str(path), "categories", message))
            above[min(cycle)] = None  # by name, so that the order of the file does not matter


def _rows(
    part: Instances,
    hierarchy: Hierarchy,
    name_of: Callable[[CocoImage], str],
    aside: SetAside,
    *,
    closed: bool,
) -> Iterator[LabelRow]:
    """Yields the images in file order; an image that shows nothing has no labels."""
    index = {name: hierarchy.index(name) for name in part.categories}
    for image in part.rows():
        labels = np.array(sorted(index[name] for name in image.shown), np.int32)
        confidences = np.ones(len(labels), np.float32)
        if closed:
            labels, confidences = hierarchy.close(labels, confidences)
        try:
            name = name_of(image)
            check_row(name, [], [], num_classes=len(hierarchy))
        except ValueError as error:
            aside.add(BadRow(str(part.path), f"image {image.id}", f"file_name: {error}"))
            continue
        yield LabelRow(name, labels, confidences)


def _namer(
    found: Callable[[str], str], template: str | None, split: str
) -> Callable[[CocoImage], str]:
    """Returns the function that names an image in the list of a split."""
    if template is None:
        return lambda image: found(image.file)
    return lambda image: template.format(
        split=split, id=image.id, file_name=image.file, stem=PurePosixPath(image.file).stem
    )


def _check_template(template: str) -> None:
    try:
        name = template.format(split="train", id="1", file_name="1.jpg", stem="1")
        if name == template.format(split="train", id="2", file_name="2.jpg", stem="2"):
            raise ValueError("it must contain {file_name} or {id}")
        check_row(name, [], [], num_classes=1)
    except (ValueError, LookupError, AttributeError) as error:
        raise PrepareError(f"--name {template!r} is not a file name: {error}") from error


def _around(path: Path) -> list[Path]:
    folder = path.absolute().parent
    if folder.name.lower().startswith(("annotation", "label", "json")):
        return [folder.parent]
    return [folder]
