# SPDX-License-Identifier: BSD-3-Clause
"""Compiles one variant of our step for a device that need not exist, and reports what is in it."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlimages_jax.distributed import sharding
from mlimages_jax.models import platforms
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.plan import compiled
from mlimages_jax.step import steps
from mlimages_jax.step.state import abstract_state
from peers import gpu_target, ours_step, program_text, step_ideas
from peers.fresh_process import resident_bytes
from peers.serve import Values, arguments, serve


def mesh_of(target: str, *, whole: bool) -> Mesh:
    """Returns the first device of a target, or all: "cpu", a GPU, or a TPU topology (v5e:2x2)."""
    if target == "cpu":
        devices = jax.devices()
    elif target in gpu_target.GPUS:
        devices = gpu_target.devices(target)
    else:
        devices = list(compiled.tpu_mesh(target).devices.flat)
    return sharding.make_mesh(devices if whole else devices[:1])


def abstract_batch(options: Values, mesh: Mesh) -> steps.Batch:
    """Returns the shapes of the batch that `ours_step.random_batch` makes."""
    count, side = options["batch"] * mesh.size, options["size"]

    def leaf(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.by_example(mesh))

    return {
        "image": leaf((count, side, side, 3), jnp.uint8),
        "labels": leaf((count, ours_step.NUM_LABELS), jnp.int32),
        "confidences": leaf((count, ours_step.NUM_LABELS), jnp.float32),
        "mask": leaf((count,), jnp.bool_),
    }


def compile_step(options: Values, mesh: Mesh) -> Any:
    """Compiles the step, with `options["batch"]` images a device."""
    group_size = min(options["group_size"], options["batch"])
    model = ResNet(
        options["classes"],
        stage_sizes=tuple(options["stages"]),
        group_size=group_size,
        dtype=jnp.dtype(options["dtype"]),
        remat=options["remat"],
    )
    optimizer = ours_step.make_optimizer(model, options["size"])
    groups = options["batch"] * mesh.size // group_size
    abstract = abstract_state(
        model, optimizer, mesh=mesh, image_size=options["size"], count_groups=groups
    )
    step = ours_step.make_step(
        options["variant"], group_size=group_size, model=model, optimizer=optimizer
    )
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    with platforms.tracing_for(mesh.devices.flat):
        lowered = jitted.lower(abstract, abstract_batch(options, mesh))
    return lowered.compile()


def figures(program: Any, options: Values, *, devices: int) -> Values:
    """Returns costs, memory and operations of a program, for one device and step.

    `flops` and `accessed` are None where XLA has no costs (GPUs that are not there).
    """
    text, costs = program.as_text(), program.cost_analysis() or {}
    moved = program_text.moved(text)
    found = compiled.collectives(text, devices=devices)
    return {
        "flops": costs.get("flops"),
        "accessed": costs.get("bytes accessed"),
        **moved._asdict(),
        "temporary": program.memory_analysis().temp_size_in_bytes,
        "total": compiled.program_bytes(program),
        "cycles": program_text.estimated_cycles(text),
        "collectives": {kind: list(each) for kind, each in found.items()},
        "communicated": compiled.moved_bytes(found),
        "operations": program_text.counts(text),
        "islands": program_text.islands(text, batch=options["batch"]),
    }


def compiled_figures(options: Values) -> Values:
    """Compiles the variant; a program that does not fit the device has its message for figures."""
    mesh = mesh_of(options["target"], whole=options["whole"])
    begin, cpu = time.perf_counter(), time.process_time()
    try:
        program = compile_step(options, mesh)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"does_not_fit": str(error).splitlines()[0]}
    spent = {
        "compile_seconds": time.perf_counter() - begin,
        "compile_cpu_seconds": time.process_time() - cpu,
        "peak_bytes": resident_bytes("VmHWM"),
        "devices": mesh.size,
    }
    return figures(program, options, devices=mesh.size) | spent


def main() -> None:
    """Reports the figures of the requested variant."""
    options = arguments()
    if options["target"] in gpu_target.GPUS:
        gpu_target.prepare()
    if options["target"] != "cpu":
        jax.config.update("jax_platforms", "cpu")  # nothing is run, so no device is taken
    step_ideas.adopt(options["ideas"])
    serve(compiled_figures(options), lambda _: {})


if __name__ == "__main__":
    main()
