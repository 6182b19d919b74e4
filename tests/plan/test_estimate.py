# SPDX-License-Identifier: BSD-3-Clause
import dataclasses

import pytest

from mlimages_jax import settings
from mlimages_jax.plan import PlanError, chips, estimate
from tests.support.small_run import load_config

SHALLOW = {"model.stage_sizes": (1, 1, 1, 1)}  # traced in a moment


def _plan(config, *, devices=64, utilisation=0.0, chip="h100", classes=11_166):
    return estimate.make_plan(
        config,
        chip=chips.find(chip),
        devices=devices,
        num_classes=classes,
        utilisation=utilisation,
    )


@pytest.mark.slow
def test_the_paper_recipe_by_hand():
    plan = _plan(load_config("pretrain"), utilisation=0.01)
    (stage,) = plan.stages
    assert plan.parameters == 65_375_326
    assert stage.flops == pytest.approx(47.2e9, rel=1e-3)
    assert stage.memory["parameters"] == 4 * 65_375_326  # the optimizer has one slot
    assert stage.memory["optimizer"] == stage.memory["gradients"] == 4 * 65_375_326
    assert stage.memory["class counts"] == 128 * 11_166 * 2 * 4 // 64
    assert stage.moved == 2 * 4 * 65_375_326
    assert stage.compute_seconds == pytest.approx(4096 / 64 * 47.16e9 / 9.89e12, rel=1e-3)
    assert stage.limit == "arithmetic"
    assert stage.images_per_second == pytest.approx(4096 / stage.step_seconds)
    assert stage.seconds == pytest.approx(257_955 * stage.step_seconds)


@pytest.mark.parametrize(("chip", "combined"), [("h100", sum), ("v5e", max)])
def test_kernels_take_turns_on_gpus_and_overlap_on_tpus(chip, combined):
    for utilisation, limit in ((1.0, "memory traffic"), (0.01, "arithmetic")):
        plan = _plan(load_config("pretrain", **SHALLOW), chip=chip, utilisation=utilisation)
        (stage,) = plan.stages
        assert stage.limit == limit
        assert stage.step_seconds == combined([stage.compute_seconds, stage.traffic_seconds])


def test_communication_limits_what_is_faster():
    (stage,) = _plan(load_config("pretrain", **SHALLOW)).stages
    slow = dataclasses.replace(stage, collective_seconds=1.0)
    assert (slow.limit, slow.step_seconds) == ("communication", 1.0)
    assert dataclasses.replace(stage, collective_seconds=None).limit == "memory traffic"


@pytest.mark.slow
def test_the_step_that_was_measured_on_an_h200():
    """docs/benchmarks/accelerators.md: 26.4 ms of convolutions, 3,992 images/s."""
    (stage,) = _plan(load_config("pretrain", batch_size=256), devices=1, chip="h200").stages
    assert stage.compute_seconds == pytest.approx(26.4e-3, rel=0.02)
    assert stage.images_per_second == pytest.approx(3_992, rel=0.02)


@pytest.mark.parametrize(
    ("mode", "parameters", "slots"), [("replicated", 1, 1), ("optimizer", 1, 64), ("full", 64, 64)]
)
def test_sharding_divides_what_it_names(mode, parameters, slots):
    changes = {"sharding.name": mode, "optimizer.ema_decay": 0.999}
    plan = _plan(load_config("pretrain", **changes, **SHALLOW))
    (stage,) = plan.stages
    total, small = 4 * plan.parameters, 2e6  # bytes, and those of leaves that stay whole
    for name, parts in (("parameters", parameters), ("optimizer", slots), ("EMA weights", slots)):
        assert total // parts <= stage.memory[name] < total / parts + small


@pytest.mark.slow
def test_remat_takes_less_memory_and_more_time():
    config = load_config("pretrain")
    (plain,) = _plan(config).stages
    (remat,) = _plan(settings.replaced(config, {"model.remat": True})).stages
    assert remat.memory["activations"] < plain.memory["activations"] / 2
    assert remat.compute_seconds == pytest.approx(plain.compute_seconds * 4 / 3)
    assert remat.flops == plain.flops


@pytest.mark.slow
def test_accumulation_divides_activations_and_sums_gradients():
    config = load_config("pretrain")
    (whole,) = _plan(config).stages
    (parts,) = _plan(settings.replaced(config, {"accumulate": 2})).stages
    assert parts.memory["activations"] == whole.memory["activations"] / 2
    assert parts.memory["gradients"] == 2 * whole.memory["gradients"]
    assert whole.memory["batch"] / 2 < parts.memory["batch"] < whole.memory["batch"]
    assert parts.moved == 2 * whole.moved
    assert parts.compute_seconds == whole.compute_seconds
    h100 = chips.find("h100")
    added = 2 * 3 * 4 * 65_375_326 / (h100.bandwidth * h100.kind.reached)
    assert parts.traffic_seconds == pytest.approx(whole.traffic_seconds + added)


def test_the_fewest_parts_that_fit():
    def make(config):
        return _plan(config, devices=1)

    parts, plan = estimate.smallest_accumulation(load_config("pretrain"), make)
    assert (parts, plan.fits) == (4, True)
    assert not make(load_config("pretrain", accumulate=2)).fits
    # One group is too large.
    tiny = load_config("pretrain", batch_size=32, image_size=4_096, **SHALLOW)
    assert estimate.smallest_accumulation(tiny, make) is None


def test_stages_of_other_sizes():
    plan = _plan(load_config("finetune", "224to299", **SHALLOW), devices=2, classes=1000)
    small, large = plan.stages
    assert (small.stage.image_size, large.stage.image_size) == (224, 299)
    assert plan.largest is large
    assert large.step_seconds > 1.5 * small.step_seconds


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(PlanError, match="batch_size=4096 is not divisible by 100 devices"):
        _plan(load_config("pretrain"), devices=100)
