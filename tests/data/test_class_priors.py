# SPDX-License-Identifier: BSD-3-Clause
import json

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from mlimages_jax.data.class_priors import class_priors
from mlimages_jax.data.dataset import DataSet
from tests.support import record_files

LABELS = [{0: 1.0, 1: 0.8}, {0: 1.0, 1: -1.0}, {1: 0.0}, {}]


@pytest.fixture
def folder(tmp_path):
    """Four images of four classes, with a confidence, an unknown and an absent label."""
    record_files.write_set(tmp_path, [4])
    (path,) = record_files.files_of(tmp_path)
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for number, labels in enumerate(LABELS):
        writer.write(record_files.record(f"{number}.jpg", record_files.image(9), labels))
    writer.close()
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (0, [2.5 / 5, 1.3 / 4, 0.5 / 5, 0.5 / 5]),  # of 4 images; class 1 is known in 3
        (-1, [2.5 / 3, 1.3 / 3, 0.5, 0.5]),  # known where it is listed
    ],
)
def test_priors_by_hand(folder, missing, expected):
    metadata = {"num_classes": 4, "max_labels": 2, "unlisted": missing}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    np.testing.assert_allclose(class_priors(DataSet.open(folder), "train"), expected, rtol=1e-6)


def test_a_large_split_is_sampled_evenly(tmp_path):
    """Record i has the label i: which ones were read can be seen."""
    data = DataSet.open(record_files.write_set(tmp_path, [50, 51]))
    priors = class_priors(data, "train", max_images=11)
    assert np.flatnonzero(priors > 0.1).tolist() == list(range(0, 101, 10))


def test_damaged_records_are_left_out(tmp_path, monkeypatch):
    data = DataSet.open(record_files.write_set(tmp_path, [4]))
    records = data.records("train")
    whole = type(records).__getitem__

    def damaged(self, index):
        if index == 2:
            raise self.damaged(index, "test")
        return whole(self, index)

    monkeypatch.setattr(type(records), "__getitem__", damaged)
    np.testing.assert_allclose(
        class_priors(data, "train"), [1.5 / 4, 1.5 / 4, 0.5 / 4, 1.5 / 4], rtol=1e-6
    )
