# SPDX-License-Identifier: BSD-3-Clause
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlimages_jax.step import optimizers
from tests.support import reference


def _released(flags):
    """train.py's schedule; its flag lr_decay_factor is ignored there, see the test of that."""
    return optimizers.pretraining_schedule(
        learning_rate=flags["lr"],
        decay_steps=flags["lr_decay_step"],
        decay_factor=flags["lr_decay_factor"],
        warmup_steps=flags["warmup"],
        warmup_learning_rate=flags["lr_warmup"],
        warmup_decay_steps=flags["lr_warmup_decay_step"],
        warmup_decay_factor=flags["lr_warmup_decay_factor"],
    )


def test_pretraining_schedule_by_hand():
    schedule = optimizers.pretraining_schedule(
        learning_rate=1.0,
        decay_steps=10,
        decay_factor=0.1,
        warmup_steps=4,
        warmup_learning_rate=0.25,
        warmup_decay_steps=2,
        warmup_decay_factor=2.0,
    )
    rates = [float(schedule(step)) for step in (0, 1, 2, 3, 4, 10, 11, 21, 31, 41, 99)]
    expected = [0.25, 0.25, 0.5, 0.5, 1, 1, 0.1, 0.01, 1e-3, 1e-4, 1e-4]  # four drops at most
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("script", ["train.py", "finetune.py"])
def test_schedules_equal_the_original(golden_dir, script):
    numbers = json.loads((golden_dir / "learning_rates.json").read_text())[script]
    flags = numbers["flags"]
    schedule = (
        _released(flags)
        if script == "train.py"
        else optimizers.staircase_schedule(
            learning_rate=flags["lr"],
            decay_steps=flags["lr_decay_step"],
            decay_factor=flags["lr_decay_factor"],
        )
    )
    for step, rate in numbers["lr_by_global_step"].items():
        np.testing.assert_allclose(schedule(jnp.int32(step)), rate, rtol=2e-6, err_msg=step)


