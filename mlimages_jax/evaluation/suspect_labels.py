# SPDX-License-Identifier: BSD-3-Clause
"""Ranks labels that are probably wrong or missing, by a model that was not trained on their images.

The rule is that of confident learning (Northcutt, Jiang and Chuang, 2021, section 3), for every
class by itself: a label that an image does not have is suspect if the class is at least as probable
as it is on average where the label is given; a given label is suspect if the absence of the class
is at least as probable as on average where the label is not given. Among these, the less probable
the label as given, the higher its rank (self-confidence, ibid. section 3.3).
"""

import heapq
import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np

Problem = Literal["wrong", "missing"]
_KEPT = 100_000  # candidates of each problem in memory


class Suspect(NamedTuple):
    """A label that is probably wrong or missing.

    Attributes:
        position: Position of the image among those judged.
        class_: Index of the class.
        probability: Probability of the class.
        instead: With one class per image, the most probable other class and its probability; else
            None.
    """

    position: int
    class_: int
    probability: float
    instead: tuple[int, float] | None = None


class SuspectFinder:
    """Collects predictions, and ranks the labels that contradict them.

    Memory grows with the number of classes and of candidates, not with the number of images.

    Args:
        num_classes: C.
        threshold: Minimum confidence of a given label.
        single_label: Whether every image has one class; then nothing can be missing.
        kept: Candidates of each problem to keep, the strongest.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        threshold: float,
        single_label: bool = False,
        kept: int = _KEPT,
    ):
        self._threshold, self._single, self._kept = threshold, single_label, kept
        self._sums = {True: np.zeros(num_classes), False: np.zeros(num_classes)}
        self._counts = {True: np.zeros(num_classes), False: np.zeros(num_classes)}
        self._wrong: list[tuple[float, Suspect]] = []
        self._missing: list[tuple[float, Suspect]] = []

    def add(self, positions: np.ndarray, probabilities: np.ndarray, targets: np.ndarray) -> None:
        """Adds the predictions of n images.

        Args:
            positions: Integers [n].
            probabilities: Floats [n, C].
            targets: Floats [n, C]: confidences of the labels, -1 where nobody knows.
        """
        given = targets >= self._threshold
        absent = targets == 0
        for is_given, chosen in ((True, given), (False, absent)):
            # Where a label is given, its own probability; elsewhere, that of its absence.
            confidence = probabilities if is_given else 1 - probabilities
            self._sums[is_given] += (confidence * chosen).sum(0)
            self._counts[is_given] += chosen.sum(0)
        self._wrong = self._best(
            self._wrong, positions, probabilities, np.where(given, 1 - probabilities, -1.0)
        )
        if not self._single:
            self._missing = self._best(
                self._missing, positions, probabilities, np.where(absent, probabilities, -1.0)
            )

    def add_found(self, other: "SuspectFinder") -> None:
        """Adds what another finder collected, of other images."""
        for is_given in (True, False):
            self._sums[is_given] += other._sums[is_given]
            self._counts[is_given] += other._counts[is_given]
        self._wrong = self._strongest(self._wrong, other._wrong)
        self._missing = self._strongest(self._missing, other._missing)

    def ranked(self, problem: Problem) -> Iterator[Suspect]:
        """Yields the suspect labels, the strongest suspicion first."""
        candidates = self._wrong if problem == "wrong" else self._missing
        # The thresholds are means over all images, so candidates can be judged only now.
        least = self._confident(is_given=problem == "missing")
        for score, suspect in sorted(candidates, key=lambda one: (-one[0], one[1])):
            if score >= least[suspect.class_]:
                yield suspect

    def _confident(self, *, is_given: bool) -> np.ndarray:
        """Returns the mean probability of labels as given; infinite for classes without them."""
        counts = self._counts[is_given]
        means = self._sums[is_given] / np.maximum(counts, 1)
        return np.where(counts > 0, means, np.inf)

    def _best(
        self,
        kept: list[tuple[float, Suspect]],
        positions: np.ndarray,
        probabilities: np.ndarray,
        scores: np.ndarray,
    ) -> list[tuple[float, Suspect]]:
        """Returns the strongest of the candidates so far and the new ones."""
        count = min(self._kept, scores.size)
        # Bounded before any Python object is made: a batch has n x C scores.
        flat = np.argpartition(scores, -count, axis=None)[-count:]
        flat = flat[scores.ravel()[flat] > 0]  # -1 marks labels that are no candidates
        rows, classes = np.unravel_index(flat, scores.shape)
        new = (
            (
                float(scores[row, class_]),
                Suspect(
                    int(positions[row]),
                    int(class_),
                    float(probabilities[row, class_]),
                    self._other_class(probabilities[row], int(class_)),
                ),
            )
            for row, class_ in zip(rows.tolist(), classes.tolist(), strict=True)
        )
        return self._strongest(kept, new)

    def _strongest(
        self, *candidates: Iterable[tuple[float, Suspect]]
    ) -> list[tuple[float, Suspect]]:
        every = itertools.chain(*candidates)
        return heapq.nlargest(self._kept, every, key=operator.itemgetter(0))

    def _other_class(self, probabilities: np.ndarray, class_: int) -> tuple[int, float] | None:
        if not self._single:
            return None
        ranked = np.argsort(-probabilities, kind="stable")[:2].tolist()
        other = next(one for one in ranked if one != class_)
        return other, float(probabilities[other])
