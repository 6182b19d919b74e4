# SPDX-License-Identifier: BSD-3-Clause
"""Average precision against hand-worked numbers, scikit-learn and a definition by loops."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mlimages_jax.metrics.average_precision import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    BinnedAveragePrecision,
    ExactAveragePrecision,
    average_precision,
    average_precision_bounds,
    score_bins,
)

FAST = hypothesis.settings(max_examples=200, deadline=None, derandomize=True)


def by_definition(scores: np.ndarray, states: np.ndarray) -> float:
    """Walk down the distinct scores: sum of (gain in recall) x (precision)."""
    value, recall_before = 0.0, 0.0
    for cut in sorted(set(scores[states != IGNORED].tolist()), reverse=True):
        taken = [s for x, s in zip(scores, states, strict=True) if x >= cut and s != IGNORED]
        hits = sum(s == POSITIVE for s in taken)
        recall = hits / np.sum(states == POSITIVE)
        value += (recall - recall_before) * hits / len(taken)
        recall_before = recall
    return value


def random_set(seed: int, n: int = 200, classes: int = 7, levels: int = 1_000):
    """Scores on a grid (few levels: many ties), some ignored, the last class without positives."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-levels, levels + 1, (n, classes)) * (8 / levels)).astype(np.float32)
    states = rng.choice([1, 0, -1], size=(n, classes), p=[0.15, 0.7, 0.15]).astype(np.int8)
    states[:, -1] = np.minimum(states[:, -1], NEGATIVE)
    return scores, states


def test_worked_by_hand():
    # Falling: + - + -  ->  (1/1 + 2/3) / 2
    scores = np.array([4, 3, 2, 1], np.float32)
    assert average_precision(scores, np.array([1, 0, 1, 0])) == pytest.approx(5 / 6)
    # The same with an ignored example on top: nothing changes.
    assert average_precision(np.r_[np.float32(9), scores], np.array([-1, 1, 0, 1, 0])) == (
        average_precision(scores, np.array([1, 0, 1, 0]))
    )
    # Two tied at the top, one positive: it needs both, 1/2; the last positive comes at 2/3.
    tied = np.array([2, 2, 1], np.float32)
    assert average_precision(tied, np.array([1, 0, 1])) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_all_scores_equal_gives_the_share_of_positives():
    states = np.array([1, 0, 0, 0, 1, -1, -1, 0])
    assert average_precision(np.zeros(8, np.float32), states) == pytest.approx(2 / 6)


def test_no_positive_is_nan():
    assert np.isnan(average_precision(np.ones(3, np.float32), np.array([0, -1, 0])))


@pytest.mark.parametrize("levels", [1, 5, 1_000])
def test_against_scikit_learn_and_the_definition(levels):
    scores, states = random_set(seed=levels, levels=levels)
    exact = ExactAveragePrecision(scores.shape[1])
    exact.update(scores, states)
    per_class = exact.per_class()
    for one, score, state in zip(per_class[:-1], scores.T, states.T, strict=False):
        judged = state != IGNORED
        assert one == pytest.approx(average_precision_score(state[judged], score[judged]))
        assert one == pytest.approx(by_definition(score, state))
    assert np.isnan(per_class[-1])
    assert exact.compute() == {"mAP": np.mean(per_class[:-1]), "mAP_classes": 6}


@pytest.mark.parametrize("kind", [ExactAveragePrecision, BinnedAveragePrecision])
def test_batches_hosts_and_order_do_not_change_a_bit(kind):
    scores, states = random_set(seed=0, n=300, classes=130)  # 130: more than one block of classes
    at_once = kind(130)
    at_once.update(scores, states)
    order = np.random.default_rng(1).permutation(300)
    hosts = [kind(130), kind(130)]
    for i, rows in enumerate(np.array_split(order, 7)):
        hosts[i % 2].update(scores[rows], states[rows])
    total = kind(130)
    for host in hosts:
        total.add_sums(host.sums())
    np.testing.assert_array_equal(total.per_class(), at_once.per_class())
    assert total.compute() == at_once.compute()


@pytest.mark.parametrize("kind", [ExactAveragePrecision, BinnedAveragePrecision])
def test_nothing_seen_gives_nan(kind):
    empty = kind(3)
    assert np.isnan(empty.compute()["mAP"])
    assert empty.compute()["mAP_classes"] == 0
    assert np.isnan(empty.per_class()).all()


@pytest.mark.parametrize("kind", [ExactAveragePrecision, BinnedAveragePrecision])
def test_wrong_number_of_classes(kind):
    with pytest.raises(ValueError, match=r"must both be \[n, 4\]"):
        kind(4).update(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int8))


