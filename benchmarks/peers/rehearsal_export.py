# SPDX-License-Identifier: BSD-3-Clause
"""Exports the features of a built set's val by a tiny untrained network.

python -m peers.rehearsal_export FOLDER --output FEATURES
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp

from mlimages_jax.checkpoints import manager
from mlimages_jax.features.export import export_task
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.step.state import TrainState
from peers.setting import load_config

SIDE = 32  # pixels
MODEL = ResNet(10, stage_sizes=(1, 1, 1, 1), stage_widths=(16, 32, 64, 128), stem_width=8)


def save_checkpoint(folder: Path) -> None:
    """Saves the network, unless an interrupted run has."""
    tree = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    state = TrainState(jnp.int32(0), tree["params"], tree["batch_stats"], None, None)
    with manager.Checkpoints(folder) as saved:
        saved.save(state, step=0, config={})


def main() -> None:
    """Writes the features, and prints the export's own speed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    checkpoint = arguments.output / "checkpoint"
    if not checkpoint.exists():
        save_checkpoint(checkpoint)
    config = load_config(
        "export_features",
        {
            "checkpoint": str(checkpoint), "input": str(arguments.folder), "split": "val",
            "view.name": "short_side", "view.size": SIDE, "batch_size": 64, "num_threads": 2,
            "max_errors": 0,
        },
    )  # fmt: skip
    print(export_task.export(config, str(arguments.output / "features"))["speed"])


if __name__ == "__main__":
    main()