def test_the_originals_decay_factor_is_not_that_of_its_flag(golden_dir):
    """train.py multiplies by 0.1 whatever lr_decay_factor says; here decay_factor is used.

    The reference was made with the flag at 0.1, so that both say the same there.
    """
    numbers = json.loads((golden_dir / "learning_rates.json").read_text())["train.py"]
    assert numbers["flags"]["lr_decay_factor"] == 0.1
    other = _released({**numbers["flags"], "lr_decay_factor": 0.5})
    for step, rate in numbers["lr_by_global_step"].items():
        drops = min(max(int(step) - 1, 0) // 110_000, 4)
        factor = 5.0**drops if int(step) >= numbers["flags"]["warmup"] else 1.0
        np.testing.assert_allclose(other(jnp.int32(step)), rate * factor, rtol=5e-6, err_msg=step)


@pytest.mark.slow
def test_decay_covers_kernels_and_the_bias_as_in_the_original(golden_dir):
    numbers = json.loads((golden_dir / "weight_decay.json").read_text())["50_1000"]
    params = reference.variables(golden_dir, 50, 1000)["params"]
    train = optimizers.decay_factors(params, weight_decay=1e-4)
    finetune = optimizers.decay_factors(params, weight_decay=1e-4, norm_weight_decay=1e-5)
    np.testing.assert_allclose(
        optimizers.l2_penalty(params, train), numbers["train_penalty"], rtol=1e-5
    )
    np.testing.assert_allclose(
        optimizers.l2_penalty(params, finetune), numbers["finetune_penalty"], rtol=1e-5
    )


def test_decay_factors_by_hand():
    params = {"stem": {"kernel": 1.0}, "norm1": {"scale": 1.0}, "head": {"bias": 1.0}}
    factors = optimizers.decay_factors(params, weight_decay=0.1, norm_weight_decay=0.01)
    assert factors == {"stem": {"kernel": 0.1}, "norm1": {"scale": 0.01}, "head": {"bias": 0.1}}


def test_two_steps_of_momentum_by_hand():
    params = {"w": jnp.array(2.0)}
    optimizer = optimizers.sgd_momentum(momentum=0.5, decay={"w": 0.1})
    state = optimizer.init(params)
    velocity, state = optimizer.update({"w": jnp.array(1.0)}, state, params)
    np.testing.assert_allclose(velocity["w"], 1.2)  # 1 + .1 * 2
    params = optax.apply_updates(params, {"w": -velocity["w"]})
    velocity, _ = optimizer.update({"w": jnp.array(1.0)}, state, params)
    np.testing.assert_allclose(velocity["w"], 0.5 * 1.2 + 1 + 0.1 * 0.8)


def test_cosine_schedule_ends_at_zero():
    schedule = optimizers.cosine_schedule(learning_rate=0.4, warmup_steps=10, total_steps=110)
    rates = [float(schedule(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.2, 0], atol=1e-6)


PARAMS = {
    "stem": {"kernel": 1.0},
    "stage0_block0": {"conv1": {"kernel": 1.0}, "norm1": {"scale": 1.0}},
    "stage1_block0": {"conv1": {"kernel": 1.0}},
    "head": {"kernel": 1.0, "bias": 1.0},
}


def test_lr_multipliers_by_hand():
    factors = optimizers.lr_multipliers(
        PARAMS,
        freeze=("stem/*",),
        multipliers=(("*", 0.5), ("stage0_*", 0.1), ("*/bias", 20), ("stem/*", 3.0)),
    )
    assert factors == {
        "stem": {"kernel": 0.0},
        "stage0_block0": {"conv1": {"kernel": 0.1}, "norm1": {"scale": 0.1}},
        "stage1_block0": {"conv1": {"kernel": 0.5}},
        "head": {"kernel": 0.5, "bias": 20.0},
    }
    assert set(jax.tree.leaves(optimizers.lr_multipliers(PARAMS))) == {1.0}


def test_first_steps_by_hand():
    first = optimizers.first_steps(PARAMS, (("stage*", 5), ("stage0_*", 9), ("stem/*", 12)))
    assert first == {
        "stem": {"kernel": 12},
        "stage0_block0": {"conv1": {"kernel": 9}, "norm1": {"scale": 9}},
        "stage1_block0": {"conv1": {"kernel": 5}},
        "head": {"kernel": 0, "bias": 0},
    }
    with pytest.raises(ValueError, match=r"'stage9_\*' matches no parameter"):
        optimizers.first_steps(PARAMS, (("stage9_*", 3),))


def test_a_pattern_without_a_parameter_is_named():
    with pytest.raises(ValueError, match=r"'stage9_\*' matches no parameter.*modules head, stage0"):
        optimizers.lr_multipliers(PARAMS, freeze=("stage9_*",))
    with pytest.raises(ValueError, match="'stem' matches no parameter"):
        optimizers.lr_multipliers(PARAMS, multipliers=(("stem", 2.0),))
    with pytest.raises(ValueError, match="factor 0 of 'stem/\\*' must be positive; freeze it"):
        optimizers.lr_multipliers(PARAMS, multipliers=(("stem/*", 0),))


def test_frozen_parameters_have_no_slot():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    decay, factors = {"a": 0.1, "b": 0.1}, {"a": 0.0, "b": 2.0}
    optimizer = optimizers.sgd_momentum(momentum=0.5, decay=decay, factors=factors)
    state = optimizer.init(params)
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(3,)]
    velocity, _ = optimizer.update({"a": jnp.zeros(2), "b": jnp.ones(3)}, state, params)
    np.testing.assert_allclose(velocity["b"], 1.1)  # the factor is the caller's


def test_warm_schedules_by_hand():
    linear = optimizers.linear_schedule(learning_rate=0.4, warmup_steps=10, total_steps=110)
    rates = [float(linear(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.2, 0], atol=1e-6)
    constant = optimizers.constant_schedule(learning_rate=0.4, warmup_steps=10)
    rates = [float(constant(step)) for step in (0, 5, 10, 1000)]
    np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.4], atol=1e-6)


