# SPDX-License-Identifier: BSD-3-Clause
"""The original's variables by our names, filled by the rule of golden/detweights.py."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_NORM = {
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}
_LAYERS = {
    "conv1_b1_bn": "shortcut_norm",
    "conv1_b1": "shortcut_conv",
    "conv1_b2_bn": "norm1",
    "conv1_b2": "conv1",
    "conv2_b2_bn": "norm2",
    "conv2_b2": "conv2",
    "conv3_b2_bn": "norm3",
    "conv3_b2": "conv3",
}


def our_path(name: str) -> tuple[str, ...]:
    """'stages_0_block_1/conv1_b2/conv2d/kernel' -> 'params', 'stage0_block1', 'conv1', 'kernel'."""
    *scope, leaf = name.split("/")
    collection, ours = _NORM.get(leaf, ("params", leaf))
    if scope[0] == "init":
        return collection, "stem", ours
    if scope[0] == "global_pool":
        return collection, "final_norm", ours
    if scope[0] == "logits":
        return collection, "head", ours
    stage, block = re.fullmatch(r"stages_(\d+)_block_(\d+)", scope[0]).groups()
    return collection, f"stage{stage}_block{block}", _LAYERS[scope[1]], ours


def detweights(golden: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("detweights", golden / "detweights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variable_names(golden: Path, size: int, num_classes: int) -> list[tuple[str, list[int]]]:
    networks = json.loads((golden / "variables.json").read_text())["networks"]
    rows = networks[str(size)]["variables_class_num_1000"]
    return [
        (name, [*shape[:-1], num_classes] if name.startswith("logits/") else shape)
        for name, shape, *_ in rows
    ]


def variables(golden: Path, size: int, num_classes: int) -> dict[str, Any]:
    """{'params': ..., 'batch_stats': ...} of the deterministic weights."""
    value = detweights(golden).det_value
    tree: dict[str, Any] = {}
    for name, shape in variable_names(golden, size, num_classes):
        *folders, leaf = our_path(name)
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value(name, shape)
    return tree


def look_up(tree: dict[str, Any], path: tuple[str, ...]) -> np.ndarray:
    for key in path:
        tree = tree[key]
    return np.asarray(tree)


def input_images(seed: int, count: int, height: int, width: int) -> np.ndarray:
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
