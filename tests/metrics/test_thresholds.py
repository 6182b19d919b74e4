# SPDX-License-Identifier: BSD-3-Clause
"""Thresholds on drawn scores whose best one is known, and against all cuts by plain NumPy."""

import tracemalloc

import numpy as np
import pytest

from mlimages_jax.metrics import thresholds
from mlimages_jax.metrics.calibration import calibrated_probability
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.thresholds import Objective, find_thresholds

OBJECTIVES = [
    Objective(), Objective("precision", 0.7), Objective("recall", 0.8), Objective("recall", 1.0),
    Objective("precision", 1.0),
]  # fmt: skip


def _seen(scores, targets, **arguments):
    metrics = MultiLabelMetrics(scores.shape[1], **arguments)
    for part in np.array_split(np.arange(len(scores)), 3):
        metrics.update(scores[part], targets[part])
    return metrics


def _drawn(rng, images, prevalences, *, distance=2.0):
    """Logits of the true posterior for two normals of variance 1, `distance` apart."""
    prevalences = np.asarray(prevalences)
    targets = (rng.random((images, len(prevalences))) < prevalences).astype(np.float32)
    x = rng.normal(size=targets.shape) + (targets - 0.5) * distance
    return (distance * x + np.log(prevalences / (1 - prevalences))).astype(np.float32), targets


def _f1(probabilities, targets, limits):
    tags = probabilities >= limits
    right = (tags & (targets > 0)).sum(axis=0)
    return 2 * right / np.maximum(tags.sum(axis=0) + (targets > 0).sum(axis=0), 1)


def _brute(probabilities, targets, objective):
    """The best value of what counts, and of the other one of equals, over all cuts."""
    best = None
    for limit in probabilities:
        tags = probabilities >= limit
        right = (tags & (targets > 0)).sum()
        precision, recall = right / tags.sum(), right / (targets > 0).sum()
        key = {
            "f1": (2 * right / (tags.sum() + (targets > 0).sum()), -tags.sum()),
            "precision": (precision >= objective.wanted, recall, -tags.sum()),
            "recall": (recall >= objective.wanted, precision, tags.sum()),
        }[objective.name]
        if objective.name == "precision" and precision < objective.wanted:
            key = (False, precision, tags.sum())
        best = max(best or (key, tags.sum(), right), (key, tags.sum(), right))
    return best[1:]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("prevalence", [0.5, 0.05])
def test_calibrated_scores_are_cut_at_half_of_their_f1(exact, prevalence):
    scores, targets = _drawn(np.random.default_rng(0), 100_000, [prevalence])
    metrics = _seen(scores, targets, exact=exact, positive_weight=1.0)
    found = find_thresholds(metrics, Objective(), kappa=0)
    assert found.probabilities[0] == pytest.approx(found.f1[0] / 2, abs=0.03)
    # The pool of one class is the class.
    assert found.overall == pytest.approx(found.probabilities[0], abs=0.002)
    applied = _f1(calibrated_probability(scores, positive_weight=1), targets, found.probabilities)
    assert applied[0] == pytest.approx(found.f1[0], abs=0.001)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_no_cut_is_better(objective):
    """Rounded scores, so that many are equal; with the weight of positives and soft labels."""
    rng = np.random.default_rng(1)
    scores, targets = _drawn(rng, 150, [0.3, 0.1, 0.6, 0.02])
    scores = np.round(scores, 1)
    targets[rng.random(targets.shape) < 0.2] = -1
    targets[rng.random(targets.shape) < 0.1] = 0.4
    found = find_thresholds(_seen(scores, targets, positive_weight=12.0), objective, kappa=0)
    probabilities = calibrated_probability(scores, positive_weight=12)
    for i, limit in enumerate(found.probabilities):
        known = (targets[:, i] == 0) | (targets[:, i] == 1)
        column, truth = probabilities[known, i], targets[known, i]
        predicted, right = _brute(column, truth, objective)
        assert (found.predicted[i], found.right[i]) == (predicted, right)
        assert found.positives[i] == truth.sum()
        tags = column >= np.float32(limit)  # as a tag is decided
        assert (tags.sum(), truth[tags].sum()) == (predicted, right)


def test_a_recall_is_reached_with_the_highest_precision():
    scores = np.array([[5.0], [4.0], [3.0], [2.0], [1.0]], np.float32)
    targets = np.array([[0], [0], [1], [1], [1]], np.float32)
    metrics = _seen(scores, targets)
    found = find_thresholds(metrics, Objective("recall", 0.3), kappa=0)
    assert (found.predicted, found.right) == (5, 3)  # the cut at 3 has a third of each
    metrics = _seen(-scores, targets)
    found = find_thresholds(metrics, Objective("recall", 0.3), kappa=0)
    assert (found.predicted, found.right) == (3, 3), "of equal precision the most recall"


