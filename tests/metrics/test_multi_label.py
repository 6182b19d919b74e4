# SPDX-License-Identifier: BSD-3-Clause
"""All metrics together: how targets count, padding, splits into batches and hosts, errors."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mlimages_jax.metrics.average_precision import IGNORED, NEGATIVE, POSITIVE
from mlimages_jax.metrics.multi_label import MultiLabelMetrics, judge
from mlimages_jax.metrics.single_label import SingleLabelMetrics

CLASSES = 20
PATHS = np.array([[i, (i - 1) // 2 if i else -1] for i in range(CLASSES)], np.int32)


def random_batch(seed: int, n: int = 60):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, CLASSES)).astype(np.float32)
    values = np.array([-1, 0, 0.3, 0.7, 1], np.float32)
    targets = rng.choice(values, size=(n, CLASSES), p=[0.1, 0.65, 0.05, 0.1, 0.1])
    targets[:, 4] = 0  # no positives
    return scores, targets


def measured(scores, targets, mask=None, *, exact: bool = True) -> MultiLabelMetrics:
    metrics = MultiLabelMetrics(CLASSES, PATHS, exact=exact)
    metrics.update(scores, targets, mask)
    return metrics


def test_how_targets_count():
    targets = np.array([[-1, 0, 0.1, 0.69, 0.7, 1]], np.float32)
    _, states = judge(np.zeros((1, 6)), targets, None, threshold=0.7)
    assert states.tolist() == [[IGNORED, NEGATIVE, IGNORED, IGNORED, POSITIVE, POSITIVE]]
    # A threshold that comes as float64 is above the float32 0.7 unless it is rounded alike.
    _, states = judge(np.zeros((1, 6)), targets, None, threshold=np.float64(0.7))
    assert states[0, 4] == POSITIVE
    _, states = judge(np.zeros((1, 6)), targets, None, threshold=0.1)
    assert states.tolist() == [[IGNORED, NEGATIVE, POSITIVE, POSITIVE, POSITIVE, POSITIVE]]


def test_the_threshold_is_an_argument():
    scores, targets = random_batch(13)
    metrics = MultiLabelMetrics(CLASSES, PATHS, threshold=0.3)
    metrics.update(scores, targets)
    softer = np.where(targets > 0, np.float32(1), targets)
    assert metrics.compute() == measured(scores, softer).compute()
    assert metrics.compute() != measured(scores, targets).compute()


def test_names_and_values():
    scores, targets = random_batch(0)
    metrics = measured(scores, targets)
    result = metrics.compute()
    assert set(result) == {
        *("mAP", "mAP_classes", "examples"),
        *(f"{name}@{k}" for name in ("precision", "recall", "f1") for k in (5, 10)),
        *(f"hierarchical_{name}" for name in ("precision", "recall", "f1")),
    }
    expected = [
        average_precision_score(target[used] >= np.float32(0.7), score[used])
        for score, target in zip(scores.T, targets.T, strict=True)
        for used in [(target == 0) | (target >= np.float32(0.7))]
        if target.max() >= np.float32(0.7)
    ]
    assert result["mAP"] == pytest.approx(np.mean(expected))
    assert result["mAP_classes"] == len(expected) == CLASSES - 1
    assert np.flatnonzero(np.isnan(metrics.per_class_ap())).tolist() == [4]
    assert result["examples"] == 60


def test_perfect_scores():
    _, targets = random_batch(1)
    result = measured(targets, targets).compute()
    assert result["mAP"] == 1
    assert result["recall@10"] == pytest.approx(1)  # no image has more than ten positives
    assert (targets >= np.float32(0.7)).sum(axis=1).max() <= 10


@pytest.mark.parametrize("exact", [True, False])
def test_only_the_order_within_an_example_or_class_matters(exact):
    scores, targets = random_batch(2)
    result, doubled = (measured(s, targets, exact=exact).compute() for s in (scores, 2 * scores))
    if not exact:
        assert abs(result["mAP"] - doubled["mAP"]) <= (
            result["mAP_error_bound"] + doubled["mAP_error_bound"]
        )
        for name in ("mAP", "mAP_error_bound"):
            result.pop(name), doubled.pop(name)
    assert result == doubled


def test_what_is_ignored_may_score_anything():
    scores, targets = random_batch(3)
    ignored = (targets == -1) | (targets == np.float32(0.3))
    changed = np.where(ignored, np.float32(50), scores)
    assert measured(changed, targets).compute() == measured(scores, targets).compute()


@pytest.mark.parametrize("exact", [True, False])
def test_padding_rows_do_not_count(exact):
    scores, targets = random_batch(4)
    mask = np.ones(70, bool)
    mask[60:] = False
    padded = np.concatenate([scores, np.full((10, CLASSES), np.nan, np.float32)])
    padded_targets = np.concatenate([targets, np.ones((10, CLASSES), np.float32)])
    assert (
        measured(padded, padded_targets, mask, exact=exact).compute()
        == measured(scores, targets, exact=exact).compute()
    )


@pytest.mark.parametrize("exact", [True, False])
def test_batches_and_hosts_give_the_same_bits(exact):
    scores, targets = random_batch(5)
    at_once = measured(scores, targets, exact=exact)
    order = np.random.default_rng(0).permutation(60)
    hosts = [MultiLabelMetrics(CLASSES, PATHS, exact=exact) for _ in range(2)]
    for i, rows in enumerate(np.array_split(order, 6)):
        hosts[i % 2].update(scores[rows], targets[rows])
    # As a gather between hosts does it: equal shapes, stacked.
    gathered = {name: np.stack([h.sums()[name] for h in hosts]) for name in hosts[0].sums()}
    total = MultiLabelMetrics(CLASSES, PATHS, exact=exact)
    for host in range(2):
        total.add_sums({name: values[host] for name, values in gathered.items()})
    assert total.compute() == at_once.compute()
    hosts[0].merge(hosts[1])
    assert hosts[0].compute() == at_once.compute()


def test_hosts_with_padding_hand_over_equal_shapes():
    scores, targets = random_batch(6)
    full, padded = measured(scores, targets), measured(scores, targets, np.arange(60) < 7)
    shapes = [{name: v.shape for name, v in m.sums().items()} for m in (full, padded)]
    assert shapes[0] == shapes[1]


def test_sums_are_a_snapshot():
    scores, targets = random_batch(7)
    for exact in (True, False):
        metrics = measured(scores, targets, exact=exact)
        before = metrics.sums()
        copies = {name: values.copy() for name, values in before.items()}
        metrics.update(scores, targets)
        for name, values in before.items():
            np.testing.assert_array_equal(values, copies[name])


def test_the_binned_map_is_within_its_bound():
    scores, targets = random_batch(8)
    exact, binned = (measured(scores, targets, exact=e).compute() for e in (True, False))
    assert abs(exact["mAP"] - binned["mAP"]) <= binned.pop("mAP_error_bound") < 0.05
    for name in set(exact) - {"mAP"}:
        assert exact[name] == binned[name]


def test_fewer_classes_than_places():
    metrics = MultiLabelMetrics(3)
    metrics.update(np.array([[3.0, 2, 1]]), np.array([[1.0, 0, 1]]))
    result = metrics.compute()
    assert (result["precision@5"], result["recall@5"]) == (2 / 5, 1)
    assert "hierarchical_f1" not in result


def test_the_calibration_is_of_every_judged_class():
    """Weight 3: logit log 3 means 1/2, log 1 means 1/4, log 9 means 3/4."""
    metrics = MultiLabelMetrics(4, positive_weight=3.0)
    scores = np.log([[3.0, 1, 9, 9], [1, 1, 9, 3]])
    targets = np.array([[1, 0, 0.3, -1], [0, 1, 0.7, 1]], np.float32)
    metrics.update(scores, targets)
    padding = np.full((1, 4), np.nan)
    metrics.update(padding, np.ones((1, 4)), np.array([False]))
    table = metrics.calibration.table()
    used = np.flatnonzero(table.images)
    assert table.images[used].tolist() == [3, 2, 1]
    np.testing.assert_allclose(table.probability[used], [1 / 4, 1 / 2, 3 / 4], atol=1e-6)
    np.testing.assert_allclose(table.accuracy[used], [1 / 3, 1, 1])
    expected = (3 * (1 / 3 - 1 / 4) + 2 * (1 / 2) + 1 / 4) / 6
    assert metrics.compute()["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_the_calibration_adds_over_hosts_and_changes_nothing_else():
    scores, targets = random_batch(14)
    total, other = (MultiLabelMetrics(CLASSES, PATHS, positive_weight=12.0) for _ in range(2))
    total.update(scores[:10], targets[:10])
    other.update(scores[10:], targets[10:])
    total.merge(other)
    at_once = MultiLabelMetrics(CLASSES, PATHS, positive_weight=12.0)
    at_once.update(scores, targets)
    result = at_once.compute()
    assert total.compute() == result
    assert 0 < result.pop("calibration_error") < 1
    assert result == measured(scores, targets).compute()
    assert measured(scores, targets).calibration is None


def test_nothing_seen():
    result = MultiLabelMetrics(CLASSES, PATHS).compute()
    assert result.pop("examples") == result.pop("mAP_classes") == 0
    assert all(np.isnan(value) for value in result.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(bad):
    scores, targets = random_batch(9)
    scores[3, 7] = bad
    with pytest.raises(ValueError, match=f"row 3, class 7 is {bad}"):
        measured(scores, targets)


@pytest.mark.parametrize("bad", [-0.5, -2, 1.5, 255, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metrics", [MultiLabelMetrics(3), SingleLabelMetrics(3)])
def test_targets_that_are_none(metrics, bad):
    scores, targets = np.zeros((2, 3)), np.zeros((2, 3), np.float32)
    targets[1, 2] = bad
    message = rf"target of row 1, class 2 is {np.float32(bad)}: give 1 or a confidence from 0 to 1"
    with pytest.raises(ValueError, match=message):
        metrics.update(scores, targets)
    metrics.update(scores, targets, np.array([True, False]))  # padding rows may hold anything
    assert not any(values.any() for name, values in metrics.sums().items() if "positives" in name)


def test_arguments_that_do_not_fit():
    scores, targets = random_batch(10)
    with pytest.raises(ValueError, match=r"\(60, 20\) and targets \(59, 20\)"):
        measured(scores, targets[1:])
    with pytest.raises(ValueError, match="one entry for each of 60 rows"):
        measured(scores, targets, np.ones(59, bool))
    with pytest.raises(ValueError, match=r"threshold=0 must be in \(0, 1\]"):
        MultiLabelMetrics(CLASSES, threshold=0)
    with pytest.raises(ValueError, match="paths has 20 rows for 21 classes"):
        MultiLabelMetrics(21, PATHS)
