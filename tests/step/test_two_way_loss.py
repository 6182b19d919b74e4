# SPDX-License-Identifier: BSD-3-Clause
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax import settings
from mlimages_jax.settings import build
from mlimages_jax.step.accumulation import Accumulation, mean_over_parts
from mlimages_jax.step.two_way_loss import two_way_loss
from tests.support.small_run import small_config

KEY = jax.random.key(0)


@functools.partial(
    jax.jit,
    static_argnames=("train", "group_size", "positive_temperature", "negative_temperature"),
)
def _loss(logits, targets, *, train=True, **settings):
    return two_way_loss(logits, targets, None, key=KEY, train=train, **settings)[0]


_GRADIENT = jax.jit(jax.value_and_grad(_loss))


def _of_set(scores, labels, tp, tn):
    """softplus of the paper's two sums, in Python's floats, of one row or one class."""
    present = [math.exp(-x / tp) for x, y in zip(scores, labels, strict=True) if y > 0]
    absent = [math.exp(x / tn) for x, y in zip(scores, labels, strict=True) if y == 0]
    if not absent:
        return 0.0
    return math.log1p(math.exp(tp * math.log(sum(present)) + tn * math.log(sum(absent))))


def _by_sets(logits, targets, *, group_size, tp=4.0, tn=1.0):
    """The loss as the paper has it, independent of the tested code."""
    groups = []
    for start in range(0, len(logits), group_size):
        x, y = (part[start : start + group_size].tolist() for part in (logits, targets))
        ways = []
        for scores, labels in ((x, y), (list(zip(*x, strict=True)), list(zip(*y, strict=True)))):
            found = [
                _of_set(s, t, tp, tn)
                for s, t in zip(scores, labels, strict=True)
                if any(label > 0 for label in t)
            ]
            ways.append(sum(found) / len(found) if found else 0.0)
        groups.append(sum(ways))
    return sum(groups) / len(groups)