def test_classes_that_miss_what_is_asked_for_are_told():
    """Without shrinkage only what no cut reaches; with it also a class drawn to the others."""
    scores, targets = np.full((2, 20, 4), -5, np.float32)
    targets[:] = 0
    scores[:2, 0], targets[0, 0] = (8, 7), 1  # one positive, alone above 7.5
    scores[:18, 1], targets[:18, 1] = 2, 1  # the pool's cut is at 2, where 19 of 20 are right
    targets[:2, 2] = 1  # at -5 as all others: a tenth at best
    metrics = _seen(scores, targets, positive_weight=1.0)  # the last class is never positive
    precise = Objective("precision", 0.9)
    found = find_thresholds(metrics, precise, kappa=0)
    assert found.missed.tolist() == [False, False, True, False]
    found = find_thresholds(metrics, precise, kappa=10)
    assert found.precision[:2].tolist() == [0.5, 1.0]
    assert found.missed.tolist() == [True, False, False, False]  # the third has no tag any more
    found = find_thresholds(metrics, Objective("recall", 0.9), kappa=10)
    assert found.missed.tolist() == [False, False, True, False]
    assert not find_thresholds(metrics, Objective()).missed.any()


@pytest.mark.parametrize("exact", [True, False])
def test_shrinkage_by_hand(exact):
    scores, targets = _drawn(np.random.default_rng(2), 400, [0.5, 0.02, 0.1])
    targets[:, 2] = 0  # never positive
    metrics = _seen(scores, targets, exact=exact, positive_weight=1.0)
    found = find_thresholds(metrics, Objective(), kappa=25)

    def logit(p):
        return np.log(p / (1 - p))

    for i in (0, 1):
        n = targets[:, i].sum()
        expected = (n * logit(found.unshrunk[i]) + 25 * logit(found.overall)) / (n + 25)
        assert logit(found.probabilities[i]) == pytest.approx(expected)
        assert found.positives[i] == n
    assert found.probabilities[2] == found.overall and np.isnan(found.unshrunk[2])
    assert found.positives[2] == 0 and np.isnan(found.recall[2]) and np.isnan(found.f1[2])
    own = find_thresholds(metrics, Objective(), kappa=0)
    np.testing.assert_array_equal(own.probabilities[:2], found.unshrunk[:2])


def test_bins_and_stored_scores_agree():
    scores, targets = _drawn(np.random.default_rng(3), 3_000, np.linspace(0.01, 0.5, 20))
    for objective in OBJECTIVES[:3]:
        exact, binned = (
            find_thresholds(_seen(scores, targets, exact=exact, positive_weight=1.0), objective)
            for exact in (True, False)
        )
        assert exact.overall == pytest.approx(binned.overall, abs=0.002)
        np.testing.assert_allclose(exact.f1, binned.f1, atol=0.02)
        np.testing.assert_allclose(exact.recall, binned.recall, atol=0.03)


def test_unknown_labels_are_as_if_they_were_not_there():
    scores, targets = _drawn(np.random.default_rng(4), 300, [0.2, 0.4])
    noise = np.full_like(scores, 9.0)
    both = np.concatenate([scores, noise]), np.concatenate([targets, np.full_like(targets, -1)])
    ours, theirs = (
        find_thresholds(_seen(*one, positive_weight=1.0), Objective())
        for one in (both, (scores, targets))
    )
    np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
    np.testing.assert_array_equal(ours.predicted, theirs.predicted)


def test_shrinkage_helps_rare_classes_on_images_that_were_not_seen():
    """300 classes with 5 positives on average: mean F1 on 10,000 other images.

    0.442 with the default, 0.424 with the classes' own cuts, 0.423 with the pool's alone. Of 2, 15
    and 50 positives: 0.334, 0.283, 0.326; 0.583, 0.577, 0.553; 0.724, 0.722, 0.694.
    """
    rng = np.random.default_rng(5)
    prevalences = np.full(300, 0.01)
    bent = rng.normal(0, 1, 300).astype(np.float32)  # classes are not calibrated alike
    scores, targets = _drawn(rng, 500, prevalences, distance=2.5)
    fresh, truth = _drawn(rng, 10_000, prevalences, distance=2.5)
    metrics = _seen(scores + bent, targets, positive_weight=1.0)
    probabilities = calibrated_probability(fresh + bent, positive_weight=1)
    mean = {}
    for kappa in (0.0, thresholds.KAPPA, 1e9):
        found = find_thresholds(metrics, Objective(), kappa=kappa)
        mean[kappa] = _f1(probabilities, truth, found.probabilities).mean()
    assert mean[thresholds.KAPPA] > mean[0.0] + 0.01
    assert mean[thresholds.KAPPA] > mean[1e9] + 0.01


def test_many_classes_need_little_memory():
    """One class at a time: less than 1 MB beside the counts, which take 16 (ML-Images': 91)."""
    rng = np.random.default_rng(6)
    metrics = MultiLabelMetrics(2_000, exact=False, positive_weight=12.0)
    targets = (rng.random((8, 2_000)) < 0.1).astype(np.float32)
    metrics.update(rng.normal(size=targets.shape).astype(np.float32), targets)
    tracemalloc.start()
    found = find_thresholds(metrics, Objective())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6 and found.probabilities.shape == (2_000,)
    assert ((found.probabilities > 0) & (found.probabilities < 1)).all()


def test_what_cannot_be_found_is_said():
    metrics = _seen(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="no image has a positive class"):
        find_thresholds(metrics, Objective())
    with pytest.raises(ValueError, match="kappa=-1"):
        find_thresholds(metrics, Objective(), kappa=-1)
    with pytest.raises(ValueError, match=r"wanted=1\.5"):
        Objective("recall", 1.5)
