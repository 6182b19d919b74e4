# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.evaluate.linear import fit_multi, fit_single
from tests.features.feature_sets import random_features

FEATURES = random_features(60, 3, seed=8) * [1, 100, 0.01] + [0, 5, 1]
FEATURES = np.concatenate([FEATURES, np.ones((60, 1))], axis=1).astype(np.float32)  # no spread
CLASSES = np.random.default_rng(9).integers(0, 3, 60)
CS = (0.01, 1.0)
OPTIONS = {"cs": CS, "iterations": 1000}


def standardised(features):
    spread = features.std(0)
    return (features - features.mean(0)) / np.where(spread > 1e-9, spread, 1)


def softmax_problem(weights_and_biases, scaled, classes, c):
    """The objective of the docstring."""
    table = weights_and_biases.reshape(-1, scaled.shape[1] + 1)
    scores = scaled @ table[:, :-1].T + table[:, -1]
    losses = logsumexp(scores, axis=1) - scores[np.arange(len(classes)), classes]
    return losses.sum() + (table[:, :-1] ** 2).sum() / (2 * c)


def test_softmax_regression_minimises_its_objective():
    scaled = standardised(FEATURES.astype(np.float64))
    fits = list(fit_single(FEATURES, CLASSES, num_classes=3, **OPTIONS))
    assert [fit.c for fit in fits] == list(CS)
    for fit in fits:
        assert fit.unfinished == 0
        best = minimize(softmax_problem, np.zeros(15), (scaled, CLASSES, fit.c), tol=1e-10).x
        table = best.reshape(3, 5)
        expected = scaled @ table[:, :-1].T + table[:, -1]
        ours = fit.scores(FEATURES)
        np.testing.assert_allclose(
            ours - ours.mean(1, keepdims=True),
            expected - expected.mean(1, keepdims=True),
            atol=0.02,
        )
    assert np.ptp(fits[1].scores(FEATURES)) > 1.5 * np.ptp(fits[0].scores(FEATURES))


def test_two_classes_have_two_scores():
    classes = np.where(FEATURES[:, 1] > np.median(FEATURES[:, 1]), 2, 0)
    (fit,) = fit_single(FEATURES, classes, num_classes=4, cs=(1.0,), iterations=1000)
    scores = fit.scores(FEATURES)
    assert (scores.argmax(1) == classes).mean() > 0.9
    assert np.isneginf(scores[:, [1, 3]]).all()


def test_one_class_is_refused():
    with pytest.raises(FeaturesError, match="60 training images are all of one class"):
        list(fit_single(FEATURES, CLASSES * 0, num_classes=3, **OPTIONS))


def test_what_has_not_converged_is_told():
    (fit,) = fit_single(FEATURES, CLASSES, num_classes=3, cs=(1.0,), iterations=1)
    assert fit.unfinished == 1
    states = (CLASSES[:, None] == np.arange(3)).astype(np.int8)
    (fit,) = fit_multi(FEATURES, states, cs=(1.0,), iterations=1)
    assert fit.unfinished == 3


def one_class_problem(weights_and_bias, scaled, positive, c):
    scores = scaled @ weights_and_bias[:-1] + weights_and_bias[-1]
    losses = np.logaddexp(0, np.where(positive, -scores, scores))
    return losses.sum() + (weights_and_bias[:-1] ** 2).sum() / (2 * c)


def test_every_class_is_fitted_to_what_is_known_of_it():
    states = np.random.default_rng(10).integers(-1, 2, (60, 2)).astype(np.int8)
    scaled = standardised(FEATURES.astype(np.float64))
    for fit in fit_multi(FEATURES, states, **OPTIONS):
        scores = fit.scores(FEATURES)
        for i, column in enumerate(states.T):
            known = column >= 0
            problem = scaled[known], column[known] == 1, fit.c
            best = minimize(one_class_problem, np.zeros(5), problem, tol=1e-10).x
            np.testing.assert_allclose(scores[:, i], scaled @ best[:-1] + best[-1], atol=0.02)


def test_a_class_of_one_kind_has_the_odds_of_its_number():
    states = np.zeros((60, 3), np.int8)
    states[:20, 1] = 1
    states[20:, 1] = -1
    states[::2, 2] = 1
    (fit,) = fit_multi(FEATURES, states, cs=(1.0,), iterations=1000)
    probabilities = expit(fit.scores(FEATURES))
    np.testing.assert_allclose(probabilities[:, 0], 0.5 / 61)  # no positive and 60 negatives
    np.testing.assert_allclose(probabilities[:, 1], 20.5 / 21)
    assert np.ptp(probabilities[:, 2]) > 0.01