def test_exact_keeps_its_own_copy():
    scores, states = random_set(seed=2)
    exact = ExactAveragePrecision(7)
    exact.update(scores, states)
    before = exact.compute()
    scores[:] = 0
    assert exact.compute() == before


def test_bounds_worked_by_hand():
    # Rising bins: (2 judged, 1 positive), (0, 0), (3 judged, 2 positives).
    lower, rounded, upper = average_precision_bounds(np.array([2, 0, 3]), np.array([1, 0, 2]))
    assert lower == pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)  # - + +  |  - +
    assert rounded == pytest.approx((2 / 3 + 2 / 3 + 3 / 5) / 3)  # everything in a bin equal
    assert upper == pytest.approx((1 + 1 + 3 / 4) / 3)  # + + -  |  + -


def test_upper_bound_needs_tied_positives():
    """- | + + -: two positives with one score reach 2/3 each; apart, the first has only 1/2."""
    states = np.array([0, 1, 1, 0])
    tied = average_precision(np.array([9, 5, 5, 4], np.float32), states)
    assert tied > average_precision(np.array([9, 5.5, 5, 4], np.float32), states)
    assert average_precision_bounds(np.array([3, 1]), np.array([2, 0]))[2] == tied


SCORES = st.floats(-20, 20, width=32) | st.sampled_from([-1e30, -1e-30, 1e-30, 1e30])


@FAST
@hypothesis.given(
    rows=st.lists(st.tuples(SCORES, st.sampled_from([1, 0, -1])), min_size=1),
    levels=st.sampled_from([None, 3.0, 0.5]),
    bins=st.sampled_from([1, 3, 64]),
)
def test_exact_value_lies_within_the_bounds(rows, levels, bins):
    scores = np.array([[score] for score, _ in rows], np.float32)
    if levels:
        scores = np.round(scores / levels) * np.float32(levels)  # heavy ties
    states = np.array([[state] for _, state in rows], np.int8)
    binned = BinnedAveragePrecision(1, bins=bins)
    binned.update(scores, states)
    exact = average_precision(scores[:, 0], states[:, 0])
    lower, rounded, upper = binned.bounds()[0]
    if np.isnan(exact):
        assert np.isnan([lower, rounded, upper]).all()
        return
    assert lower - 1e-12 <= exact <= upper + 1e-12
    assert lower - 1e-12 <= rounded <= upper + 1e-12
    result = binned.compute()
    assert abs(result["mAP"] - exact) <= result["mAP_error_bound"] + 1e-12


def test_bins_by_hand():
    scores = np.array([-1e30, -3, -1, -0.5, -0.0, 0, 0.5, 1, 3, 1e30], np.float32)
    expected = [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]  # cuts at -1, 0 and 1
    assert score_bins(scores, bins=4, scale=1).tolist() == expected
    assert score_bins(2 * scores, bins=4, scale=2).tolist() == expected


@pytest.mark.parametrize("start", [-20.0, -1.0, -1e-6, 0.3, 7.0])
def test_a_greater_score_never_falls_into_a_lower_bin(start):
    bits = np.float32(start).view(np.int32) + np.arange(200_000, dtype=np.int32)
    neighbours = np.sort(bits.view(np.float32))  # every float32 from start on
    for scale in (0.7, 2.0):
        assert (np.diff(score_bins(neighbours, bins=2**20, scale=scale)) >= 0).all()


def test_rounded_value_is_the_exact_one_of_rounded_scores():
    scores, states = random_set(seed=3)
    binned, exact = BinnedAveragePrecision(7, bins=16), ExactAveragePrecision(7)
    binned.update(scores, states)
    exact.update(np.floor(8 * scores / (2 + np.abs(scores))), states)
    np.testing.assert_allclose(binned.per_class(), exact.per_class(), rtol=1e-12)


def test_the_error_bound_looks_both_ways():
    binned = BinnedAveragePrecision(1, bins=1)
    scores = np.arange(10, dtype=np.float32)[:, None]
    binned.update(scores, (scores < 9).astype(np.int8))  # a negative above nine positives
    exact = np.mean([r / (r + 1) for r in range(1, 10)])
    assert binned.compute()["mAP_error_bound"] == pytest.approx(9 / 10 - exact)
    assert binned.bounds()[0, 2] - 9 / 10 < 9 / 10 - exact


def test_bins_that_cannot_be():
    for wrong in ({"bins": 0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match="both must be positive"):
            BinnedAveragePrecision(3, **wrong)
