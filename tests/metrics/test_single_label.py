# SPDX-License-Identifier: BSD-3-Clause
"""Metrics of one class an image: by hand, against loops and scikit-learn, ties, splits, errors."""

import dataclasses

import numpy as np
import pytest
import scipy.special
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from mlimages_jax.metrics import single_label
from mlimages_jax.metrics.single_label import SingleLabelMetrics

CLASSES = 12


def one_hot(labels, classes: int = CLASSES) -> np.ndarray:
    return (np.asarray(labels)[:, None] == np.arange(classes)).astype(np.float32)


def random_batch(seed: int, n: int = 200, levels: int = 6):
    """Scores with ties; targets with none, one or several valid classes, and unknown ones."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n, CLASSES)).astype(np.float32)
    values = np.array([-1, 0, 0.4, 0.5, 1], np.float32)
    targets = rng.choice(values, size=(n, CLASSES), p=[0.1, 0.7, 0.05, 0.05, 0.1])
    targets[0] = np.minimum(targets[0], np.float32(0.4))
    targets[1] = -1
    return scores, targets


def measured(scores, targets, mask=None) -> SingleLabelMetrics:
    metrics = SingleLabelMetrics(np.shape(scores)[1])
    metrics.update(scores, targets, mask)
    return metrics


def assert_same(metrics: SingleLabelMetrics, other: SingleLabelMetrics) -> None:
    np.testing.assert_equal(metrics.sums(), other.sums())
    np.testing.assert_equal(metrics.compute(), other.compute())


def test_by_hand():
    scores = np.log([[8.0, 4, 2, 1, 0.5, 0.25, 0.25], [8, 4, 2, 1, 0.5, 0.25, 0.25]] * 2)
    metrics = measured(scores, one_hot([0, 2, 6, 2], 7))
    # Always predicted: class 0, with probability 1/2; right once in four.
    assert metrics.compute() == {
        "top1": 1 / 4,
        "top5": 3 / 4,
        "examples": 4,
        "calibration_error": pytest.approx(1 / 4, abs=1e-7),
    }
    assert metrics.per_class().tolist() == [
        [1, 1, 1], [0, 0, 0], [2, 0, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0],
    ]  # fmt: skip
    assert metrics.worst_pairs(9) == [(2, 0, 2), (6, 0, 1)]
    assert metrics.confusion.tolist()[0] == [1, 0, 0, 0, 0, 0, 0]
    assert metrics.calibration.table().images.sum() == 4


def test_against_scikit_learn():
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(300, CLASSES)), rng.integers(0, CLASSES, 300)
    scores[np.arange(300), labels] += 1
    metrics = measured(scores, one_hot(labels))
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(CLASSES))
        assert metrics.compute()[f"top{k}"] == pytest.approx(expected)
    expected = confusion_matrix(labels, scores.argmax(axis=1), labels=range(CLASSES))
    np.testing.assert_array_equal(metrics.confusion, expected)


def test_against_a_loop():
    scores, targets = random_batch(2)
    counts, pairs = np.zeros((CLASSES, 3), int), np.zeros((CLASSES, CLASSES), int)
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        ranking = sorted(range(CLASSES), key=lambda c, row=row: (-row[c], c))
        places = [place for place, c in enumerate(ranking) if target[c] >= 0.5]
        if places:
            best = ranking[places[0]]
            counts[best] += [1, places[0] == 0, places[0] < 5]
            pairs[best, ranking[0]] += 1
    metrics = measured(scores, targets)
    np.testing.assert_array_equal(metrics.per_class(), counts)
    np.testing.assert_array_equal(metrics.confusion, pairs)
    examples, top1, top5 = counts.sum(axis=0)
    result = metrics.compute()
    assert (result["top1"], result["top5"]) == (top1 / examples, top5 / examples)
    assert result["examples"] == examples < 199
    listed = metrics.worst_pairs(CLASSES**2)
    wrong = [(i, j, pairs[i, j]) for i, j in np.argwhere(pairs) if i != j]
    assert listed == sorted(wrong, key=lambda pair: (-pair[2], pair[:2]))
    assert len({pair.images for pair in listed}) < len(listed) > 50  # ties among them
    assert metrics.worst_pairs(3) == listed[:3]
    assert metrics.worst_pairs(0) == []


def test_the_calibration_is_that_of_the_softmax_of_the_best_class():
    rng = np.random.default_rng(3)
    scores, labels = 2 * rng.normal(size=(400, CLASSES)), rng.integers(0, CLASSES, 400)
    scores[np.arange(400), labels] += 2
    probabilities = scipy.special.softmax(scores.astype(np.float32), axis=1).max(axis=1)
    right = scores.argmax(axis=1) == labels
    places = np.ceil(probabilities * 15).astype(int) - 1
    gaps = [(right - probabilities)[places == place].sum() for place in range(15)]
    result = measured(scores, one_hot(labels)).compute()
    assert result["calibration_error"] == pytest.approx(np.abs(gaps).sum() / 400, abs=1e-6)


def test_any_valid_class_is_a_right_answer():
    scores = np.arange(CLASSES, dtype=np.float32)[None]
    targets = np.zeros((1, CLASSES), np.float32)
    targets[0, [0, 7, 9]] = 1  # place 12, 5 and 3
    metrics = measured(scores, targets)
    assert metrics.compute()["top1"] == 0
    assert metrics.worst_pairs(1) == [(9, 11, 1)]
    targets[0, [9, 7]] = 0, 1
    assert measured(scores, targets).compute()["top5"] == 1
    targets[0, 7] = 0
    assert measured(scores, targets).compute()["top5"] == 0
    targets[0, 11] = 1
    metrics = measured(scores, targets)
    assert metrics.compute()["top1"] == 1
    assert np.argwhere(metrics.per_class()).tolist() == [[11, 0], [11, 1], [11, 2]]
    assert metrics.worst_pairs(1) == []
    (place,) = np.flatnonzero(metrics.calibration.table().images)
    assert metrics.calibration.table().accuracy[place] == 1


def test_ties_go_to_the_lower_class():
    metrics = measured(np.zeros((3, 8)), one_hot([0, 4, 5], 8))
    result = metrics.compute()
    assert (result["top1"], result["top5"]) == (1 / 3, 2 / 3)
    assert metrics.worst_pairs(9) == [(4, 0, 1), (5, 0, 1)]
    assert measured(np.array([[0.0, -0.0]]), np.ones((1, 2))).per_class()[0].tolist() == [1, 1, 1]


def test_the_threshold_is_an_argument():
    targets = np.array([[0, 0.49, 0], [0.5, 0, 0], [0, 0.7, 0]], np.float32)
    assert measured(np.zeros((3, 3)), targets).per_class()[:, 0].tolist() == [1, 1, 0]
    metrics = SingleLabelMetrics(3, threshold=np.float64(0.7))  # above the float32 0.7 as it is
    metrics.update(np.zeros((3, 3)), targets)
    assert metrics.per_class()[:, 0].tolist() == [0, 1, 0]


def test_padding_rows_do_not_count():
    scores, targets = random_batch(4)
    mask = np.ones(210, bool)
    mask[[0, 205, *range(100, 108)]] = False
    padded = np.full((210, CLASSES), np.nan, np.float32)
    padded[mask] = scores
    padded_targets = np.ones((210, CLASSES), np.float32)
    padded_targets[mask] = targets
    assert_same(measured(padded, padded_targets, mask), measured(scores, targets))


@pytest.mark.parametrize("classes", [CLASSES, 1_001])
def test_batches_and_hosts_give_the_same_bits(classes):
    rng = np.random.default_rng(5)
    scores = (3 * rng.normal(size=(60, classes))).astype(np.float32)
    targets = one_hot(rng.integers(0, classes, 60), classes)
    at_once = measured(scores, targets)
    assert_same(measured(np.asfortranarray(scores), targets), at_once)
    for parts in (2, 7, 60):
        hosts = [SingleLabelMetrics(classes) for _ in range(2)]
        for i, rows in enumerate(np.array_split(rng.permutation(60), parts)):
            hosts[i % 2].update(scores[rows], targets[rows])
        # As a gather between hosts does it: equal shapes, stacked, 32 bits a number.
        gathered = {
            name: np.stack([host.sums()[name] for host in hosts]).astype(np.int32)
            for name in hosts[0].sums()
        }
        total = dataclasses.replace(hosts[0])
        for host in range(2):
            total.add_sums({name: values[host] for name, values in gathered.items()})
        assert_same(total, at_once)
        hosts[0].merge(hosts[1])
        assert_same(hosts[0], at_once)


def test_made_again_it_is_empty_and_has_the_same_arguments():
    scores, targets = random_batch(6)
    metrics = SingleLabelMetrics(CLASSES, threshold=0.3)
    metrics.update(scores, targets)
    again = dataclasses.replace(metrics)
    assert (again.num_classes, again.threshold) == (CLASSES, 0.3)
    assert not any(values.any() for values in again.sums().values())


def test_sums_are_a_snapshot():
    scores, targets = random_batch(7)
    metrics = measured(scores, targets)
    before, per_class = metrics.sums(), metrics.per_class()
    copies = {name: values.copy() for name, values in before.items()}
    assert all(values.dtype == np.int64 for values in before.values())
    metrics.update(scores, targets)
    np.testing.assert_equal(before, copies)
    np.testing.assert_equal(per_class, copies["counts"])


def test_pairs_are_left_out_where_there_are_too_many_classes(monkeypatch):
    scores, targets = random_batch(8)
    expected = measured(scores, targets).compute()
    assert single_label.CONFUSION_CLASSES == 5_000
    monkeypatch.setattr(single_label, "CONFUSION_CLASSES", CLASSES - 1)
    metrics = measured(scores, targets)
    assert metrics.confusion is None
    other = SingleLabelMetrics(CLASSES)
    other.merge(metrics)
    assert other.compute() == expected
    with pytest.raises(ValueError, match="up to 11 classes, but there are 12"):
        metrics.worst_pairs(3)
    monkeypatch.setattr(single_label, "CONFUSION_CLASSES", CLASSES)
    assert measured(scores, targets).confusion is not None


def test_images_without_a_valid_class_are_no_examples():
    targets = np.array([[0, 0, 0], [-1, -1, -1], [0, 0.4, -1]], np.float32)
    metrics = measured(np.zeros((3, 3)), targets)
    metrics.update(np.zeros((0, 3)), np.zeros((0, 3)))
    result = metrics.compute()
    assert list(result) == ["top1", "top5", "examples", "calibration_error"]
    assert result.pop("examples") == 0
    assert all(np.isnan(value) for value in result.values())
    assert metrics.worst_pairs(5) == []


def test_an_unknown_class_that_scores_best_is_a_wrong_answer():
    metrics = measured(np.array([[1.0, 2]]), np.array([[1, -1]]))
    assert metrics.worst_pairs(5) == [(0, 1, 1)]


@pytest.mark.filterwarnings("error")
def test_scores_as_far_apart_as_float32_allows():
    limit = np.finfo(np.float32).max
    metrics = measured(np.array([[limit, -limit, 0, 0], [-limit] * 4]), one_hot([0, 3], 4))
    table = metrics.calibration.table()
    assert np.flatnonzero(table.images).tolist() == [3, 14]
    assert table.probability[[3, 14]].tolist() == [0.25, 1]
    assert table.accuracy[[3, 14]].tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(bad):
    scores, targets = random_batch(9)
    targets[3] = -1  # no example either, but a sign that something is wrong
    scores[3, 7] = bad
    metrics = SingleLabelMetrics(CLASSES)
    with pytest.raises(ValueError, match=f"row 3, class 7 is {bad}: scores must be finite"):
        metrics.update(scores, targets)
    assert not any(values.any() for values in metrics.sums().values())


def test_arguments_that_do_not_fit():
    scores, targets = random_batch(10)
    with pytest.raises(ValueError, match=r"\(200, 12\) and targets \(199, 12\)"):
        measured(scores, targets[1:])
    with pytest.raises(ValueError, match="one entry for each of 200 rows"):
        measured(scores, targets, np.ones(199, bool))
    with pytest.raises(ValueError, match=r"\(200, 12\) must be \[n, 13\]"):
        SingleLabelMetrics(13).update(scores, targets)
    with pytest.raises(ValueError, match=r"threshold=0 must be in \(0, 1\]"):
        SingleLabelMetrics(CLASSES, threshold=0)
