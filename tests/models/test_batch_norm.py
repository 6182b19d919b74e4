# SPDX-License-Identifier: BSD-3-Clause
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.models.batch_norm import GroupBatchNorm, one_pass_moments, two_pass_moments


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


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_statistics_of_one_pass_equal_those_of_two(offset):
    """Also where the mean is a thousand deviations: unshifted squares would lose all digits."""
    x = np.random.default_rng(0).normal(offset, 1.0, (2, 8, 5, 5, 3)).astype(np.float32)
    exact = x.astype(np.float64)
    for moments in (one_pass_moments, two_pass_moments):
        mean, var = moments(jnp.asarray(x))
        np.testing.assert_allclose(mean, exact.mean((1, 2, 3)), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(var, exact.var((1, 2, 3)), rtol=1e-4)


def test_gradients_of_one_pass_equal_those_of_two():
    x = jax.random.normal(jax.random.key(2), (2, 4, 3, 3, 5)) + 3

    def weighted(x, moments):
        mean, var = moments(x)
        return (jnp.sin(mean) * jnp.sqrt(var)).sum()

    one, two = (jax.grad(weighted)(x, moments) for moments in (one_pass_moments, two_pass_moments))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_equal_values_have_no_negative_variance():
    _, var = one_pass_moments(jnp.full((1, 32, 7, 7, 4), 0.1, jnp.bfloat16))
    np.testing.assert_array_equal(var, 0)
