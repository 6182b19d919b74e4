# SPDX-License-Identifier: BSD-3-Clause
"""The k best classes and what is measured on them, against hand-worked numbers and plain loops."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from mlimages_jax.metrics.average_precision import IGNORED, POSITIVE
from mlimages_jax.metrics.top_k import HierarchicalMetrics, InstanceMetrics, top_classes

# 0 animal > 1 dog > 2 poodle, 1 > 3 pug; 4 plant > 5 rose
PATHS = np.array([[0, -1, -1], [1, 0, -1], [2, 1, 0], [3, 1, 0], [4, -1, -1], [5, 4, -1]], np.int32)


def random_batch(seed: int, n: int = 80, classes: int = 30, levels: int = 1_000):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n, classes)).astype(np.float32)
    states = rng.choice([1, 0, -1], size=(n, classes), p=[0.1, 0.7, 0.2]).astype(np.int8)
    states[0] = np.minimum(states[0], 0)  # an image without positives
    states[1] = IGNORED  # one without judged classes
    states[2, 3:] = IGNORED  # one with fewer judged classes than places
    return scores, states


def top_by_sorting(scores: np.ndarray, states: np.ndarray, k: int) -> list[list[int]]:
    return [
        sorted((c for c in range(len(row)) if state[c] != IGNORED), key=lambda c: (-row[c], c))[:k]
        for row, state in zip(scores.tolist(), states, strict=True)
    ]


@pytest.mark.parametrize("levels", [1, 3, 1_000])
def test_top_classes_against_sorting(levels):
    scores, states = random_batch(seed=levels, levels=levels)
    top = top_classes(scores, states, 5)
    assert top.shape == (80, 5)
    for row, expected in zip(top, top_by_sorting(scores, states, 5), strict=True):
        assert row.tolist() == expected + [-1] * (5 - len(expected))


def test_ties_go_to_the_lower_class_and_ignored_ones_take_no_place():
    scores = np.array([[1, 7, 9, 7, 7]], np.float32)
    states = np.array([[0, 0, IGNORED, 1, 0]], np.int8)
    assert top_classes(scores, states, 2).tolist() == [[1, 3]]
    assert top_classes(scores, states, 7).tolist() == [[1, 3, 4, 0, -1, -1, -1]]


def test_instance_metrics_by_hand():
    scores = np.array([[4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]], np.float32)
    states = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], np.int8)
    metrics = InstanceMetrics(2, 4)
    metrics.update(top_classes(scores, states, 2), states)
    assert metrics.compute() == {  # 1 of 2 places and 1 of 3 positives; 1 of 2 and 1 of 1
        "precision@2": pytest.approx(1 / 2),
        "recall@2": pytest.approx((1 / 3 + 1) / 2),
        "f1@2": pytest.approx((2 / 5 + 2 / 3) / 2),
    }
    assert metrics.examples() == 3  # the third has no positive, but it was judged


@pytest.mark.parametrize("k", [1, 5, 10])
def test_instance_metrics_against_loops(k):
    scores, states = random_batch(seed=k)
    metrics = InstanceMetrics(k, 30)
    metrics.update(top_classes(scores, states, 10), states)
    rows = []
    for chosen, state in zip(top_by_sorting(scores, states, k), states, strict=True):
        true = set(np.flatnonzero(state == POSITIVE).tolist())
        if true:
            precision, recall = len(true & set(chosen)) / k, len(true & set(chosen)) / len(true)
            f1 = 2 * precision * recall / (precision + recall) if precision else 0.0
            rows.append((precision, recall, f1))
    assert list(metrics.compute().values()) == pytest.approx(np.mean(rows, axis=0).tolist())
    assert metrics.examples() == 79


def test_instance_metrics_against_scikit_learn():
    scores, states = random_batch(seed=3)
    kept = (states != IGNORED).sum(axis=1) >= 5
    scores, states = scores[kept], states[kept]
    states = states[(states == POSITIVE).any(axis=1)]
    scores = scores[: len(states)]
    metrics = InstanceMetrics(5, 30)
    top = top_classes(scores, states, 5)
    metrics.update(top, states)
    predicted = np.zeros(states.shape, int)
    np.put_along_axis(predicted, top, 1, axis=1)
    expected = precision_recall_fscore_support(
        states == POSITIVE, predicted, average="samples", zero_division=0
    )
    assert list(metrics.compute().values()) == pytest.approx(expected[:3])


def hierarchical(chosen: list[int], positives: list[int], ignored: tuple[int, ...] = ()):
    states = np.zeros((1, 6), np.int8)
    states[0, positives] = POSITIVE
    states[0, list(ignored)] = IGNORED
    metrics = HierarchicalMetrics(PATHS, k=2)
    metrics.update(np.array([chosen], np.int32), states)
    return metrics


def test_hierarchical_by_hand():
    # pug and rose for a poodle: {3, 1, 0, 5, 4} against {2, 1, 0}
    assert hierarchical([3, 5], [2]).compute() == {
        "hierarchical_precision": 2 / 5,
        "hierarchical_recall": 2 / 3,
        "hierarchical_f1": 4 / 8,
    }


def test_ignored_classes_are_in_neither_set():
    # Dog is unknown: {3, 0, 5, 4} against {2, 0}.
    assert hierarchical([3, 5], [2], ignored=(1,)).counts.tolist() == [1, 4, 2]


def test_places_left_empty_predict_nothing():
    assert hierarchical([4, -1], [5]).counts.tolist() == [1, 1, 2]


def test_images_without_positives_do_not_count():
    assert hierarchical([3, 5], []).counts.tolist() == [0, 0, 0]
    assert np.isnan(hierarchical([3, 5], []).compute()["hierarchical_f1"])


def test_hierarchical_against_sets():
    scores, states = random_batch(seed=7, classes=6)
    metrics = HierarchicalMetrics(PATHS, k=2)
    metrics.update(top_classes(scores, states, 10), states)
    counts = np.zeros(3, int)
    for chosen, state in zip(top_by_sorting(scores, states, 2), states, strict=True):
        ignored = set(np.flatnonzero(state == IGNORED))
        positives = np.flatnonzero(state == POSITIVE)
        sets = [
            {a for c in classes for a in PATHS[c].tolist() if a >= 0} - ignored
            for classes in (chosen, positives)
        ]
        if len(positives):
            counts += [len(sets[0] & sets[1]), len(sets[0]), len(sets[1])]
    assert metrics.counts.tolist() == counts.tolist()


def test_paths_must_start_with_the_class_itself():
    with pytest.raises(ValueError, match=r"paths\[1\] starts with 0"):
        HierarchicalMetrics(np.array([[0, -1], [0, 1]], np.int32))
