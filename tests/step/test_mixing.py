# SPDX-License-Identifier: BSD-3-Clause
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mlimages_jax.distributed import sharding
from mlimages_jax.step import mixing

KEY = jax.random.key(0)
mix_jit = jax.jit(mixing.mix, static_argnames=["mixup_alpha", "cutmix_alpha", "group_size"])
symmetric_beta = jax.jit(mixing.symmetric_beta)


def mixed(images, targets, mask=None, *, key=KEY, mixup=0.0, cutmix=0.0, group_size=None):
    mask = np.ones(len(images), bool) if mask is None else np.array(mask)
    images, targets = mix_jit(
        key,
        np.asarray(images, np.float32),
        np.asarray(targets, np.float32),
        mask,
        mixup_alpha=mixup,
        cutmix_alpha=cutmix,
        group_size=group_size,
    )
    return np.asarray(images), np.asarray(targets)


def constant(values, size=8):
    """An image of one colour for each value, [B, size, size, 3]."""
    values = np.array(values, np.float32)[:, None, None, None]
    return np.broadcast_to(values, (len(values), size, size, 3))


def alternating(count, size=8):
    """Images of 0 and of 1 in turns, with targets that show whose share is how large."""
    turn = np.arange(count) % 2
    return constant(turn, size), np.eye(2)[turn]


# Mixup


def test_mixup_of_constant_images_by_hand():
    values, following = np.array([0.0, 1.0, -1.0, 0.5]), [1, 0, 3, 2]
    images, targets = mixed(constant(values), np.eye(4), mixup=1.0, group_size=2)
    fraction = np.diag(targets)
    assert (fraction > 0).all() and (fraction < 1).all()
    np.testing.assert_allclose(
        targets, np.diag(fraction) + np.diag(1 - fraction)[:, following], atol=1e-7
    )
    expected = fraction * values + (1 - fraction) * values[following]
    np.testing.assert_allclose(images, constant(expected), atol=1e-6)


def test_the_partner_is_the_next_of_the_group_and_the_last_ones_is_the_first():
    _, targets = mixed(constant(range(12)), np.eye(12), mixup=1.0, group_size=3)
    partner = np.argmax(targets - np.diag(np.diag(targets)), axis=1)
    assert partner.tolist() == [1, 2, 0, 4, 5, 3, 7, 8, 6, 10, 11, 9]
    assert ((targets > 0).sum(1) == 2).all()
    _, targets = mixed(constant(range(4)), np.eye(4), mixup=1.0)
    assert (np.diag(np.roll(targets, -1, axis=1)) > 0).all()  # the whole batch is one group


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_are_beta_distributed(alpha):
    images, targets = alternating(4000, size=1)
    images, targets = mixed(images, targets, mixup=alpha)
    own = targets[np.arange(4000), np.arange(4000) % 2]
    assert stats.kstest(own, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    np.testing.assert_allclose(images[..., 0].ravel(), targets[:, 1], atol=1e-6)


# CutMix


def test_cutmix_pastes_a_box_and_targets_have_its_share_of_pixels():
    images, targets = mixed(*alternating(400, size=12), cutmix=1.0)
    assert set(np.unique(images)) == {0.0, 1.0}
    own = images == (np.arange(400) % 2)[:, None, None, None]
    np.testing.assert_array_equal(own, np.broadcast_to(own[..., :1], own.shape))  # all channels
    pasted = ~own[..., 0]
    fraction = targets[np.arange(400), np.arange(400) % 2]
    np.testing.assert_allclose(1 - fraction, pasted.mean((1, 2)), atol=1e-7)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    rows, columns = pasted.any(2), pasted.any(1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):
        starts = np.diff(side.astype(int), axis=1, prepend=0, append=0) == 1
        assert set(starts.sum(1)) <= {0, 1}  # pixels in one piece


def test_box_by_hand():
    boxes = jax.jit(functools.partial(mixing.boxes, height=4, width=8))
    inside = boxes(
        # A quarter of the area is half of each side, 2 x 4: whole, cut at two edges; all; nothing.
        jnp.array([0.5, 0.99, 0.5, 0.5]),
        jnp.array([0.5, 0.0, 0.5, 0.5]),
        area=jnp.array([0.25, 0.25, 1.0, 0.0]),
    )
    expected = np.zeros((4, 4, 8), bool)
    expected[0, 1:3, 2:6] = True  # centre 2, 4: rows 1 to 2, columns 2 to 5
    expected[1, 2:4, 0:2] = True  # centre 3, 0: rows 2 to 3, columns -2 to 1
    expected[2] = True
    np.testing.assert_array_equal(inside, expected)


def test_sides_of_boxes_are_rounded_and_may_be_odd():
    half = jnp.array([0.5])
    inside = mixing.boxes(half, half, area=jnp.array([0.18]), height=7, width=7)  # 2.97 pixels
    expected = np.zeros((7, 7), bool)
    expected[2:5, 2:5] = True
    np.testing.assert_array_equal(inside[0], expected)


def test_a_box_over_everything_forgets_the_own_targets(monkeypatch):
    monkeypatch.setattr(mixing, "symmetric_beta", lambda first, *_, alpha: jnp.zeros_like(first))
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, 0.5))
    images, targets = mixing.mix(
        KEY,
        jnp.asarray(constant([0, 1])),
        jnp.array([[-1.0, 0.3], [1.0, 0.0]]),
        jnp.array([True, True]),
        mixup_alpha=0.0,
        cutmix_alpha=1.0,
        group_size=None,
    )
    np.testing.assert_array_equal(images, constant([1, 0]))
    np.testing.assert_array_equal(targets, np.array([[1.0, 0.0], [-1.0, 0.3]], np.float32))


