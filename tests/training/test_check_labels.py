# SPDX-License-Identifier: BSD-3-Clause
import functools
import json

import pytest
from absl import logging as absl_logging
from array_record.python.array_record_module import ArrayRecordWriter

from mlimages_jax.data.class_priors import class_counts
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.training import check_labels as check_labels_module
from mlimages_jax.training.check_labels import UnsuitableSetError, check_labels
from tests.support import record_files


def _set_of(folder, rows, classes="abc"):
    record_files.write_set(folder, [len(rows)])
    (path,) = record_files.files_of(folder)
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for number, labels in enumerate(rows):
        writer.write(record_files.record(f"{number}.jpg", record_files.image(9), labels))
    writer.close()
    metadata = {"num_classes": len(classes), "max_labels": 2}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    lines = [f"{number}\t{name}\t-1\t{name}" for number, name in enumerate(classes)]
    header = "category_index\tcategory_id\tindex_of_parent_category\tcategory name"
    (folder / "dictionary.txt").write_text("\n".join([header, *lines, ""]))
    return DataSet.open(folder)


@pytest.mark.parametrize(
    ("rows", "classes", "message"),
    [
        ([{0: 1.0}], "abc", "train has 1 image: give at least two"),
        ([{}, {1: 0.0}, {2: -1.0}], "abc", "no image of train has a label"),
        ([{0: 1.0}] * 3, "a", "every image of train has the only class"),
    ],
)
def test_nothing_to_learn_from_is_said(tmp_path, rows, classes, message):
    with pytest.raises(UnsuitableSetError, match=message):
        check_labels(_set_of(tmp_path, rows, classes), "train")


def test_classes_without_images_are_named(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(absl_logging, "warning", lambda text, *values: lines.append(text % values))
    data = _set_of(tmp_path, [{0: 1.0}, {1: 1.0}, {}, {0: 0.5, 2: 0.0}])
    counts = check_labels(data, "train")
    assert (counts.images, counts.unlabelled) == (4, 1)
    few = functools.partial(class_counts, max_images=2)
    monkeypatch.setattr(check_labels_module, "class_counts", few)
    check_labels(data, "train")
    assert lines == [
        "1 of 3 classes have no image in train, and one without any cannot be learned: 'c'",
        "2 of 3 classes have no image in the 2 images of train that were sampled, and one without "
        "any cannot be learned: 'b', 'c'",
    ]


def test_one_class_of_which_some_images_have_none_can_be_learned(tmp_path):
    assert check_labels(_set_of(tmp_path, [{0: 1.0}, {}], "a"), "train").unlabelled == 1
