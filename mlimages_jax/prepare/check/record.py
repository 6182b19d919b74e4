# SPDX-License-Identifier: BSD-3-Clause
"""Checks one record of a built data set against the metadata of the set."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.data.images.decode import BadImage, verify
from mlimages_jax.data.records import Record, parse_record
from mlimages_jax.labels.hierarchy import Hierarchy

Found = tuple[str, str]  # a machine-readable word, and a message for the user


class CheckedRecord(NamedTuple):
    """A checked record, without its image.

    Attributes:
        name: Name of the image; "" if the record could not be parsed.
        labels: Confidence of each class.
        found: Problems found.
    """

    name: str
    labels: dict[int, float]
    found: list[Found]


@dataclasses.dataclass(frozen=True)
class RecordRules:
    """Rules for all records of a set.

    Attributes:
        num_classes: Number of classes.
        max_labels: Maximum number of labels of one image.
        short_side: Maximum short side of an image in pixels; None: no limit.
        closed_over: Hierarchy over which labels must be closed; None: they need not be.
    """

    num_classes: int
    max_labels: int
    short_side: int | None
    closed_over: Hierarchy | None

    def check(self, data: bytes) -> CheckedRecord:
        """Checks everything in a serialised record, and decodes the image to its end."""
        try:
            record = parse_record(data)
            height, width = _stored_size(data)
        except (DecodeError, LookupError, ValueError, OverflowError) as error:
            return CheckedRecord("", {}, [("record", f"cannot be parsed: {error}")])
        found = [*self._label_problems(record), *self._image_problems(record, height, width)]
        if not record.name:
            found.append(("name", "the name is empty"))
        # Not strict: different lengths are one of the problems found above.
        pairs = zip(record.labels.tolist(), record.confidences.tolist(), strict=False)
        return CheckedRecord(record.name, dict(pairs), found)

    def _label_problems(self, record: Record) -> Iterator[Found]:
        classes, confidences = record.labels, record.confidences
        if len(classes) != len(confidences):
            yield "labels", f"{len(classes)} labels have {len(confidences)} confidences"
            return
        if len(classes) > self.max_labels:
            message = f"{len(classes)} labels, but metadata.json says at most {self.max_labels}"
            yield "labels", message
        outside = classes[(classes < 0) | (classes >= self.num_classes)]
        if outside.size:
            yield "labels", f"class {outside[0]} is not in 0..{self.num_classes - 1}"
        known = (confidences == -1) | ((confidences >= 0) & (confidences <= 1))
        if not known.all():
            yield "labels", f"confidence {confidences[~known][0]} is neither -1 nor in 0..1"
        if len(np.unique(classes)) != len(classes):
            yield "labels", "a class occurs twice"
        elif self.closed_over is None or outside.size or not known.all():
            return
        elif not _is_closed(record, self.closed_over):
            yield "labels", "ancestors are missing, or have a lower confidence than descendants"

    def _image_problems(self, record: Record, height: int, width: int) -> Iterator[Found]:
        try:
            header = verify(record.jpeg)
        except BadImage as bad:
            yield "image", f"{bad.reason}: {bad}"
            return
        if header.format != "jpeg" or header.components not in (1, 3):
            message = f"a {header.format} of {header.components} components, not a JPEG of 1 or 3"
            yield "image", message
        size = f"{header.width} x {header.height} pixels"
        if (header.height, header.width) != (height, width):
            yield "size", f"{size}, but the record says {width} x {height}"
        if self.short_side is not None and min(header.height, header.width) > self.short_side:
            yield "size", f"{size}, but metadata.json limits the short side to {self.short_side}"


def _is_closed(record: Record, hierarchy: Hierarchy) -> bool:
    order = np.argsort(record.labels)
    classes, confidences = hierarchy.close(record.labels, record.confidences)
    return np.array_equal(classes, record.labels[order]) and np.array_equal(
        confidences, record.confidences[order]
    )


def _stored_size(data: bytes) -> tuple[int, int]:
    """Returns height and width of the record; training does not use them, so `Record` has none."""
    feature = tf_example_pb2.Example.FromString(data).features.feature
    return feature["height"].int64_list.value[0], feature["width"].int64_list.value[0]