# Draws


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 8.0])
def test_two_uniform_draws_become_one_of_beta(alpha):
    first, second = np.random.default_rng(0).random((2, 20_000), np.float32)
    drawn = np.asarray(symmetric_beta(first, second, alpha=jnp.full(20_000, alpha)))
    exact = stats.beta(alpha, alpha)
    # Shares that float32 cannot tell from 1 are 1: the comparison is made within what it can.
    assert stats.kstest(np.clip(drawn, 1e-6, 1 - 1e-6), exact.cdf).statistic < (
        0.0115 + exact.cdf(1e-6)
    )  # the first is the 1% point for 20,000 draws
    np.testing.assert_allclose(drawn.mean(), 0.5, atol=0.015)
    np.testing.assert_allclose(drawn.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.03)


@pytest.mark.parametrize("alpha", [1e-6, 0.1, 1.0, 1e6])
def test_extreme_draws_give_a_share(alpha):
    ends = jnp.array([0.0, 1e-38, 2**-24, 0.25, 0.5, 0.75, 1 - 2**-24])
    first, second = jnp.meshgrid(ends, ends)
    fraction = symmetric_beta(first.ravel(), second.ravel(), alpha=jnp.full(49, alpha))
    assert ((fraction >= 0) & (fraction <= 1)).all()


def test_a_cosine_of_zero_gives_a_half(monkeypatch):
    monkeypatch.setattr(jnp, "cos", jnp.zeros_like)  # a processor may round so
    half = jnp.array([0.5])
    assert mixing.symmetric_beta(half, half, alpha=jnp.array([1e-6])).tolist() == [0.5]


def test_each_example_takes_one_of_the_two_at_random():
    # Beta(.05, .05) keeps nearly everything or nothing; Beta(10,000, 10,000) is a half, and so
    # the sides of a box that is not cut are sqrt(.5) of 100 pixels.
    images, _ = mixed(*alternating(300, size=100), mixup=0.05, cutmix=1e4)
    images = images[..., 0]
    flat = np.ptp(images, axis=(1, 2)) < 1e-6
    assert abs(flat.sum() - 150) < 30  # 3.5 standard deviations
    assert (np.abs(images[flat, 0, 0] - 0.5) > 0.45).mean() > 0.7  # P(.05 < x < .95) = 0.13
    pasted = images[~flat] != (np.arange(300) % 2)[~flat][:, None, None]
    sides = pasted.any(2).sum(1)
    assert set(sides[sides >= 70]) <= {70, 71, 72} and sides.max() >= 70 and sides.min() < 50
    _, targets = mixed(*alternating(300), mixup=1e4, cutmix=0.05)
    assert (np.abs(targets[:, 0] - 0.5) < 0.02).mean() > 0.4  # and each has its own alpha


@pytest.mark.slow
def test_draws_are_uniform_and_independent(monkeypatch):
    seen = {}

    def beta(first, second, *, alpha):
        seen.update(first=first, second=second)
        return jnp.full_like(first, 0.5)

    def boxes(row, column, **sizes):
        seen.update(row=row, column=column)
        return jnp.zeros((len(row), sizes["height"], sizes["width"]), bool)

    monkeypatch.setattr(mixing, "symmetric_beta", beta)
    monkeypatch.setattr(mixing, "boxes", boxes)
    images, targets = alternating(2000, size=1)
    _, targets = mixing.mix(
        KEY,
        jnp.asarray(images),
        jnp.asarray(targets),
        jnp.ones(2000, bool),
        mixup_alpha=1.0,
        cutmix_alpha=1.0,
        group_size=None,
    )
    seen["cut"] = np.asarray(targets).max(1) == 1  # an empty box leaves the example as it is
    draws = np.array([seen[name] for name in ("first", "second", "row", "column", "cut")])
    assert np.abs(draws.mean(1) - 0.5).max() < 0.04
    assert draws.min() >= 0 and draws.max() <= 1 and draws[:4].min(1).max() < 0.01
    assert np.abs(np.corrcoef(draws) - np.eye(5)).max() < 0.09  # four standard deviations
    assert set(seen["cut"]) == {True, False}


