# SPDX-License-Identifier: BSD-3-Clause
"""tf.data as used by big_vision and Flax's ImageNet example: TFRecord, fused decode and crop.

Needs only TensorFlow and NumPy, so that it can run in another interpreter.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from peers.serve import Values, arguments, serve_batches

ASPECT = (0.75, 1.33)  # as ours
SHUFFLED = 16  # batches in the shuffle buffer, as in Flax's example
NUM_LABELS = 9  # per image, as in input_pipeline.py


def write_records(images: Path, path: Path) -> None:
    """Writes every image with the same number of labels as `input_pipeline.py`."""
    labels = tf.train.Feature(int64_list=tf.train.Int64List(value=range(NUM_LABELS)))
    confidences = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0] * NUM_LABELS))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for file in sorted(images.iterdir()):
            jpeg = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.read_bytes()]))
            feature = {"image": jpeg, "labels": labels, "confidences": confidences}
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def crop(jpeg: Any, box: Any, *, size: int, antialias: bool) -> Any:
    """Decodes only the box (top, left, height, width) and resizes it to uint8 [size, size, 3]."""
    image = tf.io.decode_and_crop_jpeg(jpeg, box, channels=3)
    image = tf.image.resize(image, (size, size), method="bilinear", antialias=antialias)
    return tf.cast(image + 0.5, tf.uint8)


def random_box(jpeg: Any, area: list[float]) -> Any:
    """Returns top, left, height and width of a random crop."""
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(jpeg),
        tf.zeros([0, 0, 4], tf.float32),
        min_object_covered=0.0,
        area_range=area,
        aspect_ratio_range=ASPECT,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)


def dataset(options: Values, path: Path) -> tf.data.Dataset:
    """Returns endless batches."""
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "labels": tf.io.FixedLenFeature([NUM_LABELS], tf.int64),
        "confidences": tf.io.FixedLenFeature([NUM_LABELS], tf.float32),
    }

    def load(record: Any) -> Any:
        row = tf.io.parse_single_example(record, features)
        box = random_box(row["image"], options["area"])
        image = crop(row["image"], box, size=options["size"], antialias=options["antialias"])
        return row | {"image": tf.image.random_flip_left_right(image)}

    records = tf.data.TFRecordDataset(str(path)).repeat().shuffle(SHUFFLED * options["batch"])
    rows = records.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return rows.batch(options["batch"], drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Serves batches of the images in `images`."""
    options = arguments()
    images, path = Path(options["images"]), Path(options["tfrecord"])
    if not path.exists():
        write_records(images, path)

    def save_crops() -> None:
        crops = [
            crop(
                (images / name).read_bytes(),
                box,
                size=options["size"],
                antialias=options["antialias"],
            )
            for name, box in options["boxes"]
        ]
        np.save(options["crops"], np.stack(crops))

    serve_batches(
        dataset(options, path).as_numpy_iterator(),
        batch_size=options["batch"],
        warm_up=options["warm_up"],
        seconds=options["seconds"],
        version=f"tensorflow {tf.__version__}",
        save_crops=save_crops,
    )


if __name__ == "__main__":
    main()
