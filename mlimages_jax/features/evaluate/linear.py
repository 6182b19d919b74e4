# SPDX-License-Identifier: BSD-3-Clause
"""Logistic regression on standardised features, by scikit-learn."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mlimages_jax.features import FeaturesError


class Fit(NamedTuple):
    """A linear classifier; scores are x @ weights.T + biases of plain features x.

    Attributes:
        c: inverse strength of the penalty that it was fitted with.
        weights: float64 [C, F].
        biases: float64 [C]; -inf for a class that cannot be predicted.
        unfinished: fits that were not converged when their iterations were used up.
    """

    c: float
    weights: np.ndarray
    biases: np.ndarray
    unfinished: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits, float64 [n, C]."""
        return features @ self.weights.T + self.biases


def fit_single(
    features: np.ndarray,
    classes: np.ndarray,
    *,
    num_classes: int,
    cs: tuple[float, ...],
    iterations: int,
) -> Iterator[Fit]:
    """Softmax regression, once for every c, each begun where the last one ended.

    Minimises sum_i loss_i + |w|^2 / (2 c) over standardised features, the biases not penalised.

    Args:
        features: float32 [n, F].
        classes: int [n].
        num_classes: C; classes without an image cannot be predicted.
        cs: values of c, best ascending.
        iterations: of L-BFGS at most, for each c.

    Raises:
        FeaturesError: all images are of one class.
    """
    if len(np.unique(classes)) < 2:
        raise FeaturesError(
            f"the {len(classes):,} training images are all of one class: give others too"
        )
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    model = LogisticRegression(max_iter=iterations, warm_start=True)
    for c in cs:
        unfinished = _fit(model.set_params(C=c), scaled, classes)
        rows, biases = model.coef_, model.intercept_
        if len(rows) == 1:  # of two classes scikit-learn says how much the second is ahead
            rows, biases = np.concatenate([0 * rows, rows]), np.concatenate([0 * biases, biases])
        known = model.classes_
        weights = np.zeros((num_classes, features.shape[1]))
        weights[known] = rows
        all_biases = np.full(num_classes, -np.inf)
        all_biases[known] = biases
        yield _for_plain_features(Fit(c, weights, all_biases, unfinished), scaler)


def fit_multi(
    features: np.ndarray,
    states: np.ndarray,
    *,
    cs: tuple[float, ...],
    iterations: int,
) -> Iterator[Fit]:
    """One logistic regression for each class against the rest, all of them once for every c.

    The same problem as for one class an image; an image in which a class is neither positive
    nor negative has no part in this class. A class that has images of one kind only gets the log
    odds of their number, with half an image added to both kinds.

    Args:
        features: float32 [n, F].
        states: int8 [n, C], 1 positive, 0 negative, -1 neither.
        cs: values of c, best ascending.
        iterations: of L-BFGS at most, for each class and c.
    """
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    models = [LogisticRegression(max_iter=iterations, warm_start=True) for _ in states.T]
    for c in cs:
        weights = np.zeros((states.shape[1], features.shape[1]))
        biases = np.zeros(states.shape[1])
        unfinished = 0
        for i, (model, column) in enumerate(zip(models, states.T, strict=True)):
            positive, negative = int((column == 1).sum()), int((column == 0).sum())
            if not positive or not negative:
                biases[i] = np.log((positive + 0.5) / (negative + 0.5))
                continue
            judged = column >= 0
            rows = scaled if judged.all() else scaled[judged]
            unfinished += _fit(model.set_params(C=c), rows, column[judged])
            weights[i], biases[i] = model.coef_[0], model.intercept_[0]
        yield _for_plain_features(Fit(c, weights, biases, unfinished), scaler)


def _fit(model: LogisticRegression, features: np.ndarray, classes: np.ndarray) -> int:
    """Fits it; returns 1 when it did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, classes)
    return int(model.n_iter_.max() >= model.max_iter)


def _for_plain_features(fit: Fit, scaler: StandardScaler) -> Fit:
    """The same classifier for features that are not standardised."""
    weights = fit.weights / scaler.scale_
    return fit._replace(weights=weights, biases=fit.biases - weights @ scaler.mean_)
