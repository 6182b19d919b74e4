# SPDX-License-Identifier: BSD-3-Clause
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlimages_jax.data import NO_LABEL
from mlimages_jax.distributed import sharding
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.models.resnet import STAGE_SIZES, ResNet
from mlimages_jax.step import augment, losses, optimizers, steps
from mlimages_jax.step.state import TrainState, abstract_state, create_state
from tests.support import reference


def _batch(images, targets):
    count, classes = targets.shape
    return {
        "image": images,
        "labels": np.broadcast_to(np.arange(classes, dtype=np.int32), (count, classes)),
        "confidences": np.asarray(targets, np.float32),
        "mask": np.ones(count, bool),
    }


def test_targets_by_hand():
    batch = {
        "labels": jnp.array([[1, 3, NO_LABEL], [0, NO_LABEL, NO_LABEL], [2, 2, 2]]),
        "confidences": jnp.array([[0.8, -1, 0], [1, 0, 0], [1, 1, 1.0]]),
        "mask": jnp.array([True, True, False]),
    }
    targets = steps.dense_targets(batch, num_classes=4)
    np.testing.assert_allclose(targets, [[0, 0.8, 0, -1], [1, 0, 0, 0], [-1] * 4])
    targets = steps.dense_targets(batch, num_classes=4, missing_labels=-1.0)
    np.testing.assert_allclose(targets[0], [-1, 0.8, -1, -1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_equals_the_original(golden_dir):
    """Four steps of train.py: loss, counts, first gradients (through the velocity), parameters."""
    numbers = np.load(golden_dir / "train_steps_resnet50_c40_64_seed5.npz")
    classes, count = int(numbers["class_num"]), int(numbers["n"])
    start = reference.variables(golden_dir, int(numbers["resnet_size"]), classes)
    model = ResNet(classes, stage_sizes=STAGE_SIZES[50])
    factors = optimizers.decay_factors(start["params"], weight_decay=1e-4)
    optimizer = optimizers.sgd_momentum(momentum=0.9, decay=factors)

    def loss(logits, targets, counts, *, key, train):
        del key, train
        return losses.weighted_sigmoid_cross_entropy(logits, targets, counts, selected=selected)

    @jax.jit
    def step(state, batch, negative_selection):
        nonlocal selected
        selected = negative_selection
        return steps.train_step(
            state,
            batch,
            model=model,
            loss=loss,
            optimizer=optimizer,
            schedule=lambda step: 0.01 * jnp.float32(1.297) ** (step // 2),
            augmentation=lambda _, images: images,
            seed=0,
        )

    selected = None
    state = TrainState(
        step=jnp.int32(0),
        params=start["params"],
        batch_stats=start["batch_stats"],
        opt_state=optimizer.init(start["params"]),
        class_counts=losses.initial_counts(1, classes),
    )
    for i in range(len(numbers["loss"])):
        images = reference.input_images(int(numbers["images_seed"][i]), count, 64, 64)
        penalty = optimizers.l2_penalty(state.params, factors)
        state, metrics = step(
            state, _batch(images, numbers["labels"][i]), numbers["neg_select"][i][None] > 0
        )
        np.testing.assert_allclose(metrics["loss"], numbers["cross_entropy"][i], rtol=1e-3)
        np.testing.assert_allclose(metrics["loss"] + penalty, numbers["loss"][i], rtol=1e-3)
        np.testing.assert_allclose(metrics["learning_rate"], numbers["learning_rate"][i], rtol=1e-6)
        np.testing.assert_array_equal(state.class_counts.positive[0], numbers["pos_count"][i])
        np.testing.assert_array_equal(state.class_counts.negative[0], numbers["neg_count"][i])
        if i == 0:  # the first velocity is the gradient of the whole loss. ReLUs that rounding
            # switches move norms by 1e-4 on one processor and 2e-3 on another, values as well.
            velocity = {"params": state.opt_state[1].trace}
            for name, norm, first in zip(
                numbers["grad_names"],
                numbers["grad_norms_step0"],
                numbers["grad_first4_step0"],
                strict=True,
            ):
                ours = reference.look_up(velocity, reference.our_path(str(name)))
                np.testing.assert_allclose(np.linalg.norm(ours), norm, rtol=5e-3, err_msg=name)
                np.testing.assert_allclose(ours.ravel()[:4], first, atol=5e-3 * norm, err_msg=name)
    _assert_changes_agree(numbers, start, state)


def _assert_changes_agree(numbers, start, state):
    end = {"params": state.params, "batch_stats": state.batch_stats}
    compared = 0
    for name, change in zip(numbers["final_names"], numbers["final_change_norms"], strict=True):
        if "/Momentum" in name or "/" not in name:
            continue
        path = reference.our_path(str(name))
        ours = reference.look_up(end, path) - reference.look_up(start, path)
        np.testing.assert_allclose(np.linalg.norm(ours), change, rtol=5e-2, err_msg=name)
        compared += 1
    assert compared == 267


def _loss_by_loops(logits, labels, confidences):
    """Plain sigmoid cross-entropy of listed labels only: sum over classes, mean over images."""
    total = 0.0
    for row, listed, values in zip(logits, labels, confidences, strict=True):
        for class_, y in zip(listed, values, strict=True):
            if class_ != NO_LABEL and y != -1:
                p = 1 / (1 + math.exp(-float(row[class_])))
                total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total / len(logits)


@pytest.mark.slow
def test_where_missing_labels_are_unknown_only_listed_labels_count():
    """In the loss of both steps and in the metrics; classes 1, 2 and 4 of image 0 are not -1."""
    model = ResNet(6, **SMALL)
    images = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    batch = {
        "image": images,
        "labels": np.array(
            [[1, 2, 4, 5], [0, 3] + [NO_LABEL] * 2, [NO_LABEL] * 4, [5] + [NO_LABEL] * 3], np.int32
        ),
        "confidences": np.array([[1, 0, 0.8, -1], [0, 0.9, 0, 0], [0] * 4, [0] * 4], np.float32),
        "mask": np.ones(4, bool),
    }
    variables = _variables(6)
    state = TrainState(
        jnp.int32(0), variables["params"], variables["batch_stats"], optax.EmptyState(), None
    )
    common = {"model": model, "loss": losses.plain_sigmoid_cross_entropy, "missing_labels": -1.0}
    evaluate = jax.jit(functools.partial(steps.eval_step, **common))
    out = evaluate(state.params, state.batch_stats, batch)
    targets = [[-1, 1, 0, -1, 0.8, -1], [0, -1, -1, 0.9, -1, -1], [-1] * 6, [-1] * 5 + [0]]
    np.testing.assert_array_equal(out["targets"], np.float32(targets))
    listed = batch["labels"], batch["confidences"]
    np.testing.assert_allclose(
        out["loss_sum"], 4 * _loss_by_loops(out["logits"], *listed), rtol=1e-5
    )

    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    (logits, _), _ = apply(variables, augment.to_model_input(images))
    step = functools.partial(
        steps.train_step,
        optimizer=optax.identity(),
        schedule=lambda _: 0.1,
        augmentation=lambda _, images: augment.to_model_input(images),
        seed=0,
        **common,
    )
    _, metrics = jax.jit(step)(state, batch)
    np.testing.assert_allclose(metrics["loss"], _loss_by_loops(logits, *listed), rtol=1e-5)

    accumulator = MultiLabelMetrics(6)
    accumulator.update(np.asarray(out["logits"]), np.asarray(out["targets"]))
    values = accumulator.compute()
    assert values["examples"] == 3  # image 2 says nothing
    assert values["recall@5"] == 1  # at most three classes of an image are judged
    assert values["precision@5"] == pytest.approx((2 / 5 + 1 / 5) / 2)  # over images 0 and 1
    np.testing.assert_array_equal(np.isnan(accumulator.per_class_ap()), [1, 0, 1, 0, 0, 1])


SMALL = {"stage_sizes": (1,), "stage_widths": (32,), "stem_width": 8}
CLASSES, BATCH, GROUP = 24, 16, 4


@functools.cache
def _variables(classes=CLASSES):
    return jax.jit(ResNet(classes, **SMALL).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def _run(devices: int, mode: str):
    """Losses and final state of a small training, on some of the devices."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    model = ResNet(CLASSES, group_size=GROUP, **SMALL)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    optimizer = optimizers.sgd_momentum(
        momentum=0.9, decay=optimizers.decay_factors(shapes["params"], weight_decay=1e-4)
    )
    groups = BATCH // GROUP
    abstract = abstract_state(
        model,
        optimizer,
        image_size=32,
        count_groups=groups,
        keep_ema=True,
        mesh=mesh,
        mode=mode,
        min_size=256,
    )
    state = create_state(
        model,
        optimizer,
        seed=3,
        image_size=32,
        count_groups=groups,
        keep_ema=True,
        abstract=abstract,
    )
    step = jax.jit(
        functools.partial(
            steps.train_step,
            model=model,
            loss=functools.partial(losses.weighted_loss, group_size=GROUP),
            optimizer=optimizer,
            schedule=lambda _: jnp.float32(0.05),
            # Rotation takes the nearest pixel: where two are equally near, rounding decides, which
            # differs between programs and CPUs.
            augmentation=functools.partial(augment.pretrain_augment, rotation=False),
            ema_decay=0.9,
            seed=7,
        ),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, abstract), None),
    )
    rng = np.random.default_rng(0)
    values = []
    for _ in range(5):
        batch = _batch(
            rng.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8),
            (rng.random((BATCH, CLASSES)) < 0.2).astype(np.float32),
        )
        batch = jax.device_put(batch, sharding.by_example(mesh))
        before = state
        state, metrics = step(state, batch)
        values.append(float(metrics["loss"]))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before)), "the state is donated"
    return values, jax.device_get(state), state


@pytest.fixture(scope="module")
def one_device():
    return _run(1, "replicated")


@pytest.mark.slow
@pytest.mark.parametrize("mode", sharding.MODES)
def test_devices_and_sharding_change_nothing(one_device, mode):
    values, state, _ = one_device
    other_values, other_state, placed = _run(8, mode)
    np.testing.assert_allclose(other_values, values, rtol=1e-5)
    for name in ("params", "opt_state", "ema"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5),
            getattr(state, name),
            getattr(other_state, name),
        )
    jax.tree.map(np.testing.assert_array_equal, state.class_counts, other_state.class_counts)
    held = {
        name: tree["head"]["kernel"].addressable_shards[0].data.size
        for name, tree in {
            "parameters": placed.params,
            "momentum": placed.opt_state[1].trace,
            "averages": placed.ema["params"],
        }.items()
    }
    size = placed.params["head"]["kernel"].size
    slots = size if mode == "replicated" else size // 8
    parameters = size // 8 if mode == "full" else size
    assert held == {"parameters": parameters, "momentum": slots, "averages": slots}


def _small_step(*, optimizer_factors=None, ema=False, **changes):
    """One jitted step of a small network at rate 0.1 on a fixed batch; before and after."""
    model, variables = ResNet(CLASSES, **SMALL), _variables()
    decay = optimizers.decay_factors(variables["params"], weight_decay=1e-2)
    optimizer = optimizers.sgd_momentum(momentum=0.9, decay=decay, factors=optimizer_factors)
    before = TrainState(
        jnp.int32(0), variables["params"], variables["batch_stats"],
        optimizer.init(variables["params"]), None, dict(variables) if ema else None,
    )  # fmt: skip
    step = functools.partial(
        steps.train_step,
        model=model,
        loss=losses.softmax_cross_entropy,
        optimizer=optimizer,
        schedule=lambda _: 0.1,
        augmentation=lambda _, images: augment.to_model_input(images),
        seed=0,
        **changes,
    )
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    after, metrics = jax.jit(step)(before, _batch(images, np.eye(CLASSES)[:4]))
    return before, after, metrics


@functools.cache
def _plain_step():
    return _small_step()


def _changes(before, after):
    return jax.tree.map(lambda a, b: np.asarray(b - a), before.params, after.params)


@pytest.mark.slow
def test_frozen_parameters_stay_and_factors_scale_the_others():
    plain = _changes(*_plain_step()[:2])
    factors = optimizers.lr_multipliers(
        _variables()["params"], freeze=("stem/*",), multipliers=(("head/*", 3.0),)
    )
    before, after, _ = _small_step(factors=factors, optimizer_factors=factors)
    changes = _changes(before, after)
    assert not changes["stem"]["kernel"].any()
    assert plain["stem"]["kernel"].any()
    np.testing.assert_allclose(changes["head"]["bias"], 3 * plain["head"]["bias"], rtol=1e-5)
    block = ("stage0_block0", "conv2", "kernel")
    ours, theirs = (reference.look_up(tree, block) for tree in (changes, plain))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.batch_stats, after.batch_stats)
    assert all(jax.tree.leaves(moved)), "running statistics move everywhere"


@pytest.mark.slow
@pytest.mark.parametrize(("first", "moves"), [(1, False), (0, True)])
def test_parameters_follow_from_their_first_step(first, moves):
    """The step is number 0, so one is the first number at which nothing may move."""
    steps_of = optimizers.first_steps(_variables()["params"], (("stem/*", first),))
    before, after, _ = _small_step(first_steps=steps_of)
    changes, plain = _changes(before, after), _changes(*_plain_step()[:2])
    assert changes["stem"]["kernel"].any() == moves
    np.testing.assert_array_equal(changes["head"]["bias"], plain["head"]["bias"])
    # The optimizer's means have seen the gradient all the same.
    moments = jax.tree.leaves(after.opt_state)
    assert all(np.asarray(leaf).any() for leaf in moments if leaf.ndim == 4)


@pytest.mark.parametrize(("step", "rate"), [(4, 0.0), (5, 0.3), (6, 0.3)])
def test_the_first_step_is_the_first_that_moves(step, rate):
    found = steps._rate(jnp.float32(0.1), 3.0, jnp.int32(step), 5)
    np.testing.assert_allclose(found, rate, rtol=1e-6)


def test_ema_moves_towards_the_weights():
    before, after, _ = _small_step(ema=True, ema_decay=0.99)
    fraction = 9 / 11  # of the new weights: 1 - (1 + 1) / (10 + 1), after step 1
    jax.tree.map(
        lambda a, w, moved: np.testing.assert_allclose(moved, a + fraction * (w - a), atol=1e-6),
        before.weights, after.weights, after.ema,
    )  # fmt: skip
    late = after.replace(step=jnp.int32(10_000))
    jax.tree.map(
        lambda a, w, moved: np.testing.assert_allclose(moved, a + 0.01 * (w - a), atol=1e-6),
        after.ema, after.weights, jax.jit(functools.partial(steps.moved_ema, decay=0.99))(late),
    )  # fmt: skip


def test_mixing_gets_the_batch_and_its_result_is_learnt():
    seen = []

    def mixing(key, images, targets, mask):
        seen.append((key.shape, images.shape, targets.shape, mask.shape))
        return images, jnp.roll(targets, 4, axis=1)

    plain, mixed = _plain_step(), _small_step(mixing=mixing)
    assert seen[0] == ((), (4, 32, 32, 3), (4, CLASSES), (4,))
    plain, mixed = (_changes(*result[:2])["head"]["bias"] for result in (plain, mixed))
    assert (plain[:4] > 0).all() and (plain[4:] < 0).all()
    assert (mixed[4:8] > 0).all() and (mixed[:4] < 0).all()


def test_several_views_of_an_image_are_averaged():
    model, variables = ResNet(CLASSES, **SMALL), _variables()
    images = np.random.default_rng(2).integers(0, 256, (2, 3, 32, 32, 3), dtype=np.uint8)
    predict = jax.jit(functools.partial(steps.predict_step, **variables, model=model))
    outputs = predict(images=images)
    for i, rows in enumerate(outputs):
        single = np.stack([predict(images=images[:, view])[i] for view in range(3)])
        np.testing.assert_allclose(rows, single.mean(0), rtol=1e-4, atol=1e-5)


def test_rows_outside_the_mask_add_nothing_to_the_evaluation():
    model, variables = ResNet(CLASSES, **SMALL), _variables()
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    batch = _batch(images, (rng.random((4, CLASSES)) < 0.2))
    step = functools.partial(steps.eval_step, model=model, loss=losses.weighted_loss)
    evaluate = functools.partial(jax.jit(step), variables["params"], variables["batch_stats"])
    full = evaluate(batch)
    half = evaluate({**batch, "mask": np.array([True, True, False, False])})
    alone = evaluate({key: value[:2] for key, value in batch.items()})
    np.testing.assert_allclose(half["loss_sum"], alone["loss_sum"], rtol=1e-5)
    assert half["loss_sum"] < full["loss_sum"]


def test_the_head_is_float32_and_gradients_ignore_the_weights():
    counts = losses.initial_counts(1, 3)

    def value(logits):
        loss, _ = losses.weighted_sigmoid_cross_entropy(
            logits, jnp.eye(3), counts, selected=jnp.ones((1, 3), bool)
        )
        return loss

    weight = -np.log10(0.101)
    expected = weight * np.where(np.eye(3), -12 * 0.5, 0.5) / 3
    np.testing.assert_allclose(jax.grad(value)(jnp.zeros((3, 3))), expected, rtol=1e-5)
