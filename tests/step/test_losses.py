# SPDX-License-Identifier: BSD-3-Clause
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize_scalar

from mlimages_jax.metrics.calibration import calibrated_probability
from mlimages_jax.step import losses

LOG2 = math.log(2)


def _counts(positive, negative):
    return losses.ClassCounts(
        jnp.array([positive], jnp.float32), jnp.array([negative], jnp.float32)
    )


def test_counts_by_hand():
    counts = _counts([3.0, 0.0, 0.0], [0.0, 5.0, 5.0])
    present = jnp.array([[True, False, True]])
    selected = jnp.array([[True, True, False]])
    after = losses.update_counts(counts, present, selected)
    np.testing.assert_array_equal(after.positive, [[4, 0, 1]])
    np.testing.assert_array_equal(after.negative, [[0, 6, 0]])


def test_released_coefficients_by_hand():
    present = jnp.array([[True, True, False, False, False]])
    selected = jnp.array([[False, True, True, True, False]])
    counts = _counts([0.99, 50.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0, 0.0])
    positive, negative = losses.released_coefficients(counts, present, selected)
    # log10(10 / 1) = 1; over 9.99 steps the floor .01 holds; absent ones: log10(10 / 8), and
    # log10(10 / 10) = 0 which falls to .001; an unselected class weighs nothing.
    np.testing.assert_allclose(positive, [[1, 0.01, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(negative, [[0, 0, math.log10(1.25), 0.001, 0]], rtol=1e-5)


def test_weighted_loss_by_hand():
    # Two examples, three classes, logits 0, so each element is log 2 times its weight.
    # Class 0: labels 1 and unknown, present: weight r = -log10(1.01 / 10), elements 12 and 0.
    # Class 1: labels .5 and 0, below the threshold, so absent; selected: w = -log10(.9), elements
    # .5 * 12 + .5 and 1. Class 2: absent and not selected: nothing.
    targets = jnp.array([[1.0, 0.5, 0.0], [-1.0, 0.0, 0.0]])
    loss, counts = losses.weighted_sigmoid_cross_entropy(
        jnp.zeros((2, 3)),
        targets,
        losses.initial_counts(1, 3),
        selected=jnp.array([[False, True, False]]),
    )
    positive, negative = -math.log10(0.101), -math.log10(0.9)
    np.testing.assert_allclose(loss, LOG2 * (positive * 12 + negative * 7.5) / 2, rtol=1e-6)
    np.testing.assert_array_equal(counts.positive, [[1, 0, 0]])
    np.testing.assert_array_equal(counts.negative, [[0, 1, 0]])


def test_paper_variant_weights_each_element_by_its_own_label():
    targets = jnp.array([[1.0], [0.0]])
    loss, _ = losses.weighted_sigmoid_cross_entropy(
        jnp.zeros((2, 1)),
        targets,
        losses.initial_counts(1, 1),
        selected=jnp.zeros((1, 1), bool),
        variant="paper",
    )
    positive, negative = -math.log10(0.101), -math.log10(0.8)
    np.testing.assert_allclose(loss, LOG2 * (12 * positive + negative) / 2, rtol=1e-6)


@pytest.mark.slow
def test_groups_equal_separate_workers():
    key = jax.random.key(0)
    logits = jax.random.normal(key, (8, 5))
    targets = (jax.random.uniform(key, (8, 5)) > 0.6).astype(jnp.float32)
    selected = jax.random.uniform(key, (2, 5)) > 0.5
    counts = losses.initial_counts(2, 5)
    together, after = losses.weighted_sigmoid_cross_entropy(
        logits, targets, counts, selected=selected, group_size=4
    )
    workers = [
        losses.weighted_sigmoid_cross_entropy(
            logits[rows], targets[rows], losses.initial_counts(1, 5), selected=selected[i : i + 1]
        )
        for i, rows in enumerate((slice(0, 4), slice(4, 8)))
    ]
    np.testing.assert_allclose(together, np.mean([loss for loss, _ in workers]), rtol=1e-6)
    np.testing.assert_array_equal(after.positive[1], workers[1][1].positive[0])
    assert not np.array_equal(after.positive[0], after.positive[1])


@pytest.mark.parametrize(
    "name", ["loss_a_b16_c40_thres0.7_neg0.3", "loss_b_b16_c40_thres0.7_neg0.1"]
)
def test_released_loss_equals_the_original_at_every_step(golden_dir, name):
    numbers = np.load(golden_dir / f"{name}.npz")
    counts = losses.initial_counts(1, 40)

    def evaluate(logits, targets, counts, selected):
        return losses.weighted_sigmoid_cross_entropy(
            logits,
            targets,
            counts,
            selected=selected,
            positive_weight=float(numbers["pos_weight"]),
            threshold=float(numbers["mask_thres"]),
        )

    gradient = jax.jit(jax.value_and_grad(evaluate, has_aux=True))
    elements = jax.jit(losses.sigmoid_cross_entropy, static_argnames="positive_weight")
    for step in range(len(numbers["labels"])):
        targets, selected = numbers["labels"][step], numbers["neg_select"][step][None] > 0
        (loss, counts), grads = gradient(numbers["logits"][step], targets, counts, selected)
        np.testing.assert_array_equal(counts.positive[0], numbers["pos_count"][step])
        np.testing.assert_array_equal(counts.negative[0], numbers["neg_count"][step])
        present = numbers["pos_curr_count"][step][None] > 0
        positive, negative = losses.released_coefficients(counts, present, selected)
        np.testing.assert_allclose(positive[0], numbers["pos_loss_coef"][step], atol=1e-6)
        np.testing.assert_allclose(negative[0], numbers["neg_loss_coef"][step], atol=1e-6)
        np.testing.assert_allclose(loss, numbers["cross_entropy"][step], rtol=2e-6)
        np.testing.assert_allclose(grads, numbers["grad_logits"][step], atol=1e-6)
        known = targets >= 0
        per_element = elements(numbers["logits"][step], targets, positive_weight=12.0)
        np.testing.assert_allclose(
            np.asarray(per_element)[known],
            numbers["per_element_ce"][step][known],
            rtol=1e-5,
            atol=1e-6,
        )


def test_evaluation_never_moves_the_counts():
    counts = _counts([3.0], [4.0])
    loss, after = losses.weighted_loss(
        jnp.zeros((2, 1)), jnp.ones((2, 1)), counts, key=jax.random.key(0), train=False
    )
    assert after is counts
    np.testing.assert_allclose(loss, 12 * LOG2, rtol=1e-6)


def test_selection_keeps_the_asked_share_and_is_the_keys():
    counts = losses.initial_counts(4, 5000)
    arguments = (jnp.zeros((4, 5000)), jnp.zeros((4, 5000)), counts)

    def kept(seed):
        _, after = losses.weighted_loss(
            *arguments, key=jax.random.key(seed), train=True, group_size=1
        )
        return np.asarray(after.negative)

    np.testing.assert_allclose(kept(0).mean(), 0.1, atol=0.01)
    np.testing.assert_array_equal(kept(0), kept(0))
    assert not np.array_equal(kept(0), kept(1))
    assert not np.array_equal(kept(0)[0], kept(0)[1])


def test_plain_loss_by_hand():
    logits, targets = jnp.array([[0.0, 0.0, 9.0]]), jnp.array([[1.0, 0.0, -1.0]])
    loss, _ = losses.plain_sigmoid_cross_entropy(
        logits, targets, None, key=jax.random.key(0), train=True
    )
    np.testing.assert_allclose(loss, 2 * LOG2, rtol=1e-6)


def test_asymmetric_loss_by_hand():
    # p = .5 for both: -log .5, and .45^4 * -log(.55) with the shift of .05.
    loss, _ = losses.asymmetric_loss(
        jnp.zeros((1, 3)), jnp.array([[1.0, 0.0, -1.0]]), None, key=jax.random.key(0), train=True
    )
    np.testing.assert_allclose(loss, LOG2 - 0.45**4 * math.log(0.55), rtol=1e-6)


def test_focal_loss_by_hand():
    # p = 3/4 for both: .25 (1/4)^2 -log 3/4 where present, .75 (3/4)^2 -log 1/4 where absent.
    logits, targets = jnp.full((1, 3), math.log(3)), jnp.array([[1.0, 0.0, -1.0]])
    loss, _ = losses.focal_loss(logits, targets, None, key=jax.random.key(0), train=True)
    expected = 0.25 / 16 * math.log(4 / 3) + 0.75 * 9 / 16 * math.log(4)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_focal_loss_without_focus_is_half_of_the_plain_one():
    logits, targets = jnp.array([[-2.0, 0.5, 3.0]]), jnp.array([[1.0, 0.0, 0.4]])
    arguments = {"key": jax.random.key(0), "train": True}
    plain, _ = losses.plain_sigmoid_cross_entropy(logits, targets, None, **arguments)
    focal, _ = losses.focal_loss(logits, targets, None, gamma=0.0, alpha=0.5, **arguments)
    np.testing.assert_allclose(focal, plain / 2, rtol=1e-6)


def _value(loss, logits, targets, **kwargs):
    arguments = {"key": jax.random.key(0), "train": True} | kwargs
    return loss(logits, targets, None, **arguments)[0]


@pytest.mark.parametrize("weight", [0.25, 1.0, 20.0])
def test_with_positive_weights_the_least_loss_is_still_at_the_probability(weight):
    """By a search over logits, for a class that is present in 7 of 10 images."""
    targets, weights = jnp.repeat(jnp.array([1.0, 0.0]), jnp.array([7, 3])), jnp.array([weight])

    def mean(logit):
        logits = jnp.full((10, 1), logit)
        return float(_value(losses.plain_sigmoid_cross_entropy, logits, targets[:, None],
                            positive_weights=weights))  # fmt: skip

    found = minimize_scalar(mean, bounds=(-8, 8), method="bounded", options={"xatol": 1e-4})
    np.testing.assert_allclose(found.x, math.log(7 / 3), atol=5e-3)


def test_positive_weights_by_hand():
    # Logit log 3 with w = 1/3 is at 0: log 2 times w where present; the other has w = 1 at 0.
    logits, targets = jnp.array([[math.log(3), 0.0, 9.0]]), jnp.array([[1.0, 0.0, -1.0]])
    weights = jnp.array([1 / 3, 1.0, 5.0])
    plain = functools.partial(losses.plain_sigmoid_cross_entropy, positive_weights=weights)
    np.testing.assert_allclose(_value(plain, logits, targets), LOG2 * 4 / 3, rtol=1e-6)
    focal = functools.partial(losses.focal_loss, gamma=0.0, alpha=0.5, positive_weights=weights)
    np.testing.assert_allclose(_value(focal, logits, targets), LOG2 * 2 / 3, rtol=1e-6)
    asymmetric = functools.partial(
        losses.asymmetric_loss, gamma_negative=0.0, clip=0.0, positive_weights=weights
    )
    np.testing.assert_allclose(_value(asymmetric, logits, targets), LOG2 * 4 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "loss", [losses.plain_sigmoid_cross_entropy, losses.asymmetric_loss, losses.focal_loss]
)
def test_weights_of_1_and_evaluations_change_nothing(loss):
    logits, targets = jnp.array([[-2.0, 0.5, 3.0]]), jnp.array([[1.0, 0.0, 0.4]])
    plain = _value(loss, logits, targets)
    np.testing.assert_allclose(
        _value(loss, logits, targets, positive_weights=jnp.ones(3)), plain, rtol=1e-6
    )
    weighted = {"positive_weights": jnp.full(3, 9.0)}
    assert _value(loss, logits, targets, train=False, **weighted) == plain
    assert abs(_value(loss, logits, targets, **weighted) - plain) > 0.01


@pytest.mark.parametrize("logit", [-200.0, -20.0, 0.0, 20.0, 200.0])
@pytest.mark.parametrize(
    "loss",
    [
        losses.plain_sigmoid_cross_entropy, losses.asymmetric_loss, losses.focal_loss,
        losses.weighted_loss,
    ],
)  # fmt: skip
def test_losses_and_gradients_stay_finite(loss, logit):
    def value(logits):
        counts = losses.initial_counts(1, 2)
        targets = jnp.array([[1.0, 0.0]])
        return loss(logits, targets, counts, key=jax.random.key(0), train=True)[0]

    assert np.isfinite(jax.value_and_grad(value)(jnp.full((1, 2), logit))[0])
    assert np.isfinite(jax.grad(value)(jnp.full((1, 2), logit))).all()


def test_asymmetric_loss_without_focus_or_clip_is_plain():
    logits = jnp.array([[-2.0, 0.5, 3.0]])
    targets = jnp.array([[1.0, 0.0, 0.4]])
    arguments = {"key": jax.random.key(0), "train": True}
    plain, _ = losses.plain_sigmoid_cross_entropy(logits, targets, None, **arguments)
    asymmetric, _ = losses.asymmetric_loss(
        logits, targets, None, gamma_negative=0.0, clip=0.0, **arguments
    )
    np.testing.assert_allclose(asymmetric, plain, rtol=1e-6)


def test_softmax_by_hand():
    loss, _ = losses.softmax_cross_entropy(
        jnp.zeros((2, 4)), jnp.eye(4)[:2], None, key=jax.random.key(0), train=True
    )
    np.testing.assert_allclose(loss, math.log(4), rtol=1e-6)


def _softmax(logits, targets, *, train=True, **smoothing):
    return losses.softmax_cross_entropy(
        logits, targets, None, key=jax.random.key(0), train=train, **smoothing
    )[0]


def test_label_smoothing_by_hand():
    # Logits log 3 and log 1: probabilities 3/4 and 1/4. With s = .2 the targets are .9 and .1.
    logits, targets = jnp.log(jnp.array([[3.0, 1.0]])), jnp.array([[1.0, 0.0]])
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    np.testing.assert_allclose(_softmax(logits, targets, label_smoothing=0.2), expected, rtol=1e-6)


def test_label_smoothing_is_optax_s():
    logits = 3 * jax.random.normal(jax.random.key(0), (6, 5))
    targets = jnp.eye(5)[jnp.array([0, 3, 1, 4, 4, 2])]
    targets = targets.at[0].set(jnp.array([0.3, 0.0, 0.7, 0.0, 0.0]))  # a mixture of two
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, 0.1)).mean()
    np.testing.assert_allclose(_softmax(logits, targets, label_smoothing=0.1), expected, rtol=1e-6)


def test_label_smoothing_leaves_rows_without_a_class_at_zero():
    logits = jnp.array([[3.0, 1.0, -2.0], [5.0, 0.0, 1.0], [0.0, 2.0, 4.0]])
    targets = jnp.array([[-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [0.0, 1.0, -1.0]])
    assert _softmax(logits[:2], targets[:2], label_smoothing=0.1) == 0
    gradient = jax.grad(_softmax)(logits, targets, label_smoothing=0.1)
    assert (gradient[:2] == 0).all() and (gradient[2] != 0).all()
    alone = _softmax(logits[2:], jnp.array([[0.0, 1.0, 0.0]]), label_smoothing=0.1)
    smoothed = _softmax(logits, targets, label_smoothing=0.1)
    np.testing.assert_allclose(smoothed, alone / 3, rtol=1e-6)


def test_without_smoothing_and_in_evaluation_the_loss_is_the_plain_one_to_the_bit():
    logits = 3 * jax.random.normal(jax.random.key(1), (6, 5))
    targets = jnp.eye(5)[jnp.array([0, 3, 1, 4, 4, 2])].at[1].set(-1.0)
    plain = optax.softmax_cross_entropy(logits, jnp.maximum(targets, 0)).mean()
    assert _softmax(logits, targets) == plain
    assert _softmax(logits, targets, label_smoothing=0.0) == plain
    assert _softmax(logits, targets, train=False, label_smoothing=0.1) == plain
    assert _softmax(logits, targets, label_smoothing=0.1) != plain


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("train", [True, False])
def test_impossible_smoothing_is_refused(smoothing, train):
    with pytest.raises(ValueError, match=f"label_smoothing={smoothing} must be"):
        _softmax(jnp.zeros((1, 2)), jnp.eye(2)[:1], train=train, label_smoothing=smoothing)


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.9])
def test_calibration_inverts_the_minimum_of_the_weighted_loss(probability):
    def loss(logit):
        target = jnp.float32(probability)
        return float(losses.sigmoid_cross_entropy(jnp.float32(logit), target, positive_weight=12.0))

    logit = minimize_scalar(loss, bounds=(-10, 10), method="bounded").x
    ours = calibrated_probability(logit, positive_weight=12.0)
    np.testing.assert_allclose(ours, probability, atol=2e-3)


def test_unknown_variants_and_missing_counts_are_refused():
    arguments = (jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    with pytest.raises(ValueError, match="neither 'released' nor 'paper'"):
        losses.weighted_sigmoid_cross_entropy(
            *arguments, losses.initial_counts(1, 1), selected=jnp.ones((1, 1), bool), variant="new"
        )
    with pytest.raises(ValueError, match="needs class counts"):
        losses.weighted_loss(*arguments, None, key=jax.random.key(0), train=True)
