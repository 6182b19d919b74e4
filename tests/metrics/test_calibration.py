# SPDX-License-Identifier: BSD-3-Clause
"""The calibration error by hand and against fractions; bins, splits, and what a gather carries."""

from fractions import Fraction

import numpy as np
import pytest

from mlimages_jax.metrics.calibration import Calibration, calibrated_probability


def counted(probabilities, correct, *, bins: int = 15) -> Calibration:
    calibration = Calibration(bins)
    calibration.update(np.asarray(probabilities, np.float32), np.asarray(correct, bool))
    return calibration


def random_batch(seed: int, n: int = 500):
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(2, 1, n).astype(np.float32)
    return probabilities, rng.random(n) < probabilities**2  # too sure of itself


def test_by_hand():
    calibration = counted([0.125, 0.25, 0.75, 0.625, 1, 1], [0, 1, 1, 0, 1, 1], bins=4)
    table = calibration.table()
    assert table.images.tolist() == [2, 0, 2, 2]
    np.testing.assert_array_equal(table.probability, [0.1875, np.nan, 0.6875, 1])
    np.testing.assert_array_equal(table.accuracy, [0.5, np.nan, 0.5, 1])
    assert calibration.error() == (2 * 0.3125 + 2 * 0.1875) / 6
    assert calibration.compute() == {"calibration_error": calibration.error()}


def test_a_bin_holds_its_upper_edge_and_the_first_one_zero():
    up = [np.nextafter(np.float32(edge), np.float32(2)) for edge in (0.25, 0.5, 0.75)]
    expected = {0: 0, 1e-40: 0, 0.25: 0, up[0]: 1, 0.5: 1, up[1]: 2, 0.75: 2, up[2]: 3, 1: 3}
    for probability, place in expected.items():
        images = counted([probability], [True], bins=4).table().images
        assert np.flatnonzero(images).tolist() == [place], probability


def test_small_probabilities_are_rounded_to_the_nearest_unit():
    units = [0.25, 0.75, 1.75, 7 + 2**-10]
    means = [counted([unit / 2**24], [True]).table().probability[0] for unit in units]
    assert means == [0, 1 / 2**24, 2 / 2**24, 7 / 2**24]


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_against_fractions(bins):
    probabilities, correct = random_batch(bins)
    edges = np.arange(bins + 1) / np.float32(bins)  # each rounded to one side or the other
    probabilities[: bins + 1] = edges.astype(np.float32)
    members = [[] for _ in range(bins)]
    for probability, right in zip(probabilities.tolist(), correct.tolist(), strict=True):
        place = next(m for m in range(bins) if Fraction(probability) <= Fraction(m + 1, bins))
        members[place].append((probability, right))
    calibration = counted(probabilities, correct, bins=bins)
    table = calibration.table()
    assert table.images.tolist() == [len(pairs) for pairs in members]
    means = [np.mean(pairs, axis=0) if pairs else [np.nan] * 2 for pairs in members]
    np.testing.assert_allclose(np.stack([table.probability, table.accuracy], 1), means, atol=1e-7)
    error = sum(len(p) / 500 * abs(m[0] - m[1]) for p, m in zip(members, means, strict=True) if p)
    assert calibration.error() == pytest.approx(error, abs=1e-7)
    assert error > 0.05


def test_batches_and_hosts_give_the_same_bits():
    probabilities, correct = random_batch(1)
    at_once = counted(probabilities, correct)
    for parts in (2, 7, 500):
        order = np.random.default_rng(parts).permutation(500)
        hosts = [Calibration() for _ in range(2)]
        for i, rows in enumerate(np.array_split(order, parts)):
            hosts[i % 2].update(probabilities[rows], correct[rows])
        total = Calibration()
        for host in hosts:
            total.add_sums({name: v.astype(np.int32) for name, v in host.sums().items()})
        np.testing.assert_equal(total.sums(), at_once.sums())
        np.testing.assert_equal(total.table(), at_once.table())
        assert total.compute() == at_once.compute()
    assert total.sums()["counts"].dtype == np.int64


