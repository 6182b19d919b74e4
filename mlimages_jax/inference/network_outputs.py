# SPDX-License-Identifier: BSD-3-Clause
"""Outputs of a network besides its logits: pooled features and averaged stage outputs."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mlimages_jax.models.resnet import ResNet
from mlimages_jax.step import augment


def output_widths(model: ResNet) -> dict[str, int]:
    """Returns the width F of every output [B, F] that `network_outputs` offers, by name."""
    widths = {"features": model.stage_widths[-1], "logits": model.num_classes}
    return widths | {f"stage{i}": width for i, width in enumerate(model.stage_widths)}


def network_outputs(
    weights: dict[str, Any], images: Array, *, model: ResNet, names: tuple[str, ...]
) -> dict[str, Array]:
    """Computes outputs by name, float32 [B, F], using the running statistics of BatchNorm.

    A float32 network runs at the highest matmul precision: by default accelerators compute
    float32 products in reduced precision, and results then depend on the batch size.

    Args:
        weights: A dict with params and batch_stats.
        images: Array [B, S, S, 3], uint8 or floats in [-1, 1]; or [B, V, S, S, 3] with V views per
            image, whose outputs are averaged.
        model: The network of these weights.
        names: Any of features, logits, and stage0, stage1, ...: the output of a stage's last
            block, averaged over height and width.
    """
    # The network has no output for these: Flax records what the named modules return.
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
    """Averages [B * V, F] to [B, F] if images have several views; else returns `rows`."""
    return rows.reshape(-1, *views, rows.shape[-1]).mean(1) if views else rows
