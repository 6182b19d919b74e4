# SPDX-License-Identifier: BSD-3-Clause
"""One record of a data set: its features for TFDS, and their bytes."""

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.data.images.decode import StoredImage
from mlimages_jax.labels.lists import LabelRow


def features() -> tfds.features.FeaturesDict:
    """What TFDS says, and reads, of a record."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "name": tfds.features.Text(doc="the image's name in the list"),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "confidences": tfds.features.Tensor(
                shape=(None,), dtype=np.float32, doc="-1 unknown, else 0 to 1"
            ),
            "height": tfds.features.Scalar(np.int32, doc="of the stored image"),
            "width": tfds.features.Scalar(np.int32, doc="of the stored image"),
        }
    )


def serialize(row: LabelRow, image: StoredImage) -> bytes:
    """A tf.train.Example as TFDS writes it, but with its features in a fixed order."""
    example = tf_example_pb2.Example()
    feature = example.features.feature  # filled in its place: a message put into another is copied
    feature["image"].bytes_list.value.append(image.jpeg)
    feature["name"].bytes_list.value.append(row.name.encode())
    feature["labels"].int64_list.value.extend(row.classes.tolist())
    # These two stand there without labels too.
    feature["labels"].int64_list.SetInParent()
    feature["confidences"].float_list.value.extend(row.confidences.tolist())
    feature["confidences"].float_list.SetInParent()
    feature["height"].int64_list.value.append(image.height)
    feature["width"].int64_list.value.append(image.width)
    return example.SerializeToString(deterministic=True)
