# SPDX-License-Identifier: BSD-3-Clause
"""Three steps of the original's finetune.py, all of it trained and with the first stages fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.models.resnet import STAGE_SIZES, ResNet
from mlimages_jax.step import losses, optimizers, steps
from mlimages_jax.step.state import TrainState
from tests.support import reference
from tests.support.small_run import load_config

FIX_BLOCK2 = load_config("finetune", "224").optimizer.freeze


def _velocity(state: TrainState):
    trace = state.opt_state[1]
    return {"params": getattr(trace, "inner_state", trace).trace}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("file", "freeze"),
    [
        ("finetune_steps_resnet50_c20_64_seed6.npz", ()),
        ("finetune_steps_resnet50_c20_64_seed6_fix.npz", FIX_BLOCK2),
    ],
)
def test_finetuning_equals_the_original(golden_dir, file, freeze):
    numbers = np.load(golden_dir / file)
    classes, count = int(numbers["class_num"]), int(numbers["n"])
    start = reference.variables(golden_dir, int(numbers["resnet_size"]), classes)
    decay = optimizers.decay_factors(start["params"], weight_decay=1e-4, norm_weight_decay=1e-5)
    factors = optimizers.lr_multipliers(start["params"], freeze=freeze)
    optimizer = optimizers.sgd_momentum(momentum=0.9, decay=decay, factors=factors)
    state = TrainState(
        jnp.int32(0), start["params"], start["batch_stats"], optimizer.init(start["params"]), None
    )
    schedule = optimizers.staircase_schedule(
        learning_rate=0.1, decay_steps=150_000, decay_factor=0.1
    )
    step = jax.jit(
        lambda state, batch: steps.train_step(
            state,
            batch,
            model=ResNet(classes, stage_sizes=STAGE_SIZES[50]),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizer,
            schedule=schedule,
            augmentation=lambda _, images: images,
            factors=factors,
            seed=0,
        )
    )
    for i in range(len(numbers["loss"])):
        batch = {
            "image": reference.input_images(int(numbers["images_seed"][i]), count, 64, 64),
            "labels": np.int32(numbers["classes"][i])[:, None],
            "confidences": np.ones((count, 1), np.float32),
            "mask": np.ones(count, bool),
        }
        penalty = optimizers.l2_penalty(state.params, decay)  # the original's also of fixed ones
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics["loss"], numbers["cross_entropy"][i], rtol=1e-3)
        np.testing.assert_allclose(metrics["loss"] + penalty, numbers["loss"][i], rtol=1e-3)
        if i == 0:
            _assert_first_gradients(numbers, _velocity(state))
    assert len(jax.tree.leaves(_velocity(state))) == len(numbers["grad_names"])
    _assert_changes(numbers, start, state)


def _assert_first_gradients(numbers, velocity):
    """The first velocity is the gradient of the whole loss."""
    for name, norm, first in zip(
        numbers["grad_names"],
        numbers["grad_norms_step0"],
        numbers["grad_first4_step0"],
        strict=True,
    ):
        ours = reference.look_up(velocity, reference.our_path(str(name)))
        np.testing.assert_allclose(np.linalg.norm(ours), norm, rtol=5e-3, err_msg=name)
        np.testing.assert_allclose(ours.ravel()[:4], first, atol=5e-3 * norm, err_msg=name)


def _assert_changes(numbers, start, state):
    """Fixed parameters do not move at all; every running statistic does."""
    compared = 0
    for name, change in zip(numbers["final_names"], numbers["final_change_norms"], strict=True):
        if "/Momentum" in name or "/" not in name:
            continue
        path = reference.our_path(str(name))
        ours = reference.look_up(state.weights, path) - reference.look_up(start, path)
        np.testing.assert_allclose(np.linalg.norm(ours), change, rtol=5e-2, err_msg=name)
        assert path[0] == "params" or np.linalg.norm(ours) > 0, name
        compared += 1
    assert compared == 267
