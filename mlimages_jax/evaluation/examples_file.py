# SPDX-License-Identifier: BSD-3-Clause
"""The file examples.json: evaluated images with their true and predicted classes, for reports.

    {"version": 1, "examples": [{"image": "a.jpg", "jpeg": BASE64, "true": [7],
                                 "predicted": [[7, 0.93, true]]}]}

The images are in the file, small, so that it still shows them when the data set is elsewhere.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from mlimages_jax.files.remote import write_text

FILE_NAME = "examples.json"
_VERSION = 1


class ExamplesError(ValueError):
    """The file is malformed, or of a later version."""


class Example(NamedTuple):
    """An image of an evaluation.

    Attributes:
        name: Name of the image in its data set.
        jpeg: The image, small.
        true: Its classes, without ancestors of another one.
        predicted: Class, probability, and whether the class is true; best first. True classes that
            are missing here are misses.
    """

    name: str
    jpeg: bytes
    true: tuple[int, ...]
    predicted: tuple[tuple[int, float, bool], ...]


def write(path: epath.PathLike, examples: Sequence[Example]) -> None:
    """Writes the file atomically."""
    rows = [
        {
            "image": one.name,
            "jpeg": base64.b64encode(one.jpeg).decode(),
            "true": one.true,
            "predicted": [(i, round(score, 4), right) for i, score, right in one.predicted],
        }
        for one in examples
    ]
    write_text(path, json.dumps({"version": _VERSION, "examples": rows}))


def read(path: epath.PathLike, *, num_classes: int) -> list[Example]:
    """Reads the file.

    Raises:
        FileNotFoundError: It does not exist.
        ExamplesError: It is malformed, of a later version, or has other classes.
    """
    try:
        content = json.loads(epath.Path(path).read_text())
        version = content["version"]
        rows = content["examples"] if version == _VERSION else []
        examples = [_example(row, num_classes) for row in rows]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ExamplesError(f"{path} is malformed ({error}): evaluate again") from error
    if version != _VERSION:
        raise ExamplesError(f"{path} has version {version}, this program reads {_VERSION}")
    return examples


def _example(row: dict[str, Any], num_classes: int) -> Example:
    example = Example(
        str(row["image"]),
        base64.b64decode(row["jpeg"], validate=True),
        tuple(map(int, row["true"])),
        tuple((int(i), float(score), bool(right)) for i, score, right in row["predicted"]),
    )
    for i in (*example.true, *(i for i, _, _ in example.predicted)):
        if not 0 <= i < num_classes:
            raise IndexError(f"class {i} is not in 0..{num_classes - 1}")
    return example
