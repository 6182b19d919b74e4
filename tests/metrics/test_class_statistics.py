# SPDX-License-Identifier: BSD-3-Clause
"""Statistics of classes against their definitions, and intervals on drawn scores."""

import numpy as np
import pytest

from mlimages_jax.metrics import class_statistics as module
from mlimages_jax.metrics.calibration import calibrated_probability
from mlimages_jax.metrics.class_statistics import class_statistics
from mlimages_jax.metrics.multi_label import MultiLabelMetrics


def _seen(scores, targets, **arguments):
    metrics = MultiLabelMetrics(scores.shape[1], positive_weight=12.0, **arguments)
    metrics.update(scores, targets)
    return metrics


def _drawn(rng, images, prevalence, *, classes=1, distance=2.0):
    targets = (rng.random((images, classes)) < prevalence).astype(np.float32)
    return (rng.normal(size=targets.shape) + distance * targets).astype(np.float32), targets


@pytest.mark.parametrize("exact", [True, False])
def test_the_definitions_by_plain_loops(exact):
    rng = np.random.default_rng(0)
    scores, targets = _drawn(rng, 200, np.array([0.5, 0.1, 0.0, 1.0]), classes=4)
    scores = np.round(scores, 1)  # many are equal
    targets[rng.random(targets.shape) < 0.1] = -1
    limits = np.array([0.3, 0.21, 0.49, 0.0])  # further from any score than bins are wide
    metrics = _seen(scores, targets, exact=exact)
    found = class_statistics(metrics, limits)
    np.testing.assert_allclose(found.average_precision, metrics.per_class_ap(), rtol=1e-12)
    probabilities = calibrated_probability(scores, positive_weight=12)
    for i in range(4):
        known = targets[:, i] >= 0
        column, truth = scores[known, i], targets[known, i] > 0
        assert found.positives[i] == truth.sum()
        tags = probabilities[known, i] >= limits[i]
        expected = [
            (tags & truth).sum() / tags.sum() if tags.any() else np.nan,
            (tags & truth).sum() / truth.sum() if truth.any() else np.nan,
            2 * (tags & truth).sum() / (tags.sum() + truth.sum()) if truth.any() else np.nan,
        ]
        ours = [found.precision[i], found.recall[i], found.f1[i]]
        np.testing.assert_allclose(ours, expected, atol=0 if exact else 0.02)
        if not truth.any():
            assert np.isnan(
                [found.average_precision[i], *found.interval[i], found.balanced[i]]
            ).all()
            continue
        if truth.all():
            assert found.average_precision[i] == 1 and np.isnan(found.balanced[i])
            continue
        balanced = []
        for score in column[truth]:
            recall = (column[truth] >= score).mean()
            balanced.append(recall / (recall + (column[~truth] >= score).mean()))
        assert found.balanced[i] == pytest.approx(np.mean(balanced), abs=1e-9 if exact else 0.01)


def test_balanced_does_not_depend_on_how_frequent_a_class_is():
    rng = np.random.default_rng(1)
    numbers = []
    for prevalence in (0.5, 0.1, 0.02):
        scores, targets = _drawn(rng, 60_000, prevalence)
        found = class_statistics(_seen(scores, targets), np.array([0.5]))
        numbers.append((found.average_precision[0], found.balanced[0]))
    plain, balanced = np.array(numbers).T
    assert np.ptp(balanced) < 0.01 and np.ptp(plain) > 0.3
    scores, targets = _drawn(rng, 60_000, 0.1, distance=0)
    found = class_statistics(_seen(scores, targets), np.array([0.5]))
    assert found.balanced[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("prevalence", "least"), [(0.3, 0.9), (0.05, 0.85)])
def test_intervals_hold_the_value_of_many_images(prevalence, least):
    """Of 300 classes with about 120 and 20 positives among 400 images."""
    rng = np.random.default_rng(2)
    scores, targets = _drawn(rng, 200_000, prevalence)
    truth = class_statistics(_seen(scores, targets), np.array([0.5])).average_precision[0]
    scores, targets = _drawn(rng, 400, prevalence, classes=300)
    found = class_statistics(_seen(scores, targets), np.full(300, 0.5))
    low, high = found.interval.T
    held = ((low <= truth) & (truth <= high)).mean()
    assert least <= held <= 0.99, held
    assert (low <= found.average_precision).all() and (found.average_precision <= high).mean() > 0.9


def test_the_same_numbers_again_and_for_a_class_alone():
    rng = np.random.default_rng(3)
    scores, targets = _drawn(rng, 100, 0.2, classes=3)
    first, again = (class_statistics(_seen(scores, targets), np.full(3, 0.5)) for _ in range(2))
    np.testing.assert_array_equal(first.interval, again.interval)
    alone = class_statistics(_seen(scores[:, :1], targets[:, :1]), np.full(1, 0.5))
    np.testing.assert_array_equal(alone.interval[0], first.interval[0])


def test_many_positives_are_drawn_together(monkeypatch):
    rng = np.random.default_rng(4)
    scores, targets = _drawn(rng, 4_000, 0.5)
    fine = class_statistics(_seen(scores, targets), np.array([0.5])).interval[0]
    monkeypatch.setattr(module, "MAX_CELLS", 10_000)
    finest = class_statistics(_seen(scores, targets), np.array([0.5])).interval[0]
    np.testing.assert_allclose(fine, finest, atol=0.005)