def test_an_example_depends_on_the_key_and_its_place_only():
    images = np.random.default_rng(0).random((16, 8, 8, 3))
    targets = np.random.default_rng(1).random((16, 5))
    both = {"mixup": 1.0, "cutmix": 1.0, "group_size": 4}
    whole = mixed(images, targets, **both)
    half = mixed(images[:8], targets[:8], **both)
    for ours, expected in zip(half, whole, strict=True):
        np.testing.assert_array_equal(ours, expected[:8])
    assert (mixed(images, targets, key=jax.random.key(1), **both)[1] != whole[1]).any(1).all()


# Unknown classes and rows outside the mask


def test_targets_by_hand():
    own = jnp.array([[1.0, 0.0, -1.0, 0.8], [1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.5]])
    other = jnp.array([[0.0, 0.4, 1.0, -1.0], [-1.0, 1.0, 1.0, 0.0], [1.0, -1.0, 0.0, 0.25]])
    result = mixing.mix_targets(own, other, fraction=jnp.array([0.75, 1.0, 0.0]))
    expected = [[0.75, 0.1, -1, -1], [1, -1, 0, 0], [1, -1, 0, 0.25]]
    np.testing.assert_allclose(result, expected, atol=1e-7)


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_unknown_classes_stay_unknown_in_mixtures(way):
    targets = np.tile(np.array([[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]), (50, 1))
    _, result = mixed(constant(range(100)), targets, **{way: 1.0})
    fractions = mixed(constant(range(100)), np.tile(np.eye(2), (50, 1)), **{way: 1.0})[1]
    mixture = (fractions > 0).all(1)
    assert mixture.sum() > 80
    assert (result[mixture] == [-1, -1, 0]).all()


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_rows_outside_the_mask_stay_and_stay_out(way):
    images = np.random.default_rng(0).random((8, 6, 6, 3)).astype(np.float32)
    images[2] = np.nan  # nothing of this row may reach another
    targets = np.eye(8, dtype=np.float32)
    targets[[2, 7]] = -1.0
    mask = np.ones(8, bool)
    mask[[2, 7]] = False
    new_images, new_targets = mixed(images, targets, mask, group_size=4, **{way: 1.0})
    stays = [1, 2, 6, 7]  # the two rows, and the ones whose neighbours they are
    np.testing.assert_array_equal(new_images[stays], images[stays])
    np.testing.assert_array_equal(new_targets[stays], targets[stays])
    changed = [0, 3, 4, 5]
    assert (new_targets[changed] != targets[changed]).any(1).all()
    assert (new_images[changed] != images[changed]).any((1, 2, 3)).all()


def test_switched_off_returns_what_came_in():
    images, targets = jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 3))
    off = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "group_size": 2}
    result = mixing.mix(KEY, images, targets, jnp.ones(2, bool), **off)
    assert result[0] is images and result[1] is targets


# Sharding


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_sharded_batch_gives_the_same_bits_without_communication(mixup, cutmix):
    generator = np.random.default_rng(0)
    images = generator.random((32, 16, 16, 3), np.float32)
    targets = generator.random((32, 7), np.float32)
    mask = generator.random(32) < 0.8
    mesh = sharding.make_mesh()
    split, everywhere = sharding.by_example(mesh), sharding.replicated(mesh)
    mix = functools.partial(mixing.mix, mixup_alpha=mixup, cutmix_alpha=cutmix, group_size=4)
    step = jax.jit(mix, in_shardings=(everywhere, split, split, split), out_shardings=split)
    compiled = step.lower(KEY, images, targets, mask).compile()
    assert not re.findall(
        "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled.as_text()
    )
    assert "32,16,16" not in compiled.as_text()  # no device holds the whole batch
    parts = (jax.device_put(part, split) for part in (images, targets, mask))
    result = compiled(jax.device_put(KEY, everywhere), *parts)
    for ours, expected in zip(result, jax.jit(mix)(KEY, images, targets, mask), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert (np.asarray(result[1]) != targets).any(1).sum() > 10


# What cannot be


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_impossible_alphas_are_refused(way, alpha):
    with pytest.raises(ValueError, match=f"{way}_alpha={alpha}.* must be finite, 0 or more"):
        mixed(*alternating(2), **{way: alpha})


def test_impossible_groups_are_refused():
    with pytest.raises(ValueError, match="batch of 6 is not divisible by group_size=4"):
        mixed(*alternating(6), mixup=1.0, group_size=4)
    with pytest.raises(ValueError, match="batch of 4 with group_size=1 leaves every example alone"):
        mixed(*alternating(4), cutmix=1.0, group_size=1)
