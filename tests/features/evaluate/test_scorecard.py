# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.features.evaluate.labelled import read_labels
from mlimages_jax.features.evaluate.scorecard import LabelRules, Scorecard
from tests.features.feature_sets import in_memory

NO = -np.inf


def labels_of(*texts):
    return read_labels([in_memory(np.ones((len(texts), 1)), labels=list(texts))])[0]


def numbers(labels, rules, scores):
    card = Scorecard(labels, rules)
    rows = np.arange(len(labels))
    for part in np.array_split(rows, 2):
        card.update(part, np.array(scores)[part])
    return card.compute()


def test_a_class_without_a_score_is_never_among_the_five_best():
    labels = labels_of("0", "1", "6", "6")
    scores = [
        [NO, NO, NO, 1.0, 2.0, NO, NO],  # class 0 would be the third best by its number
        [NO, -9.0, NO, 1.0, 2.0, NO, NO],
        [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0],  # the seventh
        [0.0, 5.0, 4.0, 3.0, NO, NO, 9.0],
    ]
    found = numbers(labels, LabelRules(single=True, threshold=0.7, missing_labels=0), scores)
    assert (found["top1"], found["top5"], found["examples"]) == (0.25, 0.5, 4)


def test_shares_of_votes_are_their_own_probabilities():
    labels = labels_of("0", "1")
    scores = np.log([[0.75, 0.25], [0.75, 0.25]])
    found = numbers(labels, LabelRules(single=True, threshold=0.7, missing_labels=0), scores)
    assert found["top1"] == 0.5
    assert found["calibration_error"] == pytest.approx(0.25)


def test_many_labels_worked_by_hand():
    """Average precision 1 for class 0, (1 + 2/3) / 2 for class 1; class 2 has no positive."""
    labels = labels_of("0:1 1:1", "1:0 2:-1", "1:0.7 0:0.5")
    scores = [[3.0, 2.0, NO], [1.0, 1.0, NO], [9.0, 0.0, NO]]
    found = numbers(labels, LabelRules(single=False, threshold=0.7, missing_labels=0), scores)
    assert found["mAP"] == pytest.approx((1 + 5 / 6) / 2)
    assert found["mAP_classes"] == 2
    assert found["precision@5"] == pytest.approx((2 / 5 + 1 / 5) / 2)
    assert found["recall@5"] == 1


def test_a_label_without_a_score_is_not_found():
    labels = labels_of("0:1", "1:1")
    scores = [[NO, 1.0], [NO, 1.0]]
    found = numbers(labels, LabelRules(single=False, threshold=0.7, missing_labels=0), scores)
    assert found["recall@5"] == 0.5
    assert found["mAP"] == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_what_is_unknown_does_not_count():
    labels = labels_of("0:1", "1:1", "0:0 1:0")
    scores = [[1.0, 9.0], [9.0, 1.0], [0.0, 0.0]]
    rules = LabelRules(single=False, threshold=0.7, missing_labels=0)
    assert numbers(labels, rules, scores)["mAP"] == 0.5
    assert numbers(labels, rules._replace(missing_labels=-1), scores)["mAP"] == 1


def test_states_of_labels():
    labels = labels_of("0:1 1:0.7 2:0.69", "3:-1 0:0")
    rules = LabelRules(single=False, threshold=0.7, missing_labels=0)
    np.testing.assert_array_equal(
        rules.states(labels, np.array([1, 0])), [[0, 0, 0, -1], [1, 1, -1, 0]]
    )
    np.testing.assert_array_equal(
        rules._replace(missing_labels=-1.0).states(labels, np.array([0])), [[1, 1, -1, -1]]
    )
