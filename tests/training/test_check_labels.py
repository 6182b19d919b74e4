# SPDX-License-Identifier: BSD-3-Clause
import functools

import pytest
from absl import logging as absl_logging

from mlimages_jax.data.class_priors import class_counts
from mlimages_jax.training import check_labels as check_labels_module
from mlimages_jax.training.check_labels import UnsuitableSetError, check_labels
from tests.support import labelled_set


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
        check_labels(labelled_set.write(tmp_path, rows, classes), "train")


def test_classes_without_images_are_named(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(absl_logging, "warning", lambda text, *values: lines.append(text % values))
    data = labelled_set.write(tmp_path, [{0: 1.0}, {1: 1.0}, {}, {0: 0.5, 2: 0.0}])
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
    data = labelled_set.write(tmp_path, [{0: 1.0}, {0: 0.0}], "a")
    assert check_labels(data, "train").unlabelled == 1
