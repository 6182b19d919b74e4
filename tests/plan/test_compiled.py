# SPDX-License-Identifier: BSD-3-Clause
"""The formulas of a plan against XLA's own figures for the same step."""

import jax
import pytest

from mlimages_jax.distributed import sharding
from mlimages_jax.plan import chips, compiled, estimate
from mlimages_jax.settings import build
from mlimages_jax.settings.build import training_step
from tests.support.small_run import load_config

PROGRAM = """
  %all-reduce.1 = (f32[8,2]{1,0}, bf16[4]{0}, /*index=2*/f32[]) all-reduce(%a, %b, %c), channel_id=1
  %get = f32[8,2]{1,0} get-tuple-element(%all-reduce.1), index=0
  ROOT %all-gather.2 = f32[16,3]{1,0} all-gather(%d), dimensions={0}
  %start = (f32[2,3]{1,0}, f32[16,3]{1,0}) all-gather-start(%d), dimensions={0}
  %done = f32[16,3]{1,0} all-gather-done(%start)
  %reduce-scatter.3 = f32[2]{0} reduce-scatter(%e), dimensions={0}
"""


def test_collectives_are_counted_with_the_bytes_of_their_whole_arrays():
    found = compiled.collectives(PROGRAM, devices=8)
    assert found == {
        "all-reduce": (1, 8 * 2 * 4 + 4 * 2 + 4),
        "all-gather": (2, 2 * 16 * 3 * 4),
        "reduce-scatter": (1, 8 * 2 * 4),
    }
    assert compiled.moved_bytes(found) == 2 * 76 + 384 + 64


def _config(**changes):
    return load_config(
        "pretrain",
        **{
            "image_size": 64,
            "batch_size": 32,
            "group_size": 4,
            "model.dtype": "float32",
            "model.stage_sizes": (1, 1),
            "model.stage_widths": (64, 128),
            "model.stem_width": 32,
            "sharding.min_size": 256,
            **changes,
        },
    )


def _both(config, classes):
    (stage,) = build.stages(config)
    mesh = sharding.make_mesh()
    training = training_step(config, mesh, num_classes=classes)
    program = training.compile(stage, max_labels=compiled.MAX_LABELS)
    chip = chips.find("h100")
    plan = estimate.make_plan(config, chip=chip, devices=mesh.size, num_classes=classes)
    return program, plan


@pytest.fixture(scope="module", params=sharding.MODES)
def small(request):
    config = _config(**{"sharding.name": request.param})
    return request.param, *_both(config, 50)


@pytest.mark.slow
def test_the_state_is_what_the_program_takes(small):
    """Arguments are the state and the batch, to the byte."""
    _, program, plan = small
    (stage,) = plan.stages
    held = sum(
        stage.memory[name] for name in ("parameters", "statistics", "optimizer", "class counts")
    )
    batch = 4 * (64 * 64 * 3 + compiled.MAX_LABELS * 8 + 1)  # four images a device
    step = 4
    assert program.memory_analysis().argument_size_in_bytes == held + batch + step


@pytest.mark.slow
def test_communication_is_what_the_program_does(small):
    """A CPU's compiler scatters by an all-reduce; running statistics and the loss come on top."""
    mode, program, plan = small
    found = compiled.collectives(program.as_text(), devices=8)
    gradients = 4 * plan.parameters
    assert found["all-reduce"].size == pytest.approx(gradients, rel=0.03)
    gathered = found["all-gather"].size if mode != "replicated" else 0
    if mode == "replicated":
        assert "all-gather" not in found
    else:
        assert 0.95 * gradients < gathered < 2 * gradients
    assert plan.stages[0].moved == (2 if mode == "replicated" else 3) * gradients


@pytest.mark.slow
def test_arithmetic_is_nearly_what_the_program_does(small):
    """XLA leaves out padding and counts elementwise work, so neither bounds the other."""
    _, program, plan = small
    assert program.cost_analysis()["flops"] / 4 == pytest.approx(plan.stages[0].flops, rel=0.25)


@pytest.mark.slow
def test_memory_is_of_the_order_of_the_program(small):
    _, program, plan = small
    ours = sum(plan.stages[0].memory.values())
    assert 0.3 < ours / compiled.program_bytes(program) < 2


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "rel"), [(50, 0.1), (101, 0.1)])
def test_the_real_networks(depth, rel):
    """At 224 px in float32, two images a device; docs/scaling.md has the ratios."""
    changes = {"image_size": 224, "batch_size": 16, "group_size": 2}
    stages = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    config = _config(
        **changes,
        **{
            "model.stage_sizes": stages,
            "model.stage_widths": (256, 512, 1024, 2048),
            "model.stem_width": 64,
        },
    )
    program, plan = _both(config, 11_166)
    assert program.cost_analysis()["flops"] / 2 == pytest.approx(plan.stages[0].flops, rel=rel)
    ours = sum(plan.stages[0].memory.values())
    assert 0.5 < ours / compiled.program_bytes(program) < 1.5
    assert len(jax.devices()) == 8