def test_one_cycle_by_hand():
    schedule = optimizers.one_cycle_schedule(
        learning_rate=1.0, warmup_steps=20, total_steps=100, initial_divisor=4, final_divisor=10
    )
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100, 120)]
    np.testing.assert_allclose(rates, [0.25, 0.625, 1.0, (1 + 0.025) / 2, 0.025, 0.025], rtol=1e-5)


@pytest.mark.parametrize("warmup", [0, 3])
def test_schedules_without_a_warmup_start_at_their_rate(warmup):
    arguments = {"learning_rate": 0.5, "warmup_steps": warmup}
    for schedule in (
        optimizers.linear_schedule(total_steps=10, **arguments),
        optimizers.constant_schedule(**arguments),
        optimizers.cosine_schedule(total_steps=10, **arguments),
        optimizers.one_cycle_schedule(
            total_steps=10, initial_divisor=25, final_divisor=100, **arguments
        ),
    ):
        np.testing.assert_allclose(schedule(jnp.int32(warmup)), 0.5, rtol=1e-6)


def _two_steps(name):
    """Directions of two steps, at gradients 1 and -2 for weights 2 and then 3, in NumPy."""
    mean = square = 0.0
    beta1, beta2, epsilon, decay = 0.9, 0.99, 1e-6, 0.1
    for number, (gradient, weight) in enumerate([(1.0, 2.0), (-2.0, 3.0)], start=1):
        if name == "lion":
            direction = np.sign(beta1 * mean + (1 - beta1) * gradient)
            mean = beta2 * mean + (1 - beta2) * gradient
        else:
            mean = beta1 * mean + (1 - beta1) * gradient
            square = beta2 * square + (1 - beta2) * gradient**2
            corrected = mean / (1 - beta1**number), square / (1 - beta2**number)
            direction = corrected[0] / (np.sqrt(corrected[1]) + epsilon)
        direction += decay * weight
        if name == "lamb":
            direction *= abs(weight) / abs(direction)
        yield direction


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion"])
def test_adaptive_optimizers_by_hand(name):
    optimizer = optimizers.adaptive(
        name, decay={"w": 0.1, "frozen": 0.1}, beta1=0.9, beta2=0.99, epsilon=1e-6,
        factors={"w": 2.0, "frozen": 0.0},
    )  # fmt: skip
    params = {"w": jnp.array([2.0]), "frozen": jnp.array([5.0])}
    state = optimizer.init(params)
    for expected, gradient, weight in zip(_two_steps(name), (1.0, -2.0), (2.0, 3.0), strict=True):
        params["w"] = jnp.array([weight])
        grads = {"w": jnp.array([gradient]), "frozen": jnp.array([0.0])}
        direction, state = optimizer.update(grads, state, params)
        np.testing.assert_allclose(direction["w"], [expected], rtol=1e-5)
    slots = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.shape]
    assert slots == [(1,)] * (1 if name == "lion" else 2), "frozen leaves have none"


def test_clipping_by_hand():
    """Both gradients together have norm 5; decay comes after clipping."""
    params = {"a": jnp.array(2.0), "b": jnp.array(0.0)}
    optimizer = optimizers.sgd_momentum(momentum=0.0, decay={"a": 0.1, "b": 0.1}, clip_norm=1.0)
    grads = {"a": jnp.array(3.0), "b": jnp.array(4.0)}
    velocity, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose([velocity["a"], velocity["b"]], [0.6 + 0.2, 0.8], rtol=1e-6)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="'adam' is none of adamw, lamb, lion"):
        optimizers.adaptive("adam", decay={}, beta1=0.9, beta2=0.99, epsilon=1e-8)
