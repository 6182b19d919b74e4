# SPDX-License-Identifier: BSD-3-Clause
"""Compiles the training step of configs/pretrain.py, for devices that need not exist."""

import time

import jax

from mlimages_jax.distributed import sharding
from mlimages_jax.models.resnet import STAGE_SIZES
from mlimages_jax.plan import compiled
from mlimages_jax.settings import build
from mlimages_jax.settings.build import training_step
from mlimages_jax.step import state
from peers.serve import arguments, serve
from peers.setting import load_config


def main() -> None:
    """Compiles the requested step and reports what it contains."""
    given = arguments()
    jax.config.update("jax_platforms", "cpu")
    if given["topology"]:
        mesh = compiled.tpu_mesh(given["topology"])
    else:
        jax.config.update("jax_num_cpu_devices", given["devices"])
        mesh = sharding.make_mesh()
    config = load_config(
        "pretrain",
        {
            "image_size": given["size"],
            "batch_size": given["images"] * mesh.size,
            "group_size": given["group_size"],
            "model.stage_sizes": STAGE_SIZES[given["depth"]],
            "model.remat": given["remat"],
            "sharding.name": given["mode"],
        },
    )
    (stage,) = build.stages(config)
    begin = time.perf_counter()
    training = training_step(config, mesh, num_classes=given["classes"])
    program = training.compile(stage, max_labels=compiled.MAX_LABELS)
    seconds = time.perf_counter() - begin
    costs = program.cost_analysis()
    about = {
        "version": f"jax {jax.__version__}",
        "devices": mesh.size,
        "compile_seconds": seconds,
        "state": sum(state.bytes_by_part(training.abstract_state).values()),
        "memory": compiled.program_bytes(program),
        "gflop": costs["flops"] / given["images"] / 1e9,
        "traffic": costs["bytes accessed"],
        "collectives": compiled.collectives(program.as_text(), devices=mesh.size),
    }
    serve(about, lambda _: {})


if __name__ == "__main__":
    main()
