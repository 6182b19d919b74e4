# SPDX-License-Identifier: BSD-3-Clause
"""Finds the names of integer labels in the metadata of Hugging Face's `datasets`.

Its files have them in the schema, under the key `huggingface`; a set on disk also has them in
dataset_info.json. A feature is described by its type:

    {"info": {"features": {
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"}}}}
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlimages_jax.prepare import PrepareError

INFO = "dataset_info.json"
_KEY = b"huggingface"
_NO_CLASS = -1  # how `datasets` writes that an image has no label
_INNER = ("categories", "category", "labels", "label")  # of boxes: {"bbox": ..., "category": ...}
_MAX_DEPTH = 4
_MAX_BYTES = 1 << 24

Features = Mapping[str, Any]


class ClassNames(NamedTuple):
    """The names of the classes of a column.

    Attributes:
        names: The names, by number.
        key: The key of the numbers in a cell that is an object or a list of objects; None: a cell
            is a number or a list of numbers.
    """

    names: tuple[str, ...]
    key: str | None = None

    def labels_of(self, cell: Any) -> list[str] | None:
        """Returns the names of a cell's classes; None if it says that there is no label.

        Raises:
            ValueError: A number has no name.
        """
        if self.key is not None and isinstance(cell, dict):
            cell = cell.get(self.key)
        elif self.key is not None and isinstance(cell, list):
            cell = [one.get(self.key) for one in cell if isinstance(one, dict)]
        is_list = isinstance(cell, list)
        numbers = cell if is_list else [cell]
        names = [self._name(one) for one in numbers if one is not None and one != _NO_CLASS]
        return names if is_list or names else None

    def _name(self, number: Any) -> str:
        is_class = isinstance(number, int) and 0 <= number < len(self.names)
        if not is_class:
            raise ValueError(
                f"the class {number!r} has no name: the metadata has {len(self.names):,}, counted "
                "from 0; is the file from another set?"
            )
        return self.names[number]


def features_of(path: Path, metadata: Mapping[bytes, bytes] | None) -> Features:
    """Returns the features of a file's columns, also from a dataset_info.json beside it.

    Args:
        path: The file.
        metadata: That of its schema.

    Returns:
        The features by column; empty if `datasets` did not write the file.

    Raises:
        PrepareError: The metadata is not what `datasets` writes.
    """
    text = (metadata or {}).get(_KEY)
    if text is not None:
        return _features(f"{path}: its metadata `huggingface`", text)
    info = path.with_name(INFO)
    try:
        with info.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    return _features(str(info), text)


def classes_in(features: Features, columns: Iterable[str]) -> dict[str, ClassNames]:
    """Returns the names of classes of those columns that have some."""
    found = {name: class_names(features.get(name)) for name in columns}
    return {name: one for name, one in found.items() if one is not None}


def class_names(feature: Any, *, depth: int = 0) -> ClassNames | None:
    """Returns the names in a feature: of a number, a list of them, or boxes; None: it has none."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(feature, list) and len(feature) == 1:  # how versions before 4 write a list
        return class_names(feature[0], depth=depth + 1)
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        is_named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return ClassNames(tuple(names)) if names and is_named else None
    if "_type" in feature:
        return class_names(feature.get("feature"), depth=depth + 1)
    for key in _INNER:
        if found := class_names(feature.get(key), depth=depth + 1):
            return found._replace(key=key)
    return None


def _features(where: str, text: bytes) -> Features:
    try:
        if len(text) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        content = json.loads(text)
        features = content.get("info", content).get("features") or {}
        if not isinstance(features, dict):
            raise ValueError("`features` is not an object")
    except (ValueError, AttributeError, RecursionError) as error:
        raise PrepareError(
            f"{where}: not as `datasets` writes it ({error}); copy or download it again"
        ) from error
    return features