def _drawn(rows=12):
    """Logits and targets with unknown labels, rows and classes without positives, and without
    negatives."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (rows, 7)).astype(np.float32)
    targets = rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=(rows, 7))
    targets[:, 5] = 1
    targets[0] = -1  # padding
    targets[1] = [0, 0, 0, -1, 0, -1, 0]
    targets[2] = 1
    targets[3] = [-1, 1, -1, -1, -1, -1, -1]
    targets[:, 4] = np.minimum(targets[:, 4], 0)  # a class that no image has
    return logits, targets.astype(np.float32)


@pytest.mark.parametrize(("group_size", "tp", "tn"), [(12, 4, 1), (4, 4, 1), (1, 1, 0.5)])
def test_the_loss_is_the_papers(group_size, tp, tn):
    logits, targets = _drawn()
    ours = _loss(
        logits, targets,
        group_size=group_size, positive_temperature=tp, negative_temperature=tn,
    )  # fmt: skip
    expected = _by_sets(logits, targets, group_size=group_size, tp=tp, tn=tn)
    np.testing.assert_allclose(ours, expected, rtol=2e-6)


def test_by_hand():
    # Rows: log(1 + e^(0 - 2)), log(1 + e^(0 - 1)). Classes: the first is present in row 0 only,
    # log(1 + e^(0 - 2)); the second in row 1 only, log(1 + e^(0 - 1)).
    logits, targets = jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.eye(2)
    rows = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    np.testing.assert_allclose(_loss(logits, targets), 2 * rows, rtol=1e-6)
    np.testing.assert_allclose(_loss(logits, targets, train=False), rows, rtol=1e-6)


def test_nothing_known_or_present_costs_nothing_and_moves_nothing():
    for targets in (jnp.full((2, 3), -1.0), jnp.zeros((2, 3))):
        value, gradient = _GRADIENT(jnp.ones((2, 3)), targets)
        assert value == 0 and (gradient == 0).all()


def test_mixed_images_weigh_in_both_sums():
    """softplus(4 log .25 e^(-x / 4) + log .75 e^x) = softplus(log .75 / 256), at any x."""
    expected = 2 * math.log1p(0.75 / 256)
    for logit in (-3.0, 0.0, 5.0):
        found = _loss(jnp.array([[logit]]), jnp.array([[0.25]]))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_large_logits_give_finite_losses_and_gradients(scale, dtype):
    logits, targets = _drawn()
    value, gradient = _GRADIENT(jnp.asarray(logits * scale, dtype), targets)
    assert value.dtype == jnp.float32 and np.isfinite(value)
    assert gradient.dtype == dtype and np.isfinite(np.asarray(gradient, np.float32)).all()
    if scale == 1e6:  # softplus is the identity: the hardest pairs
        rounded = np.asarray(jnp.asarray(logits * scale, dtype), np.float64)
        rows = [
            max(row[t == 0], default=-np.inf) - min(row[t > 0])
            for row, t in zip(rounded, targets, strict=True)
            if (t > 0).any()
        ]
        expected = np.mean(np.maximum(rows, 0))
        found = _loss(rounded, targets, train=False) * 12 / 10  # two rows have no present class
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_logit_in_bfloat16_is_summed_in_float32():
    logits, targets = _drawn()
    short = jnp.asarray(logits, jnp.bfloat16)
    np.testing.assert_array_equal(_loss(short, targets), _loss(short.astype(jnp.float32), targets))


@pytest.mark.slow
def test_parts_of_whole_groups_give_the_loss_and_gradient_of_the_batch():
    logits, targets = map(jnp.asarray, _drawn(rows=16))
    function = jax.value_and_grad(functools.partial(_loss, group_size=4))
    value, gradient = function(logits, targets)
    parts = Accumulation(2, unit=4, devices=2)
    split = tuple(parts.split(array, 16) for array in (logits, targets))

    mean, gradients = mean_over_parts(lambda part: function(*part), split)
    np.testing.assert_allclose(mean, value, rtol=1e-6)
    np.testing.assert_allclose(parts.join(gradients, 16) / 2, gradient, atol=1e-7)


def test_an_evaluation_reports_the_rows_alone():
    """As in the training, whose loss has groups, row by row."""
    logits, targets = _drawn()
    config = small_config("unused", **{"loss.name": "two_way"})
    loss, groups = build.loss(settings.checked(config))
    assert groups is None and loss.keywords["group_size"] == config.group_size

    def one(x, y):
        return loss(x[None], y[None], None, key=KEY, train=False)[0]

    rows = jax.jit(jax.vmap(one))(logits, targets)
    np.testing.assert_allclose(np.mean(rows), _loss(logits, targets, train=False), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss.two_way.group_size": 5}, "batch_size=16 is not divisible by loss.two_way.group"),
        ({"loss.two_way.group_size": 16}, "accumulate=2: batch_size=16 is not 2 equal parts of"),
        ({"group_size": 0}, "accumulate=2: batch_size=16 is not 2 equal parts of whole groups"),
        (
            {"resize": ((4, 32, 12),), "loss.two_way.group_size": 8, "accumulate": 1},
            "batch_size=12 is not divisible by loss.two_way.group_size=8",
        ),
        ({"loss.two_way.positive_temperature": 0.0}, "positive_temperature=0.0: give a number"),
    ],
)
def test_groups_that_cannot_be_whole_are_refused(changes, message):
    """A comparison over images that are computed apart would not be exact."""
    values = {"loss.name": "two_way", "accumulate": 2, **changes}
    with pytest.raises(settings.ConfigError, match=message):
        settings.checked(small_config("unused", **values))


def test_groups_of_the_loss_may_be_larger_than_those_of_the_network():
    changes = {"loss.name": "two_way", "loss.two_way.group_size": 8, "accumulate": 2}
    config = settings.checked(small_config("unused", **changes))
    assert build.loss(config)[0].keywords["group_size"] == 8
    assert build.accumulation(config, devices=1).unit == 8
    whole = small_config("unused", **{"loss.name": "two_way", "group_size": 0})
    # The batch of a later stage may be another one.
    assert build.loss(settings.checked(whole))[0].keywords["group_size"] is None
