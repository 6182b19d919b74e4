# SPDX-License-Identifier: BSD-3-Clause
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.distributed import sharding
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.step import augment, losses, mixing, optimizers, steps
from mlimages_jax.step.accumulation import Accumulation, mean_over_parts
from mlimages_jax.step.state import abstract_state, create_state

CLASSES, BATCH = 24, 32


@pytest.mark.parametrize(
    ("accumulation", "parts"),
    [
        (Accumulation(2, unit=2, devices=1), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (Accumulation(2, unit=2, devices=2), [[0, 1, 4, 5], [2, 3, 6, 7]]),  # both devices in both
        (Accumulation(2, unit=4, devices=2), [[0, 1, 2, 3], [4, 5, 6, 7]]),  # a group spans devices
        (Accumulation(4, unit=1, devices=2), [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ],
)
def test_parts_by_hand(accumulation, parts):
    rows = jnp.arange(8)
    accumulation.check(8)
    split = accumulation.split(rows, 8)
    np.testing.assert_array_equal(split, parts)
    np.testing.assert_array_equal(accumulation.join(split, 8), rows)
    groups = accumulation.split(jnp.arange(8 // accumulation.unit), 8)  # parts keep groups whole
    expected = [sorted({row // accumulation.unit for row in part}) for part in parts]
    np.testing.assert_array_equal(groups, expected)


@pytest.mark.parametrize(
    ("accumulation", "message"),
    [
        (Accumulation(3, unit=1, devices=1), "accumulate=3 times 1 devices"),
        (Accumulation(2, unit=1, devices=8), "accumulate=2 times 8 devices"),
        (Accumulation(2, unit=8, devices=1), "leaves 4 images a part"),
    ],
)
def test_parts_that_cannot_be(accumulation, message):
    with pytest.raises(ValueError, match=message):
        accumulation.check(8)


def test_means_by_hand():
    mean, kept = mean_over_parts(lambda x: ({"a": x.sum()}, x[0]), jnp.arange(6.0).reshape(3, 2))
    assert mean == {"a": 5.0}
    np.testing.assert_array_equal(kept, [0, 2, 4])


def _run(*, parts: int, devices: int, group: int, loss_group: int | None):
    """Losses and final state of five steps of a small training in float32."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    model = ResNet(CLASSES, group_size=group, stage_sizes=(1,), stage_widths=(32,), stem_width=8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    optimizer = optimizers.sgd_momentum(
        momentum=0.9, decay=optimizers.decay_factors(shapes["params"], weight_decay=1e-4)
    )
    loss, counts = losses.plain_sigmoid_cross_entropy, None
    if loss_group:
        loss = functools.partial(losses.weighted_loss, group_size=loss_group)
        counts = BATCH // loss_group
    initial = {"image_size": 32, "count_groups": counts, "keep_ema": True}
    like = abstract_state(model, optimizer, mesh=mesh, **initial)
    state = create_state(model, optimizer, seed=3, abstract=like, **initial)
    unit = max(group, loss_group or 1)
    step = jax.jit(
        functools.partial(
            steps.train_step,
            model=model,
            loss=loss,
            optimizer=optimizer,
            schedule=lambda _: jnp.float32(0.01),
            augmentation=augment.pretrain_augment,
            mixing=functools.partial(
                mixing.mix, mixup_alpha=0.2, cutmix_alpha=1.0, group_size=group
            ),
            ema_decay=0.9,
            seed=7,
            accumulation=Accumulation(parts, unit, devices) if parts > 1 else None,
        ),
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, like), None),
    )
    rng = np.random.default_rng(0)
    metrics = []
    for _ in range(5):
        batch = {
            "image": rng.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8),
            "labels": rng.integers(0, CLASSES, (BATCH, 1), dtype=np.int32),
            "confidences": np.ones((BATCH, 1), np.float32),
            "mask": np.arange(BATCH) < BATCH - 3,  # the last rows are padding
        }
        state, told = step(state, jax.device_put(batch, sharding.by_example(mesh)))
        metrics.append(jax.device_get(told))
    return metrics, jax.device_get(state)


@functools.cache
def _at_once(group, loss_group):
    return _run(parts=1, devices=1, group=group, loss_group=loss_group)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "devices", "group", "loss_group"),
    [
        (
            4,
            8,
            8,
            4,
        ),  # groups span devices, so the images of a part move; the loss has smaller ones
        (2, 8, 2, 2),  # every device computes its own rows
        (4, 1, 4, 2),
        (8, 1, 4, None),  # a loss without counts
    ],
)
def test_accumulation_changes_nothing(parts, devices, group, loss_group):
    """Losses, gradients, statistics, counts, EMA: what the whole batch gives, to rounding."""
    whole, expected = _at_once(group, loss_group)
    metrics, state = _run(parts=parts, devices=devices, group=group, loss_group=loss_group)
    for one, other in zip(metrics, whole, strict=True):
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=1e-6, err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, state.class_counts, expected.class_counts)
    for name in ("params", "batch_stats", "ema"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-6),
            getattr(state, name),
            getattr(expected, name),
        )
