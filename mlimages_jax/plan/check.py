# SPDX-License-Identifier: BSD-3-Clause
"""A plan beside what a compiler says: the step of its largest phase, compiled and not run."""

import time

import jax

from mlimages_jax.distributed import sharding
from mlimages_jax.plan import PlanError, compiled
from mlimages_jax.plan.estimate import Plan
from mlimages_jax.settings import Train
from mlimages_jax.settings.build import training_step


def check(config: Train, plan: Plan, target: str, *, num_classes: int) -> str:
    """Compiles the step of the phase that needs the most memory; text with both figures.

    A CPU's program keeps float32 where bfloat16 is asked for and copies for its own convolutions:
    its memory says little of an accelerator's. A TPU's is the one that would run.

    Args:
        config: that was planned for.
        plan: for it.
        target: "cpu", with as many virtual devices, or a TPU topology of as many chips.
        num_classes: of the data set.

    Raises:
        PlanError: when the topology has another number of chips, or cannot be described.
    """
    mesh = _mesh(target, plan.devices)
    begin = time.perf_counter()
    largest = plan.largest
    training = training_step(config, mesh, num_classes=num_classes)
    program = training.compile(largest.phase, max_labels=compiled.MAX_LABELS)
    found = compiled.collectives(program.as_text(), devices=plan.devices)
    images = largest.phase.batch_size / plan.devices
    ours, theirs = sum(largest.memory.values()), compiled.program_bytes(program)
    flops = program.cost_analysis()["flops"] / images
    moved = compiled.moved_bytes(found)
    counts = ", ".join(f"{each.operations} {kind}" for kind, each in sorted(found.items()))
    return "\n".join(
        [
            f"\nXLA for {target}, compiled in {time.perf_counter() - begin:.0f} s",
            f"  memory of a device {theirs / 1e9:.2f} GB; ours is {ours / theirs:.2f} of it",
            f"  {flops / 1e9:.1f} GFLOP an image; ours is {largest.flops / flops:.2f} of it",
            f"  {counts or 'no communication'}: {moved / 1e6:.1f} MB moved; ours is "
            f"{largest.moved / 1e6:.1f}",
        ]
    )


def _mesh(target: str, devices: int) -> jax.sharding.Mesh:
    if target == "cpu":
        return sharding.make_mesh(jax.devices("cpu")[:devices])
    try:
        mesh = compiled.tpu_mesh(target)
    except Exception as error:  # libtpu's own errors have no common type
        raise PlanError(f"check={target!r}: {error}") from error
    if mesh.size != devices:
        raise PlanError(f"check={target!r} has {mesh.size} chips, the plan {devices}")
    return mesh
