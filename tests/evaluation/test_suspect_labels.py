# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.evaluation.suspect_labels import SuspectFinder

# Class 0 is given to images 0, 1 and 2, with a mean probability of 0.6 there; where it is not
# given, its absence has a mean probability of 0.7.
PROBABILITIES = np.array([[0.9, 0.5], [0.8, 0.5], [0.1, 0.5], [0.7, 0.5], [0.2, 0.5], [0.0, 0.5]])
TARGETS = np.array([[1, -1], [1, -1], [0.8, -1], [0, -1], [0, -1], [0, -1]], float)


def _finder(**settings):
    return SuspectFinder(2, threshold=0.7, **settings)


def _add(finder, batches):
    for rows in np.array_split(np.arange(6), batches):
        finder.add(rows + 10, PROBABILITIES[rows], TARGETS[rows])
    return finder


@pytest.mark.parametrize("batches", [1, 2, 6])
def test_worked_by_hand(batches):
    finder = _add(_finder(), batches)
    (wrong,) = finder.ranked("wrong")
    assert wrong == (12, 0, 0.1, None)  # absent with 0.9, at least 0.7
    (missing,) = finder.ranked("missing")
    assert missing[:3] == (13, 0, 0.7)  # at least 0.6; image 14 with 0.2 is not


@pytest.mark.parametrize("kept", [1, 100])
def test_finders_of_parts_find_together_what_one_finds(kept):
    whole, together = _add(_finder(kept=kept), 3), _finder(kept=kept)
    for rows in np.array_split(np.arange(6), 3):
        part = _finder(kept=kept)
        part.add(rows + 10, PROBABILITIES[rows], TARGETS[rows])
        together.add_found(part)
    for problem in ("wrong", "missing"):
        assert list(together.ranked(problem)) == list(whole.ranked(problem))


def test_what_nobody_knows_is_never_suspect():
    finder = _add(_finder(), 1)
    assert not [one for p in ("wrong", "missing") for one in finder.ranked(p) if one.class_ == 1]


def test_classes_without_labels_and_without_others_have_no_suspects():
    finder = _finder()
    finder.add(np.arange(2), np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[0.0, 1], [0, 1]]))
    assert not list(finder.ranked("wrong")) and not list(finder.ranked("missing"))


def test_only_the_strongest_are_kept():
    finder = _finder(kept=1)
    finder.add(np.arange(2), np.array([[0.2, 0.5], [0.9, 0.5]]), np.array([[1.0, 0], [1, 0]]))
    finder.add(np.array([2, 3]), np.array([[0.1, 0.5], [0.4, 0.5]]), np.array([[1.0, 0], [0, 0]]))
    assert [one.position for one in finder.ranked("wrong")] == [2]


def test_with_one_class_per_image_the_other_class_is_named_and_none_is_missing():
    finder = _finder(single_label=True)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
    finder.add(np.arange(3), probabilities, np.array([[1.0, 0], [1, 0], [0, 1]]))
    # Class 0's absence has 0.9 where it is not given; the second image has 0.8 only.
    assert not list(finder.ranked("wrong"))
    finder.add(np.array([3]), np.array([[0.05, 0.95]]), np.array([[1.0, 0]]))
    (wrong,) = finder.ranked("wrong")
    assert wrong == (3, 0, 0.05, (1, 0.95))
    assert not list(finder.ranked("missing"))


def test_ranks_equal_those_of_a_plain_computation():
    rng = np.random.default_rng(0)
    probabilities = rng.random((50, 4))
    targets = rng.choice([-1.0, 0.0, 1.0], (50, 4))
    finder = SuspectFinder(4, threshold=0.5)
    finder.add(np.arange(20), probabilities[:20], targets[:20])
    finder.add(np.arange(20, 50), probabilities[20:], targets[20:])
    for problem, given, score in (
        ("wrong", 1.0, 1 - probabilities), ("missing", 0.0, probabilities),
    ):  # fmt: skip
        least = [score[targets[:, c] == 1 - given, c].mean() for c in range(4)]
        expected = sorted(
            (-score[i, c], i, c)
            for i in range(50)
            for c in range(4)
            if targets[i, c] == given and score[i, c] >= least[c]
        )
        found = [(one.position, one.class_) for one in finder.ranked(problem)]
        assert found == [(i, c) for _, i, c in expected] and found
