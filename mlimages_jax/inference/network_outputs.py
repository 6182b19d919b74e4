# SPDX-License-Identifier: BSD-3-Clause
"""What can be read off a network beside its logits: pooled features and the outputs of stages."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mlimages_jax.models.resnet import ResNet
from mlimages_jax.step import augment


def output_widths(model: ResNet) -> dict[str, int]:
    """F of every output [B, F] that `network_outputs` knows, by name."""
    widths = {"features": model.stage_widths[-1], "logits": model.num_classes}
    return widths | {f"stage{i}": width for i, width in enumerate(model.stage_widths)}


def network_outputs(
    weights: dict[str, Any], images: Array, *, model: ResNet, names: tuple[str, ...]
) -> dict[str, Array]:
    """Outputs by name, float32 [B, F], with the running statistics.

    A float32 network runs without the shortcuts that accelerators take by default, whose results
    differ from one batch size to another.

    Args:
        weights: params and batch_stats.
        images: uint8, or floats in [-1, 1], [B, S, S, 3]; or [B, V, S, S, 3], V views of each
            image, whose outputs are averaged.
        model: that the weights belong to.
        names: features, logits, and stage0, stage1, ...: what a stage's last block adds up to,
            averaged over its rows and columns.
    """
    last = {f"stage{i}": f"stage{i}_block{size - 1}" for i, size in enumerate(model.stage_sizes)}
    blocks = {name: last[name] for name in names if name in last}
    exact = model.dtype == jnp.float32
    with jax.default_matmul_precision("highest") if exact else contextlib.nullcontext():
        (logits, features), captured = model.apply(
            weights,
            augment.to_model_input(images.reshape(-1, *images.shape[-3:])),
            train=False,
            capture_intermediates=lambda module, _: module.name in blocks.values(),
            mutable=["intermediates"],
        )
    outputs: dict[str, Any] = {"logits": logits, "features": features}
    for name, block in blocks.items():
        (maps,) = captured["intermediates"][block]["__call__"]
        outputs[name] = maps.astype(jnp.float32).mean((1, 2))
    views = images.shape[1:-3]
    return {name: _averaged(outputs[name], views) for name in names}


def _averaged(rows: Array, views: tuple[int, ...]) -> Array:
    """[B * V, F] to [B, F] where there are several views of an image."""
    return rows.reshape(-1, *views, rows.shape[-1]).mean(1) if views else rows
