# SPDX-License-Identifier: BSD-3-Clause
"""The command `probe`: evaluates features by a linear classifier trained on them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import arg

from mlimages_jax.features import FeaturesError, results
from mlimages_jax.features.evaluate.linear import Fit, fit_multi, fit_single
from mlimages_jax.features.evaluate.scorecard import Scorecard
from mlimages_jax.features.evaluate.sets import SetOptions, Sets, open_sets
from mlimages_jax.features.export.exported import Exported, name_fractions
from mlimages_jax.monitoring.progress_bar import progress

_AT_ONCE = 1 << 23  # scores; 64 MB
_CHOOSING = 0.2  # fraction of the training images used to choose C


def probe(
    *,
    options: Annotated[SetOptions, arg(name="")],
    c: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    iterations: int = 1_000,
    max_train: int = 100_000,
    output: Path | None = None,
) -> None:
    """Evaluate features with a linear classifier trained on them by scikit-learn.

    Logistic regression with an L2 penalty on standardised features, fitted by L-BFGS: softmax if
    every image has one class, else one classifier against the rest per class. The inverse strength
    of the penalty, C of scikit-learn's LogisticRegression, is chosen on a fifth of the training
    images (by a hash of the name) with classifiers trained on the others: the best by top-1 or
    mean average precision; among equals the smallest. The evaluated classifier is then trained on
    all training images.

        mlimages features probe --train features_train --test features_val --output probe.json

    With one class per image: top-1 and top-5. With several: mean average precision, and precision,
    recall and F1 at 5; labels that are unknown or below the threshold are ignored.

    The training images are kept in memory, for a while three times: 100,000 with 2,048 numbers
    each are 2.5 GB. An iteration costs about 4 x images x numbers x classes operations.

    Args:
        options: images and their labels.
        c: values of C to choose from.
        iterations: maximum number of iterations per fit.
        max_train: maximum number of training images, selected by a hash of the name.
        output: file for all metrics, as JSON.
    """
    if not c or min(c) <= 0 or iterations < 1 or max_train < 1:
        raise FeaturesError("--c, --iterations and --max-train must be above 0")
    results.check_place(output)
    sets = _limited(open_sets(options), max_train)
    print(sets.summary())
    tried = _try(sets, cs=tuple(sorted(set(c))), iterations=iterations)
    print(f"\nvalidation on a part of the training images:\n{results.table(tried)}")
    best = _best(tried)
    if len(tried) > 1 and best["C"] in (tried[0]["C"], tried[-1]["C"]):
        print(f"the best C, {best['C']:g}, is at an end of the list: try --c values beyond it")
    (fit,) = _fits(sets, np.arange(len(sets.train)), cs=(best["C"],), iterations=iterations)
    row = _judged(fit, sets.test, np.arange(len(sets.test)), sets.scorecard())
    print(f"\ntrained on all training images:\n{results.table([row])}")
    if unfinished := row["unfinished"]:
        print(f"fits that did not converge: {unfinished}; increase --iterations")
    if output is not None:
        values = {**sets.about(), **options.about(), "max_train": max_train, "tried": tried}
        results.write_json(output, {**values, "results": [row]})
        print(f"written: {output}")


def _limited(sets: Sets, count: int) -> Sets:
    """Limits the number of training images."""
    if len(sets.train) <= count:
        return sets
    hashes = name_fractions(sets.train.names, purpose="limit")
    chosen = np.sort(np.argsort(hashes, kind="stable")[:count])
    return dataclasses.replace(
        sets, train=sets.train.select(chosen), train_labels=sets.train_labels.select(chosen)
    )


def _try(sets: Sets, *, cs: tuple[float, ...], iterations: int) -> list[dict[str, Any]]:
    """Evaluates each C on a part of the training images, with classifiers trained on the others.

    Raises:
        FeaturesError: If there are too few images.
    """
    apart = name_fractions(sets.train.names, purpose="C") < _CHOOSING
    if apart.all() or not apart.any():
        raise FeaturesError(
            f"{len(sets.train)} training images are too few to hold some out for choosing C"
        )
    judged = np.flatnonzero(apart)
    rows = []
    with progress(len(cs), what="values of C", unit=" fits") as bar:
        for fit in _fits(sets, np.flatnonzero(~apart), cs=cs, iterations=iterations):
            card = Scorecard(sets.train_labels, sets.rules)
            rows.append(_judged(fit, sets.train, judged, card))
            bar.update()
    return rows


def _fits(sets: Sets, rows: np.ndarray, *, cs: tuple[float, ...], iterations: int) -> Iterator[Fit]:
    """Trains classifiers on some of the training images."""
    features = sets.train.plain(rows)
    states = sets.rules.states(sets.train_labels, rows)
    if not sets.rules.single:
        return fit_multi(features, states, cs=cs, iterations=iterations)
    classes, count = states.argmax(axis=1), sets.train_labels.num_classes
    return fit_single(features, classes, num_classes=count, cs=cs, iterations=iterations)


def _judged(fit: Fit, images: Exported, rows: np.ndarray, card: Scorecard) -> dict[str, Any]:
    """Returns the metrics of a classifier on some images."""
    for part in np.array_split(rows, -(-len(rows) * len(fit.biases) // _AT_ONCE)):
        card.update(part, fit.scores(images.plain(part)))
    return {"C": fit.c, **card.compute(), "unfinished": fit.unfinished}


def _best(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the first of the best rows; nan (no class has a positive) ranks last."""
    name = "top1" if "top1" in tried[0] else "mAP"
    return max(tried, key=lambda row: np.nan_to_num(row[name], nan=-1))
