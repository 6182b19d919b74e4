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
    """A linear classifier; the scores of unscaled features x are x @ weights.T + biases.

    Attributes:
        c: Inverse regularisation strength of the fit.
        weights: float64 [C, F].
        biases: float64 [C]; -inf for a class that cannot be predicted.
        unfinished: Number of fits that did not converge within their iterations.
    """

    c: float
    weights: np.ndarray
    biases: np.ndarray
    unfinished: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns logits, float64 [n, C]."""
        return features @ self.weights.T + self.biases


def fit_single(
    features: np.ndarray,
    classes: np.ndarray,
    *,
    num_classes: int,
    cs: tuple[float, ...],
    iterations: int,
) -> Iterator[Fit]:
    """Fits a softmax regression for every c, each starting from the previous solution.

    Minimises sum_i loss_i + |w|^2 / (2 c) over standardised features; biases are not penalised.

    Args:
        features: float32 [n, F].
        classes: Integers [n].
        num_classes: Number of classes, C; classes without an image cannot be predicted.
        cs: Values of c, best in ascending order.
        iterations: Maximum number of L-BFGS iterations for each c.

    Raises:
        FeaturesError: If all images are of one class.
    """
    if len(np.unique(classes)) < 2:
        raise FeaturesError(
            f"the {len(classes):,} training images are all of one class: add images of others"
        )
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    # In ascending order every fit starts close to its solution, which saves iterations.
    model = LogisticRegression(max_iter=iterations, warm_start=True)
    for c in cs:
        unfinished = _fit(model.set_params(C=c), scaled, classes)
        rows, biases = model.coef_, model.intercept_
        if len(rows) == 1:  # for two classes scikit-learn returns the margin of the second only
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
    """Fits a one-versus-rest logistic regression per class, for every c.

    The objective is that of `fit_single`. An image in which a class is neither positive nor
    negative is ignored for this class. A class with only positives or only negatives gets the log
    odds of their counts, with half an image added to both.

    Args:
        features: float32 [n, F].
        states: int8 [n, C], 1 positive, 0 negative, -1 neither.
        cs: Values of c, best in ascending order.
        iterations: Maximum number of L-BFGS iterations for each class and c.
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
    """Fits the model; returns 1 if it did not converge."""
    with warnings.catch_warnings():
        # One warning for each class would hide the table, which counts these fits instead.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, classes)
    return int(model.n_iter_.max() >= model.max_iter)


def _for_plain_features(fit: Fit, scaler: StandardScaler) -> Fit:
    """Returns the same classifier for features that are not standardised."""
    weights = fit.weights / scaler.scale_
    return fit._replace(weights=weights, biases=fit.biases - weights @ scaler.mean_)
