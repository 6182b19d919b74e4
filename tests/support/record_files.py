# SPDX-License-Identifier: BSD-3-Clause
"""A built set of small grey images, written without a builder: record i has the label i."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2


def record(name: str, jpeg: bytes, labels: dict[int, float]) -> bytes:
    """As the builders store it, as far as training reads it."""
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["name"].bytes_list.value.append(name.encode())
    feature["image"].bytes_list.value.append(jpeg)
    feature["labels"].int64_list.value.extend(labels)
    feature["confidences"].float_list.value.extend(labels.values())
    return example.SerializeToString()


def image(value: int, height: int = 40, width: int = 60) -> bytes:
    """A JPEG of one grey."""
    return simplejpeg.encode_jpeg(np.full((height, width, 3), value, np.uint8), quality=95)


def ramp(value: int) -> bytes:
    """A JPEG in which every crop is another image."""
    rows = np.linspace(value, 255, 40, dtype=np.uint8)
    image = np.broadcast_to(rows[:, None, None], (40, 60, 3))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)


def write_set(folder: Path, lengths: Sequence[int]) -> Path:
    """Writes a split `train` with files of these numbers of records; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard, length in enumerate(lengths):
        name = f"grey-train.array_record-{shard:05d}-of-{len(lengths):05d}"
        writer = ArrayRecordWriter(str(folder / name), "group_size:1,uncompressed")
        for _ in range(length):
            writer.write(record(f"{number}.jpg", ramp(number % 200), {number: 1.0}))
            number += 1
        writer.close()
    split = {
        "name": "train",
        "shardLengths": [str(length) for length in lengths],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": "grey", "fileFormat": "array_record", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    metadata = {"num_classes": number, "max_labels": 1, "unlisted": 0}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    rows = [f"{i}\tn{i:08d}\t-1\tclass {i}" for i in range(number)]
    header = "category_index\tcategory_id\tindex_of_parent_category\tcategory name"
    (folder / "dictionary.txt").write_text("\n".join([header, *rows]) + "\n")
    return folder


def files_of(folder: Path) -> list[Path]:
    """The files of records, in order."""
    return sorted(folder.glob("*.array_record-*"))
