# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints of a network so small that it compiles in a moment, without any training."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mlimages_jax.checkpoints import manager
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.step.state import TrainState
from tests.support.five_classes import CLASS_LIST

SMALL = ResNet(5, stage_sizes=(1, 1), stage_widths=(16, 32), stem_width=8, stem_kernel=3)


def imported(loss: str, *, image_size: int = 32, positive_weight: float = 12.0) -> dict[str, Any]:
    """The configuration of an import from another program."""
    weighted = {"positive_weight": positive_weight}
    return {"loss": {"name": loss, "weighted": weighted}, "image_size": image_size}


@functools.cache
def _initial(model: ResNet, seed: int) -> dict[str, Any]:
    return jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 32, 32, 3)))


def weights(model: ResNet = SMALL, *, seed: int = 0) -> dict[str, Any]:
    """Parameters and statistics whose logits spread over a few units."""
    tree = jax.tree.map(lambda leaf: leaf, _initial(model, seed))  # dicts of the caller's own
    head = tree["params"]["head"]
    keys = jax.random.split(jax.random.key(seed + 1), 2)
    head = {
        "kernel": jax.random.normal(keys[0], head["kernel"].shape),
        "bias": jax.random.normal(keys[1], head["bias"].shape),
    }
    return {**tree, "params": {**tree["params"], "head": head}}


def save(
    workdir: Path,
    config: dict[str, Any],
    *,
    tree: dict[str, Any] | None = None,
    ema: dict[str, Any] | None = None,
    class_list: str = CLASS_LIST,
    step: int = 7,
) -> Path:
    """A workdir with one checkpoint, and the class list unless it is empty."""
    tree = weights() if tree is None else tree
    state = TrainState(jnp.int32(step), tree["params"], tree["batch_stats"], None, None, ema)
    with manager.Checkpoints(workdir / "checkpoints") as saved:
        saved.save(state, step=step, config=config)
    if class_list:
        (workdir / "dictionary.txt").write_text(class_list)
    return workdir
