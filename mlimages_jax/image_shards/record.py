# SPDX-License-Identifier: BSD-3-Clause
"""A record of an image shard: a tf.train.Example with the features `name` and `image`."""

from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2


def serialize(name: str, image: bytes) -> bytes:
    """Returns the record of an image: its name in the list, and its bytes as stored."""
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["name"].bytes_list.value.append(name.encode("utf-8", "backslashreplace"))
    return example.SerializeToString(deterministic=True)


def parse(data: bytes) -> tuple[str, bytes]:
    """Returns name and image of a record.

    Raises:
        ValueError: It is no such record.
    """
    try:
        feature = tf_example_pb2.Example.FromString(data).features.feature
        return feature["name"].bytes_list.value[0].decode(), feature["image"].bytes_list.value[0]
    except (DecodeError, LookupError) as error:
        raise ValueError(f"it is not an image with its name: {error}") from error
