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
    options = arguments()
    jax.config.update("jax_platforms", "cpu")
    if options["topology"]:
        mesh = compiled.tpu_mesh(options["topology"])
    else:
        jax.config.update("jax_num_cpu_devices", options["devices"])
        mesh = sharding.make_mesh()
    config = load_config(
        "pretrain",
        {
            "image_size": options["size"],
            "batch_size": options["images"] * mesh.size,
            "group_size": options["group_size"],
            "model.stage_sizes": STAGE_SIZES[options["depth"]],
            "model.remat": options["remat"],
            "sharding.name": options["mode"],
        },
    )
    (stage,) = build.stages(config)
    begin = time.perf_counter()
    training = training_step(config, mesh, num_classes=options["classes"])
    program = training.compile(stage, max_labels=compiled.MAX_LABELS)
    seconds = time.perf_counter() - begin
    costs = program.cost_analysis()
    about = {
        "version": f"jax {jax.__version__}",
        "devices": mesh.size,
        "compile_seconds": seconds,
        "state": sum(state.bytes_by_part(training.abstract_state).values()),
        "memory": compiled.program_bytes(program),
        "gflop": costs["flops"] / options["images"] / 1e9,
        "traffic": costs["bytes accessed"],
        "collectives": compiled.collectives(program.as_text(), devices=mesh.size),
    }
    serve(about, lambda _: {})


if __name__ == "__main__":
    main()
