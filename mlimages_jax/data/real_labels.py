# SPDX-License-Identifier: BSD-3-Clause
"""Replaces stored labels by those of a separate file, such as ReaL for ImageNet.

ReaL is by Beyer, Hénaff, Kolesnikov, Zhai and van den Oord, "Are we done with ImageNet?" (2020),
who had the validation images labelled again. Their file is `real.json` of
https://github.com/google-research/reassessed-imagenet.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from mlimages_jax.data.records import Record

# Some copies of the set add the class: ILSVRC2012_val_00000293_n01440764.JPEG.
_VALIDATION = re.compile(r"(?:.*/)?ILSVRC2012_val_([0-9]{8})(?:_n[0-9]{8})?\.[A-Za-z]+")
_FORMS = (
    "it must be a list of class indices for each image, [[0, 7], [], ...] in the order of "
    'their numbers or {"a.jpg": [0, 7], ...} by name'
)


@dataclasses.dataclass(frozen=True)
class RealLabels:
    """The valid classes of each image, by its number or by its name.

    Calling it with a record returns the record with these labels, each with confidence 1. An image
    may have no valid class at all; the metrics then ignore it.

    Attributes:
        path: Path of the file, for messages.
        classes: Class indices, in the ascending order of WordNet ids that the imagenet builder
            uses. A list has one entry for each image of ImageNet's validation set, starting with
            ILSVRC2012_val_00000001.JPEG. A mapping has one entry per record name, including
            folders.
    """

    path: epath.Path
    classes: Sequence[Sequence[int]] | Mapping[str, Sequence[int]]

    @classmethod
    def from_file(cls, path: epath.PathLike, *, num_classes: int) -> "RealLabels":
        """Reads a JSON file of either form.

        Raises:
            ValueError: If it is not JSON, has another form, repeats a name, or has a class outside
                0, ..., num_classes - 1.
        """
        path = epath.Path(path)

        # json would silently keep the last of two entries with one name.
        def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            by_name: dict[str, Any] = {}
            for name, classes in pairs:
                if name in by_name:
                    raise ValueError(f"{path} has {name!r} twice: remove one of the entries")
                by_name[name] = classes
            return by_name

        try:
            content = json.loads(path.read_bytes(), object_pairs_hook=without_repeats)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON ({error}): download it again") from error
        if not isinstance(content, list | dict) or not content:
            raise ValueError(f"{path} has no entries: {_FORMS}")
        _check(content, path, num_classes=num_classes)
        return cls(path, content)

    @property
    def max_labels(self) -> int:
        """Maximum number of classes of an image."""
        entries = self.classes.values() if isinstance(self.classes, Mapping) else self.classes
        return max(len(entry) for entry in entries)

    def __len__(self) -> int:
        return len(self.classes)

    def check_length(self, num_records: int) -> None:
        """Checks in advance that there is an entry for every image of a split.

        There may be more: the split may be a part of the set, or lack images that were skipped.

        Raises:
            ValueError: If there are fewer entries than images.
        """
        if len(self) < num_records:
            raise ValueError(
                f"{self.path} has {len(self):,} entries but the split has {num_records:,} images: "
                "it needs one entry per image; use the file that belongs to the set"
            )

    def __call__(self, record: Record) -> Record:
        """Returns the record with the labels of this file.

        Raises:
            ValueError: If the file has no entry for it.
        """
        classes = np.array(self._entry(record.name), np.int32)
        return dataclasses.replace(
            record, labels=classes, confidences=np.ones(len(classes), np.float32)
        )

    def _entry(self, name: str) -> Sequence[int]:
        if isinstance(self.classes, Mapping):
            if name not in self.classes:
                raise ValueError(
                    f"{self.path} has no entry {name!r}: entries must be named like the images of "
                    f"the data set, including folders; the first is {next(iter(self.classes))!r}"
                )
            return self.classes[name]
        match = _VALIDATION.fullmatch(name)
        if match is None:
            raise ValueError(
                f"{name!r} is not named like ILSVRC2012_val_00000001.JPEG, so it has no number in "
                f"the list {self.path}, which is for ImageNet's validation set; for other sets "
                'write the entries by name: {"a.jpg": [0, 7], ...}'
            )
        number = int(match[1])
        if not 1 <= number <= len(self):
            raise ValueError(
                f"{name!r} has number {number} but {self.path} has entries 1 to {len(self)}: the "
                "label file has another length than the set; use the one that belongs to it"
            )
        return self.classes[number - 1]


def _check(content: list[Any] | dict[str, Any], path: epath.Path, *, num_classes: int) -> None:
    """Raises ValueError for entries that are not lists of classes."""
    named = content.items() if isinstance(content, dict) else enumerate(content, start=1)
    for name, entry in named:
        # `type` and not `isinstance`, because True is an instance of int.
        if not isinstance(entry, list) or any(type(index) is not int for index in entry):
            raise ValueError(f"{path}, entry {name!r} is {json.dumps(entry)[:80]}: {_FORMS}")
        beyond = [index for index in entry if not 0 <= index < num_classes]
        if beyond:
            raise ValueError(
                f"{path}, entry {name!r} has class {beyond[0]}, but classes are 0 to "
                f"{num_classes - 1}: is the file for another set of classes?"
            )
