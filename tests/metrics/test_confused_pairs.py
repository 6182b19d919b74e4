# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.metrics.confused_pairs import confused_pairs
from mlimages_jax.metrics.multi_label import MultiLabelMetrics

# animal > dog > poodle, vehicle > car
PATHS = np.array([[0, -1, -1], [1, 0, -1], [2, 1, 0], [3, -1, -1], [4, 3, -1]])


def pairs(*images, paths=PATHS, count=10):
    """Pairs of images (classes in the order of their scores, states)."""
    scores = np.array([-np.argsort(order) for order, _ in images], np.float32)
    states = np.array([states for _, states in images], np.int8)
    found = confused_pairs([(scores[:1], states[:1]), (scores[1:], states[1:])], paths, count=count)
    return [tuple(pair) for pair in found]


def test_a_miss_is_paired_with_a_false_alarm_of_its_place():
    poodle = [1, 1, 1, 0, 0]
    assert pairs(([0, 1, 2, 3, 4], poodle)) == []
    assert pairs(([0, 1, 4, 2, 3], poodle)) == [(2, 4, 1)]  # the third place should be a poodle's
    assert pairs(([0, 1, 3, 2, 4], poodle), ([0, 1, 4, 2, 3], poodle)) == [(2, 3, 1), (2, 4, 1)]


def test_what_is_implied_is_no_confusion_of_its_own():
    image = ([4, 3, 0, 1, 2], [1, 1, 1, 0, 0])
    assert pairs(image) == [(2, 4, 1)]
    assert pairs(image, paths=None) == [(1, 3, 1), (1, 4, 1), (2, 3, 1), (2, 4, 1)]


def test_the_most_frequent_come_first_and_unknown_classes_are_no_false_alarms():
    car, dog = [0, 0, 0, 1, 1], [1, 1, 0, 0, 0]
    images = [([3, 0, 4, 1, 2], car), ([0, 4, 1, 2, 3], dog), ([0, 4, 1, 2, 3], dog)]
    assert pairs(*images) == [(1, 4, 2), (4, 0, 1)]
    assert pairs(*images, count=1) == [(1, 4, 2)]
    assert pairs(([0, 4, 1, 2, 3], [1, 1, 0, 0, -1])) == []


def test_pairs_need_the_scores_of_every_image():
    metrics = MultiLabelMetrics(5, PATHS)
    metrics.update(np.array([[5.0, 4, 1, 2, 3]]), np.array([[1.0, 1, 1, 0, 0]]))
    assert [tuple(pair) for pair in metrics.worst_pairs(9)] == [(2, 4, 1)]
    assert metrics.images_of_classes().tolist() == [1, 1, 1, 0, 0]
    binned = MultiLabelMetrics(5, PATHS, exact=False)
    assert metrics.has_pairs and not binned.has_pairs
    with pytest.raises(ValueError, match="exact=True"):
        binned.worst_pairs(9)


def test_no_images_have_no_pairs():
    assert confused_pairs([], PATHS, count=5) == []
