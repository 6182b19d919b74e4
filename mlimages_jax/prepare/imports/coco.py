# SPDX-License-Identifier: BSD-3-Clause
"""COCO instances to the files that our builder takes: which categories a picture shows."""

import graphlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.list_rows import check_row
from mlimages_jax.labels.lists import LabelRow
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.manual_dir import what_came_and_what_is_next, write_manual_dir

_KEPT = {
    "images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name",
    "supercategory",
}  # fmt: skip
_NO_SUPERCATEGORY = (None, "", "none")


class Category(NamedTuple):
    """An entry of "categories"; `above` is its super-category, None if it has none."""

    id: int
    name: str
    above: str | None


class Instances:
    """A file of instances, checked.

    Attributes:
        path: of the file.
        categories: in the order of the file.
        pictures: how many there are.

    Raises:
        PrepareError: with path, list and place, for what is no JSON, a missing or wrong key, an id
            that occurs twice, or one that does not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        content = _read(path)
        self.categories = [
            Category(
                self._value(entry, "id", int, where),
                self._name(self._value(entry, "name", str, where), where),
                self._above(entry, where),
            )
            for where, entry in self._entries(content, "categories")
        ]
        self._place_of_category = self._places("categories", [c.id for c in self.categories])
        images = [
            (self._value(entry, "id", int, where), self._value(entry, "file_name", str, where))
            for where, entry in self._entries(content, "images")
        ]
        self._files = [file for _, file in images]
        self.pictures = len(images)
        self._shown: list[set[int]] = [set() for _ in images]
        place_of_image = self._places("images", [id_ for id_, _ in images])
        for where, entry in self._entries(content, "annotations"):
            image = self._known(entry, "image_id", place_of_image, where)
            self._shown[image].add(
                self._known(entry, "category_id", self._place_of_category, where)
            )

    def rows(self, hierarchy: Hierarchy, *, closed: bool) -> Iterator[LabelRow]:
        """Yields the pictures in the order of the file; those that show nothing have no labels.

        Args:
            hierarchy: made by `make_hierarchy` of the categories.
            closed: with all super-categories.
        """
        classes = np.array([hierarchy.index(c.name) for c in self.categories], np.int32)
        for i, (file, shown) in enumerate(zip(self._files, self._shown, strict=True)):
            labels = np.sort(classes[sorted(shown)])
            confidences = np.ones(len(labels), np.float32)
            if closed:
                labels, confidences = hierarchy.close(labels, confidences)
            try:
                check_row(file, [], [], num_classes=len(hierarchy))
            except ValueError as error:
                raise PrepareError(f"{self.path}: images[{i}]: file_name: {error}") from error
            yield LabelRow(file, labels, confidences)

    def _entries(self, content: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
        """Yields the entries of a list of the file, with what to call them in messages."""
        entries = content.get(key)
        if not isinstance(entries, list):
            raise PrepareError(
                f'{self.path}: no list "{key}"; give a file of instances, such as '
                "instances_train2017.json"
            )
        for i, entry in enumerate(entries):
            where = f"{key}[{i}]"
            if not isinstance(entry, dict):
                raise PrepareError(f"{self.path}: {where} is no object")
            yield where, entry

    def _value(self, entry: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
        value = entry.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            what = f"is {value!r}" if key in entry else "is missing"
            noun = "a whole number" if kind is int else "a text"
            raise PrepareError(f'{self.path}: {where}: "{key}" {what}; it must be {noun}')
        return value

    def _name(self, text: str, where: str) -> str:
        name = " ".join(text.split())
        if not name:
            raise PrepareError(f"{self.path}: {where}: the name is empty; give one")
        return name

    def _above(self, entry: Mapping[str, Any], where: str) -> str | None:
        if entry.get("supercategory") in _NO_SUPERCATEGORY:
            return None
        return self._name(self._value(entry, "supercategory", str, where), where)

    def _places(self, key: str, ids: list[int]) -> dict[int, int]:
        places: dict[int, int] = {}
        for i, id_ in enumerate(ids):
            if places.setdefault(id_, i) != i:
                raise PrepareError(
                    f"{self.path}: {key}[{i}] has the id {id_} of {key}[{places[id_]}]; "
                    "ids must be unique"
                )
        return places

    def _known(
        self, entry: Mapping[str, Any], key: str, places: Mapping[int, int], where: str
    ) -> int:
        id_ = self._value(entry, key, int, where)
        if id_ not in places:
            raise PrepareError(
                f'{self.path}: {where}: "{key}" {id_} does not exist; is the file complete?'
            )
        return places[id_]


def import_coco(
    *,
    output: Path,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
    closed: bool = False,
) -> None:
    """Turns COCO instances into label lists: the categories that each picture shows.

    All splits of a set are imported at once:

        python -m mlimages_jax.prepare import coco --output coco
            --train annotations/instances_train2017.json
            --val annotations/instances_val2017.json

    A category is a label of a picture if at least one annotation, of a crowd too, has it.
    Super-categories become parents; where a category has the name of a super-category, the two are
    one class ("person"). Class ids are the names. COCO looked for every category in every picture,
    so what a picture does not list is absent, and one without annotations has an empty row.

    Args:
        output: the folder to write to: the `--manual_dir` of `python -m tfds_builders.ml_images`.
        train: instances of this split.
        val: likewise.
        test: likewise.
        closed: list super-categories too; the builder's `--labels=closed` does the same later.
    """
    paths = {
        split: path for split, path in (("train", train), ("val", val), ("test", test)) if path
    }
    if not paths:
        raise PrepareError("no instances: give a file with --train, --val or --test")
    instances = {split: Instances(path) for split, path in paths.items()}
    first, *others = instances.values()
    for other in others:
        if sorted(other.categories) != sorted(first.categories):
            raise PrepareError(
                f"{other.path}: the categories are not those of {first.path}; give files of one set"
            )
    hierarchy = make_hierarchy(first.path, first.categories)
    with write_manual_dir(output, hierarchy, unlisted="absent") as writer:
        for split, part in instances.items():
            writer.write(split, part.rows(hierarchy, closed=closed))
    print(what_came_and_what_is_next(output, hierarchy, writer, unlisted="absent"))


def make_hierarchy(path: Path, categories: list[Category]) -> Hierarchy:
    """One class for each name: categories in their order, each after its super-category.

    Raises:
        PrepareError: two categories have one name, or the super-categories form a cycle.
    """
    above: dict[str, str | None] = {}
    for category in categories:
        if category.name in above:
            raise PrepareError(
                f"{path}: two categories have the name {category.name!r}; rename one"
            )
        above[category.name] = category.above if category.above != category.name else None
    if not above:
        raise PrepareError(f"{path}: no categories; is the file complete?")
    try:
        graphlib.TopologicalSorter({name: [up] for name, up in above.items() if up}).prepare()
    except graphlib.CycleError as error:
        way = " -> ".join(error.args[1])
        raise PrepareError(
            f"{path}: the super-categories form a cycle: {way}; correct one"
        ) from error
    order = dict.fromkeys(
        name for category in categories for name in (category.above, category.name) if name
    )
    place = {name: i for i, name in enumerate(order)}
    parents = [place.get(above.get(name) or "", -1) for name in order]
    return Hierarchy(tuple(order), tuple(order), np.array(parents, np.int32))


def _read(path: Path) -> Mapping[str, Any]:
    """Reads the file without outlines and what else is not needed: a third of the memory."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = json.load(file, object_hook=_without_rest)
    except (ValueError, RecursionError) as error:
        raise PrepareError(f"{path}: not JSON ({error}); is the file complete?") from error
    if not isinstance(content, dict):
        raise PrepareError(f"{path}: not an object with images, annotations and categories")
    return content


def _without_rest(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key in _KEPT}
