# SPDX-License-Identifier: BSD-3-Clause
from array_record.python.array_record_module import ArrayRecordWriter

from mlimages_jax.data import class_positives
from mlimages_jax.data.class_positives import positives_per_class
from mlimages_jax.data.dataset import DataSet
from tests.support import record_files


def test_positives_by_hand(tmp_path, monkeypatch):
    """Confidences at 0.7 in float32 count; absent, unknown and weaker labels do not."""
    data = DataSet.open(record_files.write_set(tmp_path, [4]))
    (path,) = record_files.files_of(tmp_path)
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for number, labels in enumerate([{0: 1.0, 1: 0.7}, {0: 0.69, 1: -1.0}, {1: 0.0, 3: 1.0}, {}]):
        writer.write(record_files.record(f"{number}.jpg", record_files.image(9), labels))
    writer.close()
    assert positives_per_class(data, "train", threshold=0.7).tolist() == [1, 1, 0, 1]
    assert positives_per_class(data, "val", threshold=0.7) is None
    monkeypatch.setattr(class_positives, "MAX_IMAGES", 3)
    assert positives_per_class(data, "train", threshold=0.7) is None
