# SPDX-License-Identifier: BSD-3-Clause

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax import settings
from mlimages_jax.settings import build, flatten, restart
from tests.settings.test_judge import VARIANTS
from tests.support.small_run import load_config

# What the published scripts count in steps.
PUBLISHED = {
    "pretrain": {
        "total_steps": 257_955,
        "schedule.pretraining.decay_steps": 110_000,
        "schedule.pretraining.warmup_steps": 35_200,
        "schedule.pretraining.warmup_decay_steps": 4_400,
        "evaluate_every": 4_400,
        "checkpoint.every": 1_000,
        "checkpoint.keep_every": 44_000,
    },
    "finetune": {
        "total_steps": 600_000,
        "schedule.staircase.decay_steps": 150_000,
        "schedule.cosine.warmup_steps": 25_000,
        "schedule.cosine.total_steps": 600_000,
        "evaluate_every": 25_000,
        "checkpoint.every": 5_000,
        "checkpoint.keep_every": 50_000,
    },
    "quickstart": {
        "total_steps": 1_100,
        "schedule.cosine.warmup_steps": 100,
        "schedule.cosine.total_steps": 1_100,
        "evaluate_every": 550,
        "checkpoint.every": 550,
        "checkpoint.keep_every": 0,
    },
}


def _with(name, *variant, **changes):
    return load_config(name, *variant, **changes)


@pytest.mark.parametrize("config", VARIANTS, ids=":".join)
def test_the_published_recipes_keep_their_numbers(config):
    values = flatten(settings.checked(load_config(*config)))
    for name, steps in PUBLISHED.get(config[0], {}).items():
        assert values[name] == steps, name
        assert isinstance(values[name], int)
    resize = ((300_000, 299, 256),) if config[-1] == "224to299" else ()
    assert values.get("resize", ()) == resize
    if values["task"] == "train":
        told = restart.values(settings.checked(load_config(*config)))
        assert "learning_rate_for" not in told, "settings in old checkpoints lack it"


@pytest.mark.parametrize("config", VARIANTS, ids=":".join)
def test_resolving_twice_changes_nothing(config):
    once = settings.checked(load_config(*config))
    assert flatten(settings.checked(once)) == flatten(once)


@pytest.mark.parametrize("total_steps", [1, 2, 7, 60, 85, 117, 300, 3_000])
@pytest.mark.parametrize("config", [c for c in VARIANTS if c[0] in PUBLISHED], ids=":".join)
def test_schedules_follow_the_length_of_the_run(config, total_steps):
    """The rate ends where the whole recipe's ends, never above its highest."""
    whole = settings.checked(load_config(*config))
    short = settings.checked(_with(*config, total_steps=total_steps))
    # As many steps for all lengths: the shape of an array is compiled once.
    steps = np.linspace(0, total_steps - 1, 100).astype(np.int32)
    rates = np.asarray(build.schedule(short)(jnp.asarray(steps)))
    highest = getattr(whole.schedule, whole.schedule.name).learning_rate
    assert rates.max() <= highest * 1.0001
    assert short.checkpoint.every <= total_steps
    assert short.checkpoint.keep_every % short.checkpoint.every == 0
    if total_steps >= 60:
        last = float(build.schedule(whole)(whole.total_steps - 1))
        assert rates[-1] == pytest.approx(last, abs=0.01 * highest)


def test_what_is_set_stays_and_shares_follow():
    changes = {
        "total_steps": 300,
        "schedule.cosine.warmup_steps": 50,
        "schedule.cosine.total_steps": 400,
        "evaluate_every": 0.25,
        "checkpoint.every": 0.1,
        "log_every": 0,
    }
    config = settings.checked(_with("quickstart", **changes))
    assert dataclasses.asdict(config.schedule.cosine) == {
        "learning_rate": 0.1, "warmup_steps": 50, "total_steps": 400,
    }  # fmt: skip
    assert (config.evaluate_every, config.checkpoint.every, config.log_every) == (75, 30, 300)


def test_stages_follow_too():
    (first, second) = build.stages(_with("finetune", "224to299", total_steps=1_000))
    assert (first.stop, second.start, second.image_size) == (500, 500, 299)


@pytest.mark.parametrize(("batch", "factor"), [(256, 1.0), (1_024, 4.0), (64, 0.25)])
def test_the_linear_rule(batch, factor):
    changes = {"batch_size": batch, "learning_rate_for": 256}
    config = settings.checked(_with("finetune", "modern", **changes))
    assert config.schedule.cosine.learning_rate == 0.1 * factor
    assert config.schedule.staircase.learning_rate == 0.1 * factor
    config = settings.checked(_with("pretrain", batch_size=1_024, learning_rate_for=4_096))
    rates = config.schedule.pretraining
    assert (rates.learning_rate, rates.warmup_learning_rate) == (0.02, 0.0025)
    assert rates.decay_factor == 0.1


def test_a_longer_run_goes_on_and_says_what_the_schedule_does():
    saved = restart.values(settings.checked(_with("quickstart", total_steps=100)))
    longer = _with("quickstart", total_steps=200)
    restart.check_unchanged(saved, restart.values_as_long_as(saved, longer))
    told = restart.change_of_schedule(saved, longer, step=100)
    assert "total_steps=200 where the checkpoint's run had 100: " in told
    assert "step 101 is 0.0577 (by that run's schedule 0), of the last" in told
    assert restart.change_of_schedule(saved, _with("quickstart", total_steps=100), step=9) is None


def test_a_schedule_that_was_set_stays_and_a_rate_of_zero_is_told():
    changes = {"schedule.cosine.total_steps": 100, "schedule.cosine.warmup_steps": 9}
    saved = restart.values(settings.checked(_with("quickstart", total_steps=100, **changes)))
    longer = _with("quickstart", total_steps=200, **changes)
    restart.check_unchanged(saved, restart.values_as_long_as(saved, longer))
    assert "NOTHING MORE IS LEARNED" in restart.change_of_schedule(saved, longer, step=100)


def test_another_schedule_is_no_longer_run():
    saved = restart.values(settings.checked(_with("quickstart", total_steps=100)))
    other = _with("quickstart", total_steps=200, **{"schedule.cosine.warmup_steps": 50})
    with pytest.raises(build.ConfigError, match=r"warmup_steps: 9 in the checkpoint, 50 now"):
        restart.check_unchanged(saved, restart.values_as_long_as(saved, other))
