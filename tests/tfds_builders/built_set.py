# SPDX-License-Identifier: BSD-3-Clause
"""Files to build from, and what was built: records, parsed without TFDS."""

import os
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from tests.support import image_files
from tests.support.five_classes import CLASS_LIST
from tfds_builders import ml_images

TRAIN = [
    "a/red.jpg\t2:0.9\t4:1",
    "grey.jpg\t1:1\t0:0.5",
    "cmyk.jpg\t3:-1",
    "none.jpg",
    "deep.png\t4",
]
VAL = ["b/red.jpg\t0:1"]
REPOSITORY = Path(ml_images.__file__).parents[2]
WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder
class NoTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)
sys.meta_path = [NoTensorFlow if finder is PathFinder else finder for finder in sys.meta_path]
"""


def write_manual_dir(folder: Path) -> Path:
    """Five images to train on, one to validate with; returns `folder`."""
    for name in "ab":
        (folder / "images" / name).mkdir(parents=True)
    (folder / "dictionary.txt").write_text(CLASS_LIST)
    (folder / "train_image_list.txt").write_text("\n".join(TRAIN) + "\n")
    (folder / "val_image_list.txt").write_text("\n".join(VAL) + "\n")
    images = {
        "a/red.jpg": image_files.jpeg(image_files.quadrants()),
        "b/red.jpg": image_files.jpeg(image_files.quadrants()),
        "grey.jpg": image_files.grey_jpeg(),
        "cmyk.jpg": image_files.GOOD["cmyk"](),
        "none.jpg": image_files.jpeg(image_files.noise()),
        "deep.png": image_files.deep_png(),
    }
    for name, data in images.items():
        (folder / "images" / name).write_bytes(data)
    return folder


def records(folder: Path, split: str) -> list[dict]:
    """All examples of a split, shard by shard, parsed without TFDS."""
    paths = sorted(folder.glob(f"*-{split}.array_record-*"))
    examples = []
    for path in paths:
        source = ArrayRecordDataSource(os.fspath(path))
        for record in source.__getitems__(range(len(source))):
            features = tf_example_pb2.Example.FromString(record).features.feature
            examples.append(
                {
                    "name": features["name"].bytes_list.value[0].decode(),
                    "image": features["image"].bytes_list.value[0],
                    "labels": list(features["labels"].int64_list.value),
                    "confidences": list(features["confidences"].float_list.value),
                    "height": features["height"].int64_list.value[0],
                    "width": features["width"].int64_list.value[0],
                }
            )
    return examples
