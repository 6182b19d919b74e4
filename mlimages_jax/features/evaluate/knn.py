# SPDX-License-Identifier: BSD-3-Clause
"""The command `knn`: evaluates features by a nearest-neighbour classifier."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import scipy.sparse
from tyro.conf import arg

from mlimages_jax.features import FeaturesError, results
from mlimages_jax.features.evaluate.approximate import Approximate
from mlimages_jax.features.evaluate.labelled import SparseLabels
from mlimages_jax.features.evaluate.nearest import Neighbours, nearest
from mlimages_jax.features.evaluate.scorecard import LabelRules
from mlimages_jax.features.evaluate.sets import SetOptions, open_sets
from mlimages_jax.monitoring.progress_bar import progress

_USUAL = (10, 20, 100, 200)  # the values of k in the DINO paper (Caron et al. 2021)
_VOTES_AT_ONCE = 1 << 23  # images times classes; 64 MB
_LEAST = 1e-300  # minimum weight of a vote; exp underflows to 0 for far neighbours
_MOST = 1 - 1e-12  # maximum fraction of the votes; the logit of 1 is infinite


def knn(
    *,
    options: Annotated[SetOptions, arg(name="")],
    k: tuple[int, ...] = (),
    temperature: float = 0.07,
    index: Literal["exact", "ivf"] = "exact",
    lists: int = 0,
    probes: int = 16,
    check: int = 1_000,
    output: Path | None = None,
) -> None:
    """Evaluate features with a k-nearest-neighbour classifier; nothing is trained.

    For every test image, the k training images with the largest cosine similarity s_i are found,
    exactly or by --index=ivf. Each votes for its classes with the weight exp(s_i / temperature), as
    in "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (Wu, Xiong, Yu and
    Lin, 2018, section 3.4). The score of a class is its fraction of the votes.

        mlimages features knn --train features_train --test features_val --output knn.json

    With one class per image: top-1 and top-5 among the classes with a vote. With several: mean
    average precision, and precision, recall and F1 at 5. Neighbours whose label of a class is
    unknown or below the threshold are ignored for this class.

    Comparing m test images with n training images takes m x n x features operations. Where that is
    too many, --index=ivf (extra `index`) compares a test image only with those in the --probes
    lists, of all --lists, that are nearest to it, and reports the fraction of the neighbours that
    it found: docs/benchmarks/features.md has times, memory and recall.

    Args:
        options: images and their labels.
        k: numbers of neighbours; default: those of 10, 20, 100 and 200 that do not exceed the
            number of training images.
        temperature: see above; the smaller, the more the nearest neighbours count.
        index: exact compares with all training images, ivf only with those in nearby lists.
        lists: number of lists; 0: twice the square root of the number of training images.
        probes: number of lists that a test image is compared with; more of them find more.
        check: number of test images for which the neighbours are found exactly too, to measure the
            recall of --index=ivf; 0: none.
        output: file for all metrics, as JSON.
    """
    if not temperature > 0:
        raise FeaturesError(f"--temperature {temperature}: give a number above 0")
    if min(lists, check) < 0 or probes < 1:
        raise FeaturesError("--lists and --check must be at least 0, --probes at least 1")
    results.check_place(output)
    sets = open_sets(options)
    ks = _checked(k, len(sets.train))
    print(sets.summary())
    approximate = Approximate(sets.train, lists=lists, probes=probes) if index == "ivf" else None
    found = approximate.nearest if approximate else nearest
    voters = Voters(sets.train_labels, sets.rules, temperature=temperature)
    cards = {one: sets.scorecard() for one in ks}
    with progress(len(sets.test), what="neighbours") as bar:
        for block in found(sets.test, sets.train, k=ks[-1]):
            for part in _parts(block, sets.train_labels.num_classes):
                for one, card in cards.items():
                    card.update(part.queries, voters.scores(part, k=one))
            bar.update(len(block.queries))
    rows: list[dict[str, Any]] = [{"k": one, **card.compute()} for one, card in cards.items()]
    print(f"\n{results.table(rows)}")
    searched: dict[str, Any] = {"index": index}
    if approximate:
        searched |= approximate.about()
        if check:
            recall = approximate.recall(sets.test, sets.train, k=ks[-1], count=check)
            print(recall)
            searched |= recall._asdict()
    if output is not None:
        values = {**sets.about(), **options.about(), **searched, "temperature": temperature}
        results.write_json(output, {**values, "results": rows})
        print(f"written: {output}")


class Voters:
    """The training images as voters.

    Args:
        labels: Labels of the N training images, for C classes.
        rules: How labels count.
        temperature: Temperature of the weights.
    """

    def __init__(self, labels: SparseLabels, rules: LabelRules, *, temperature: float):
        self._single, self._temperature = rules.single, temperature
        positive = labels.confidences >= np.float32(rules.threshold)  # as metrics.judge rounds it
        judged = positive | (labels.confidences == 0)
        self._missing_count = rules.missing_labels == 0
        self._positive = labels.matrix(positive)
        # Absent: all neighbours vote but those whose label is unknown or below the threshold.
        # Unknown: only those vote that have a label for the class.
        self._listed = labels.matrix(~judged if self._missing_count else judged)

    def scores(self, found: Neighbours, *, k: int) -> np.ndarray:
        """Returns logits of the fractions of votes, float64 [m, C]; -inf for classes without votes.

        For one class per image they are log fractions, whose softmax is the fraction; for several
        they are log(fraction / (1 - fraction)).

        Args:
            found: Neighbours of m images.
            k: Number of neighbours that vote.
        """
        similarity = found.similarity[:, :k].astype(np.float64)
        # Relative to the nearest: this cancels in the fractions and keeps the weights in range.
        weights = np.exp((similarity - similarity[:, :1]) / self._temperature)
        weights = np.maximum(weights, _LEAST)
        weights /= weights.sum(axis=1, keepdims=True)
        shape = len(weights), self._positive.shape[0]
        starts = np.arange(len(weights) + 1) * k
        votes = scipy.sparse.csr_array(
            (weights.reshape(-1), found.neighbours[:, :k].reshape(-1), starts), shape
        )  # [m, N]
        positive_votes = (votes @ self._positive).toarray()  # [m, C]
        listed = (votes @ self._listed).toarray()
        possible = 1 - listed if self._missing_count else listed
        with np.errstate(divide="ignore", invalid="ignore"):
            fractions = np.where(positive_votes > 0, positive_votes / possible, 0)
            if self._single:
                return np.log(fractions)
            fractions = np.minimum(fractions, _MOST)
            return np.log(fractions) - np.log1p(-fractions)


def _checked(k: tuple[int, ...], count: int) -> list[int]:
    """Returns the numbers of neighbours, ascending.

    Raises:
        FeaturesError: If one of them is out of range.
    """
    ks = sorted(set(k or [one for one in _USUAL if one <= count] or [1]))
    if not 1 <= ks[0] <= ks[-1] <= count:
        raise FeaturesError(f"--k {' '.join(map(str, ks))}: give numbers from 1 to {count:,}")
    return ks


def _parts(found: Neighbours, num_classes: int) -> list[Neighbours]:
    """Splits the queries into parts whose votes fit into memory."""
    rows = max(1, _VOTES_AT_ONCE // num_classes)
    starts = range(0, len(found.queries), rows)
    return [Neighbours(*(values[i : i + rows] for values in found)) for i in starts]
