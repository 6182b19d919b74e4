# SPDX-License-Identifier: BSD-3-Clause
"""A built set of grey images with given labels, written without a builder."""

import json
from collections.abc import Sequence
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordWriter

from mlimages_jax.data.dataset import DataSet
from tests.support import record_files


def write(
    folder: Path, rows: Sequence[dict[int, float]], classes: str = "abc", *, max_labels: int = 2
) -> DataSet:
    """Writes a split `train` of images with these confidences by class; each letter is a class."""
    record_files.write_set(folder, [len(rows)])
    (path,) = record_files.files_of(folder)
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for number, labels in enumerate(rows):
        writer.write(record_files.record(f"{number}.jpg", record_files.image(9), labels))
    writer.close()
    metadata = {"num_classes": len(classes), "max_labels": max_labels}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    lines = [f"{number}\t{name}\t-1\t{name}" for number, name in enumerate(classes)]
    header = "category_index\tcategory_id\tindex_of_parent_category\tcategory name"
    (folder / "dictionary.txt").write_text("\n".join([header, *lines, ""]))
    return DataSet.open(folder)
