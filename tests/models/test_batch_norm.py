# SPDX-License-Identifier: BSD-3-Clause
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.models.batch_norm import GroupBatchNorm


def _apply(x, **kwargs):
    norm = GroupBatchNorm(**kwargs)
    variables = norm.init(jax.random.key(0), x, train=True)
    return norm.apply(variables, x, train=True, mutable="batch_stats")


def test_two_groups_by_hand():
    # Group 1 holds 0 and 2 (mean 1, variance 1, unbiased 2); group 2 holds 10 and 16
    # (mean 13, variance 9, unbiased 18).
    x = jnp.array([0.0, 2.0, 10.0, 16.0]).reshape(4, 1, 1, 1)
    y, updates = _apply(x, group_size=2, epsilon=0.0, momentum=0.9)
    np.testing.assert_allclose(y.ravel(), [-1, 1, -1, 1], rtol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], [0.1 * 7], rtol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["var"], [0.9 + 0.1 * 10], rtol=1e-6)


def test_epsilon_enters_the_variance():
    x = jnp.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    y, _ = _apply(x, epsilon=3.0)
    np.testing.assert_allclose(y.ravel(), [-0.5, 0.5], rtol=1e-6)


def test_groups_equal_separate_batches():
    x = jax.random.normal(jax.random.key(1), (8, 3, 3, 5)) * 3 + 1
    together, updates = _apply(x, group_size=4)
    halves = [_apply(half) for half in (x[:4], x[4:])]
    np.testing.assert_allclose(together, jnp.concatenate([y for y, _ in halves]), atol=1e-6)
    for name in ("mean", "var"):
        mean = np.mean([u["batch_stats"][name] for _, u in halves], axis=0)
        np.testing.assert_allclose(updates["batch_stats"][name], mean, rtol=1e-6)


def test_inference_uses_the_running_averages():
    x = jnp.full((2, 1, 1, 1), 5.0)
    norm = GroupBatchNorm(epsilon=0.0)
    variables = {
        "params": {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])},
        "batch_stats": {"mean": jnp.array([3.0]), "var": jnp.array([4.0])},
    }
    np.testing.assert_allclose(norm.apply(variables, x, train=False).ravel(), [3, 3])


def test_a_group_that_does_not_divide_the_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 6 is not divisible by group_size=4"):
        _apply(jnp.zeros((6, 1, 1, 1)), group_size=4)