def test_32_bits_carry_as_many_predictions_as_there_may_be():
    host = counted([1, 0.75], [True, False], bins=1)
    for times in range(36):
        host.add_sums(host.sums())
        if times == 30:
            part = host.sums()
    host.add_sums(part)
    carried = host.sums()["counts"].astype(np.int32)
    np.testing.assert_array_equal(carried, host.sums()["counts"])
    total = Calibration(1)
    total.add_sums({"counts": carried})
    assert total.table().images.tolist() == [2**37 + 2**32]
    assert total.table().probability.tolist() == [0.875]
    assert total.error() == 0.375


def test_many_predictions_at_once_are_all_counted():
    count = 2 * 2**16 + 3
    correct = np.arange(count) >= count - 5
    calibration = counted(np.full(count, 0.75), correct, bins=4)
    assert calibration.table().images.tolist() == [0, 0, count, 0]
    assert calibration.table().probability[2] == 0.75
    assert calibration.table().accuracy[2] == 5 / count


def test_sums_and_tables_are_snapshots():
    probabilities, correct = random_batch(2)
    calibration = counted(probabilities, correct)
    sums, table = calibration.sums()["counts"], calibration.table()
    copies = sums.copy(), table.images.copy()
    calibration.update(probabilities, correct)
    np.testing.assert_array_equal(sums, copies[0])
    np.testing.assert_array_equal(table.images, copies[1])


def test_the_probability_of_a_weighted_logit_by_hand():
    # s = 12/13 under weight 12: s / (s + 12 (1 - s)) = 1/2; s = 1/2: 1/13.
    logits = np.log([[12.0, 1.0]])
    weighted = calibrated_probability(logits, positive_weight=12.0)
    np.testing.assert_allclose(weighted, [[1 / 2, 1 / 13]], rtol=1e-6)
    assert weighted.dtype == np.float32
    plain = calibrated_probability(logits, positive_weight=1.0)
    np.testing.assert_allclose(plain, [[12 / 13, 1 / 2]], rtol=1e-6)
    extremes = calibrated_probability(np.array([-3e38, 3e38]), positive_weight=12.0)
    assert extremes.tolist() == [0, 1]


@pytest.mark.parametrize("weight", [1.0, 12.0, 0.25])
def test_small_and_large_probabilities_keep_their_digits(weight):
    """Against float64: sigmoid(x - log w) by tanh was 0 below -17, and wrong below -12."""
    logits = np.concatenate([np.linspace(-85, 85, 2001), [-12.5, -30, 12.5]]).astype(np.float32)
    found = calibrated_probability(logits, positive_weight=weight)
    expected = 1 / (1 + weight * np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(found, expected, rtol=5e-7)
    assert (np.diff(found[:2001]) >= 0).all() and (found > 0).all() and (found <= 1).all()
    alone = [calibrated_probability(logit, positive_weight=weight) for logit in logits[:5]]
    np.testing.assert_array_equal(alone, found[:5])


def test_logits_that_are_no_numbers_stay_so():
    found = calibrated_probability(np.array([np.nan, -np.inf, np.inf]), positive_weight=12.0)
    np.testing.assert_array_equal(found, [np.nan, 0, 1])


def test_nothing_seen():
    calibration = counted([], [])
    assert np.isnan(calibration.compute()["calibration_error"])
    assert np.isnan(calibration.table().accuracy).all()
    assert np.isnan(calibration.table().probability).all()
    assert calibration.table().images.tolist() == [0] * 15


@pytest.mark.parametrize("bad", [-0.5, 1.5, np.nan, np.inf])
def test_what_is_no_probability(bad):
    calibration = Calibration()
    with pytest.raises(ValueError, match=f"probability 1 is {bad}, .* not logits"):
        calibration.update(np.array([0.5, bad]), np.array([True, True]))
    assert not calibration.sums()["counts"].any()


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="bins=0 must be positive"):
        Calibration(0)
    with pytest.raises(ValueError, match=r"\(2,\) and correct \(3,\) must both be \[m\]"):
        counted([0.5, 0.5], [True, True, True])
    with pytest.raises(ValueError, match=r"\(1, 1\) and correct \(1, 1\)"):
        counted([[0.5]], [[True]])
