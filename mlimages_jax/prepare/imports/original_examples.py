# SPDX-License-Identifier: BSD-3-Clause
"""Parses one record of the original's .tfrecords: a name, an image file and sparse labels."""

from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.files.safe_paths import check_name
from mlimages_jax.labels.list_rows import LabelRow, check_row

OTHER_CLASSES = "other_classes"  # a dense label whose length differs from the hierarchy
_LONGEST_PART = 200  # bytes of a name between slashes; file systems allow 255, and we append to it


class UnusableRecordError(ValueError):
    """A record is unusable.

    Attributes:
        reason: Machine-readable kind, one word.
        name: Name of its image, if known.
    """

    def __init__(self, reason: str, message: str, name: str = ""):
        super().__init__(message)
        self.reason = reason
        self.name = name


class Example(NamedTuple):
    """A parsed record.

    Attributes:
        row: Name and sparse labels.
        image: The image file.
    """

    row: LabelRow
    image: bytes


def parse_example(data: bytes, *, num_classes: int, threshold_keep: float = 0.0) -> Example:
    """Parses a tf.train.Example of the original: the features `name`, `image` and `label`.

    A dense label, float32 [C] as bytes, gives its non-zero entries; a builder fills in the zeros
    again. An int64 label gives one class with confidence 1.

    Args:
        data: The serialised record.
        num_classes: Number of classes of the hierarchy.
        threshold_keep: Drop smaller positive entries of a dense label; -1 (unknown) is kept.

    Raises:
        UnusableRecordError: not_an_example, features, name, labels or OTHER_CLASSES.
    """
    try:
        features = tf_example_pb2.Example.FromString(data).features.feature
    except DecodeError as error:
        raise UnusableRecordError("not_an_example", f"not a tf.train.Example: {error}") from error
    name = _safe_name(_only_value(features, "name", "bytes_list"))
    image = _only_value(features, "image", "bytes_list")
    if "label" in features and features["label"].WhichOneof("kind") == "int64_list":
        classes, confidences = [_only_value(features, "label", "int64_list")], [1.0]
    else:
        dense = _dense_label(_only_value(features, "label", "bytes_list"), name, num_classes)
        dropped = (dense == 0) | ((dense > 0) & (dense < threshold_keep))
        kept = np.flatnonzero(~dropped)  # keeps nan, which is rejected below
        classes, confidences = kept.tolist(), dense[kept].tolist()
    try:
        row = check_row(name, classes, confidences, num_classes=num_classes)
    except ValueError as error:
        raise UnusableRecordError("labels", str(error), name) from error
    return Example(row, image)


def _only_value(features: Any, key: str, kind: str) -> Any:
    # Looking up a key that is missing in a protobuf map adds it, hence the test.
    values: Any = getattr(features[key], kind).value if key in features else ()
    if len(values) != 1:
        kinds = kind.removesuffix("_list")
        message = f"the feature {key!r} has {len(values)} values of {kinds} instead of one"
        raise UnusableRecordError("features", message)
    return values[0]


def _dense_label(data: bytes, name: str, num_classes: int) -> np.ndarray:
    """Returns float32 [C]."""
    if len(data) != 4 * num_classes:
        message = (
            f"{len(data):,} bytes of label are not a float32 for each of {num_classes:,} classes; "
            "use the dictionary of these files, and import files of other sets separately"
        )
        raise UnusableRecordError(OTHER_CLASSES, message, name)
    return np.frombuffer(data, "<f4")


def _safe_name(encoded: bytes) -> str:
    """Returns the name as a safe relative path; raises UnusableRecordError if it is not one."""
    try:
        text = encoded.decode()
    except UnicodeDecodeError as error:
        raise UnusableRecordError("name", f"{encoded!r} is not UTF-8") from error
    name = str(PurePosixPath(text))  # without "." parts
    if max(map(len, name.encode().split(b"/"))) > _LONGEST_PART:
        raise UnusableRecordError("name", f"{text!r} is too long for a file name")
    try:
        check_name(name)
        check_row(name, [], [], num_classes=1)
    except ValueError as error:
        raise UnusableRecordError("name", str(error), text) from error
    return name
