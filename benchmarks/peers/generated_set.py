# SPDX-License-Identifier: BSD-3-Clause
"""Sets of any size made of a few drawn images: a built set, or an index without files."""

import json
from pathlib import Path

import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

IMAGES = 16  # distinct images
HEIGHT, WIDTH = 320, 427  # a stored image with its short side at 320
LABELS = 9  # per image; ML-Images has 8.7 on average


def draw_jpegs() -> list[bytes]:
    """Draws smooth noise: JPEGs of about 44 kB each."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(IMAGES):
        coarse = rng.integers(0, 256, (HEIGHT // 8 + 1, WIDTH // 8 + 1, 3))
        smooth = coarse.repeat(8, 0).repeat(8, 1)[:HEIGHT, :WIDTH]
        noisy = smooth + rng.integers(-8, 9, smooth.shape)
        pixels = np.ascontiguousarray(noisy.clip(0, 255).astype(np.uint8))
        jpegs.append(simplejpeg.encode_jpeg(pixels, quality=90))
    return jpegs


def record(number: int, jpeg: bytes, *, classes: int) -> bytes:
    """Returns a record like those of the builders, with the fields that training reads."""
    example = tf_example_pb2.Example()
    feature = example.features.feature
    labels = [(number * LABELS + i) % classes for i in range(LABELS)]
    feature["name"].bytes_list.value.append(f"{number}.jpg".encode())
    feature["image"].bytes_list.value.append(jpeg)
    feature["labels"].int64_list.value.extend(labels)
    feature["confidences"].float_list.value.extend([1.0] * LABELS)
    return example.SerializeToString()


class GeneratedRecords:
    """Records that are generated on request; a substitute for `records.Records`.

    Args:
        count: Number of records.
        jpegs: Their images, used in turn.
        classes: Number of classes.
    """

    def __init__(self, count: int, jpegs: list[bytes], *, classes: int):
        self._count = count
        self._jpegs = jpegs
        self._classes = classes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> bytes:
        return record(index, self._jpegs[index % len(self._jpegs)], classes=self._classes)


def write_set(folder: Path, *, classes: int, shards: int, records: int, images: bool) -> Path:
    """Writes a built set with splits `train` and `val`; `val` equals the first file of `train`.

    Args:
        folder: Created here.
        classes: Number of classes, all of them roots.
        shards: Number of files of `train`; `val` has one.
        records: Number of records per file.
        images: False stores no image bytes, for sets that are counted and not decoded.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True)
    jpegs = draw_jpegs() if images else [b""]
    for split, count in (("train", shards), ("val", 1)):
        for shard in range(count):
            path = folder / f"generated-{split}.array_record-{shard:05d}-of-{count:05d}"
            writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
            for number in range(shard * records, (shard + 1) * records):
                writer.write(record(number, jpegs[number % len(jpegs)], classes=classes))
            writer.close()
    splits = [
        {
            "name": split,
            "shardLengths": [str(records)] * count,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
        for split, count in (("train", shards), ("val", 1))
    ]
    info = {"name": "generated", "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    metadata = {"num_classes": classes, "max_labels": LABELS, "unlisted": 0}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    rows = [f"{i}\tn{i:08d}\t-1\tclass {i}" for i in range(classes)]
    header = "category_index\tcategory_id\tindex_of_parent_category\tcategory name"
    (folder / "dictionary.txt").write_text("\n".join([header, *rows]) + "\n")
    return folder
