# SPDX-License-Identifier: BSD-3-Clause
"""Compares a plan with the compiler: compiles the step of its largest stage without running it."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import jax

from mlimages_jax.distributed import sharding
from mlimages_jax.distributed.exit_codes import is_out_of_memory
from mlimages_jax.plan import PlanError, compiled
from mlimages_jax.plan.estimate import Plan
from mlimages_jax.settings import Train
from mlimages_jax.settings.build import training_step


def check(config: Train, plan: Plan, target: str, *, num_classes: int) -> str:
    """Compiles the step of the stage that needs the most memory and reports both figures.

    A CPU program computes in float32 even if bfloat16 is requested, and its convolutions make
    copies, so its memory says little about an accelerator. A TPU program is the one that would run.

    Args:
        config: Configuration of the plan.
        plan: Plan to compare with.
        target: "cpu" for the plan's number of virtual CPU devices, or a TPU topology with that
            number of chips.
        num_classes: Number of classes of the data set.

    Returns:
        The comparison as text.

    Raises:
        PlanError: The topology is unknown, or has a different number of chips; the step does not
            fit; or the compiler failed.
    """
    if target == "cpu":
        return _compiled(config, plan, target, num_classes)
    # libtpu may crash (for v6e, 0.0.42.1 does), which ends the process that it is loaded in.
    # One task ends that process: it would wait for another forever if this one had been killed.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        try:
            return pool.submit(_compiled, config, plan, target, num_classes).result()
        except BrokenProcessPool as error:
            raise PlanError(
                f"check={target!r}: the compiler crashed, or there was not enough memory (a "
                "program of ResNet-101 takes 3 GB). The plan above stands; libtpu crashes for some "
                "chips: check another kind, such as v5e"
            ) from error


def _compiled(config: Train, plan: Plan, target: str, num_classes: int) -> str:
    """Compiles and compares in this process."""
    jax.config.update("jax_platforms", "cpu")  # TPUs are only described
    mesh = _mesh(target, plan.devices)
    begin = time.perf_counter()
    largest = plan.largest
    training = training_step(config, mesh, num_classes=num_classes)
    try:
        program = training.compile(largest.stage, max_labels=compiled.MAX_LABELS)
    except jax.errors.JaxRuntimeError as error:
        message = str(error).splitlines()[0]
        if not is_out_of_memory(error):
            raise PlanError(f"check={target!r}: {message}") from error
        raise PlanError(
            f"check={target!r}: the step does not fit into the memory of a chip: {message}. Give a "
            "larger --config.accumulate, a smaller --config.batch_size or more chips"
        ) from error
    found = compiled.collectives(program.as_text(), devices=plan.devices)
    images = largest.stage.batch_size / plan.devices
    ours, theirs = sum(largest.memory.values()), compiled.program_bytes(program)
    flops = program.cost_analysis()["flops"] / images
    moved = compiled.moved_bytes(found)
    counts = ", ".join(f"{each.operations} {kind}" for kind, each in sorted(found.items()))
    return "\n".join(
        [
            f"\nXLA for {target}, compiled in {time.perf_counter() - begin:.0f} s",
            f"  memory per device {theirs / 1e9:.2f} GB; the plan {ours / theirs:.2f} of it",
            f"  {flops / 1e9:.1f} GFLOP per image; the plan {largest.flops / flops:.2f} of it",
            f"  {counts or 'no communication'}: {moved / 1e6:.1f} MB moved; in the plan "
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
        raise PlanError(f"check={target!r} has {mesh.size} chips, but the plan has {devices}")
    return mesh
