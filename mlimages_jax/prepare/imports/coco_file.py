# SPDX-License-Identifier: BSD-3-Clause
"""Reads a COCO file of instances: the categories that each of its images shows.

Dozens of programs write this format: ids are numbers or texts, a category or an image may repeat,
LVIS has URLs instead of file names, panoptic files have segments instead of a category. Unusable
entries are set aside; only a file of another kind stops the import.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from mlimages_jax.labels.same_names import normal
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.json_records import load_json
from mlimages_jax.prepare.imports.set_aside import BadRow, SetAside

_KEPT = {
    "images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name",
    "supercategory", "coco_url", "flickr_url", "url", "segments_info",
}  # fmt: skip
_URLS = ("coco_url", "flickr_url", "url")
_NO_SUPERCATEGORY = (None, "", "none")


class Category(NamedTuple):
    """A class; `above` is its super-category, or None."""

    name: str
    above: str | None


class CocoImage(NamedTuple):
    """An image: its id as text, its file, and the names of the categories that it shows."""

    id: str
    file: str
    shown: set[str]


class Instances:
    """A file of instances.

    Args:
        path: Path of the file.
        aside: Receives unusable entries.

    Attributes:
        path: Path of the file.
        categories: Categories by name, in file order.
        images: Images by file, in file order; images of the same file are merged.
        merged: Number of categories with the name of an earlier one.

    Raises:
        PrepareError: The file is not JSON, or lacks one of the three lists.
    """

    def __init__(self, path: Path, aside: SetAside):
        self.path = path
        self._aside = aside
        # Dropping outlines and other unneeded values saves two thirds of the memory.
        content = load_json(path, object_hook=_without_rest)
        if not isinstance(content, dict):
            raise PrepareError(f"{path}: not an object with images, annotations and categories")
        lists = {key: self._list(content, key) for key in ("categories", "images", "annotations")}
        self.categories: dict[str, Category] = {}
        self.images: dict[str, CocoImage] = {}
        self.merged = 0
        self._name_of_id: dict[str, str | None] = {}  # None: two categories share the id
        self._image_of_id: dict[str, CocoImage] = {}
        for key, take in (
            ("categories", self._take_category),
            ("images", self._take_image),
            ("annotations", self._take_annotation),
        ):
            for i, entry in enumerate(lists[key]):
                try:
                    if not isinstance(entry, dict):
                        raise ValueError("is not an object")
                    take(entry)
                    aside.total += 1
                except ValueError as error:
                    aside.add(BadRow(str(path), f"{key}[{i}]", str(error)))
        for what, found in (("categories", self.categories), ("images", self.images)):
            if not found:
                aside.check()
                why = f" ({aside.first})" if aside.count else ""
                raise PrepareError(f"{path}: no {what}{why}; is the file complete?")

    def _list(self, content: Mapping[str, Any], key: str) -> list[Any]:
        entries = content.get(key)
        if not isinstance(entries, list):
            raise PrepareError(
                f'{self.path}: no list "{key}"; use a file of instances, such as '
                "instances_train2017.json"
            )
        return entries

    def _take_category(self, entry: Mapping[str, Any]) -> None:
        id_ = _id(entry, "id")
        is_number = type(entry.get("name")) is int  # e.g. classes of digits
        name = _id(entry, "name") if is_number else _name(_text(entry, "name"))
        category = Category(name, _above(entry))
        known = self._name_of_id.get(id_, category.name)
        if known != category.name:
            self._name_of_id[id_] = None
            raise ValueError(f"has the id {id_} of another category, {known!r}; ids must be unique")
        self._name_of_id[id_] = category.name
        before = self.categories.get(category.name)
        self.merged += before is not None
        if before is None or before.above is None:
            self.categories[category.name] = category

    def _take_image(self, entry: Mapping[str, Any]) -> None:
        id_, file = _id(entry, "id"), _file(entry)
        known = self._image_of_id.get(id_)
        if known is not None and known.file != file:
            raise ValueError(f"has the id {id_} of another image, {known.file}; ids must be unique")
        image = self.images.setdefault(file, CocoImage(id_, file, set()))
        self._image_of_id[id_] = image

    def _take_annotation(self, entry: Mapping[str, Any]) -> None:
        id_ = _id(entry, "image_id")
        if id_ not in self._image_of_id:
            raise ValueError(f'"image_id" {id_} does not exist; is the file complete?')
        segments = entry.get("segments_info")
        shown = segments if isinstance(segments, list) else [entry]
        names = {self._category(one) for one in shown if isinstance(one, dict)}
        self._image_of_id[id_].shown.update(names)

    def _category(self, entry: Mapping[str, Any]) -> str:
        id_ = _id(entry, "category_id")
        if id_ not in self._name_of_id:
            raise ValueError(f'"category_id" {id_} does not exist; is the file complete?')
        name = self._name_of_id[id_]
        if name is None:
            raise ValueError(f'"category_id" {id_} belongs to two categories')
        return name

    def rows(self) -> Iterator[CocoImage]:
        """Yields the images in file order."""
        yield from self.images.values()


def _id(entry: Mapping[str, Any], key: str) -> str:
    """Returns an id as text: 7, 7.0 and "7" are the same."""
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    what = f"is {value!r}" if key in entry else "is missing"
    raise ValueError(f'"{key}" {what}; it must be a number or text')


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        what = f"is {value!r}" if key in entry else "is missing"
        raise ValueError(f'"{key}" {what}; it must be text')
    value.encode()  # raises ValueError for lone surrogates, which JSON escapes can produce
    return value


def _name(text: str) -> str:
    name = normal(" ".join(text.split()))
    if not name:
        raise ValueError("the name is empty; give one")
    return name


def _above(entry: Mapping[str, Any]) -> str | None:
    above = entry.get("supercategory")
    if isinstance(above, str):
        above = " ".join(above.split())
    if above in _NO_SUPERCATEGORY:
        return None
    return _name(_text(entry, "supercategory"))


def _file(entry: Mapping[str, Any]) -> str:
    """Returns the file name, or the path of a URL: train2017/000000000009.jpg in LVIS."""
    if "file_name" in entry:
        return _text(entry, "file_name")
    for key in _URLS:
        parts = _parts_of_url(entry.get(key))
        if parts:
            # Other folders of a URL are the host's own and do not exist on disk.
            folders = [part for part in parts[-2:-1] if part.startswith(("train", "val", "test"))]
            return "/".join([*folders, parts[-1]])
    raise ValueError('"file_name" is missing, and so is "coco_url"')


def _parts_of_url(url: Any) -> tuple[str, ...]:
    try:
        return PurePosixPath(unquote(urlsplit(url).path)).parts if isinstance(url, str) else ()
    except ValueError:  # not a URL
        return ()


def _without_rest(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key in _KEPT}
