# SPDX-License-Identifier: BSD-3-Clause
"""The features of a record for TFDS, and their serialisation."""

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from mlimages_jax.data.images.decode import StoredImage
from mlimages_jax.labels.lists import LabelRow


def features() -> tfds.features.FeaturesDict:
    """Returns the features of a record, as TFDS describes and reads them."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "name": tfds.features.Text(doc="name of the image in the list"),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "confidences": tfds.features.Tensor(
                shape=(None,), dtype=np.float32, doc="-1 for unknown, else 0 to 1"
            ),
            "height": tfds.features.Scalar(np.int32, doc="height of the stored image"),
            "width": tfds.features.Scalar(np.int32, doc="width of the stored image"),
        }
    )


def serialize(row: LabelRow, image: StoredImage) -> bytes:
    """Serializes a tf.train.Example as TFDS does, but with its features in a fixed order."""
    example = tf_example_pb2.Example()
    feature = example.features.feature  # filled in place, because assigning a message copies it
    feature["image"].bytes_list.value.append(image.jpeg)
    feature["name"].bytes_list.value.append(row.name.encode())
    feature["labels"].int64_list.value.extend(row.classes.tolist())
    # These two must be present even without labels.
    feature["labels"].int64_list.SetInParent()
    feature["confidences"].float_list.value.extend(row.confidences.tolist())
    feature["confidences"].float_list.SetInParent()
    feature["height"].int64_list.value.append(image.height)
    feature["width"].int64_list.value.append(image.width)
    return example.SerializeToString(deterministic=True)
