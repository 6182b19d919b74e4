# SPDX-License-Identifier: BSD-3-Clause
"""Names and layouts of a network's arrays in PyTorch, also with the names of timm's resnetv2."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

_LEAVES = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"
_TIMM = (("stem.", "stem.conv."), ("final_norm.", "norm."), ("head.", "head.fc."))
_IN_BLOCK = (("shortcut_norm.", "downsample.norm."), ("shortcut_conv.", "downsample.conv."))


def state_dict(arrays: Mapping[str, np.ndarray], *, timm: bool = False) -> dict[str, np.ndarray]:
    """Converts arrays to the names and layouts of a PyTorch module.

    Convolutions [height, width, in, out] become [out, in, height, width]; the classifier
    [in, out] becomes [out, in], for timm [out, in, 1, 1].

    Args:
        arrays: Arrays by the names of `layout`.
        timm: Whether to use the names of timm.
    """
    state: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        *module, leaf = name.split("/")[1:]
        if leaf == "kernel":
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
            if timm and module == ["head"]:
                array = array[:, :, None, None]
        state[".".join([*module, _LEAVES.get(leaf, leaf)])] = np.ascontiguousarray(array)
        if leaf == "var":
            # PyTorch refuses a state without this counter, which only BatchNorms without a momentum
            # read.
            state[".".join([*module, _COUNTER])] = np.array(0, np.int64)
    return {timm_name(name): array for name, array in state.items()} if timm else state


def arrays_of(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by our names; keeps names that the network lacks.

    Args:
        state: Arrays by the names of the PyTorch module, or by those of timm.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, array in state.items():
        *module, leaf = plain_name(name).split(".")
        if leaf == _COUNTER:
            continue
        path = "/".join(module)
        if leaf.startswith("running_"):
            arrays[f"batch_stats/{path}/{leaf.removeprefix('running_')}"] = array
        elif leaf == "weight" and array.ndim > 1:
            if module == ["head"]:
                array = array.reshape(array.shape[:2]).T
            elif array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)
            arrays[f"params/{path}/kernel"] = np.ascontiguousarray(array)
        else:
            arrays[f"params/{path}/{'scale' if leaf == 'weight' else leaf}"] = array
    return arrays


def timm_name(name: str) -> str:
    """Converts a name of our PyTorch module to timm's."""
    name, in_block = re.subn(r"^stage(\d+)_block(\d+)\.", r"stages.\1.blocks.\2.", name)
    for ours, theirs in _IN_BLOCK if in_block else ():
        name = name.replace(f".{ours}", f".{theirs}")
    return name if in_block else _replaced(name, _TIMM)


def plain_name(name: str) -> str:
    """Returns our name of a name of timm; keeps the names of our PyTorch module."""
    name, in_block = re.subn(r"^stages\.(\d+)\.blocks\.(\d+)\.", r"stage\1_block\2.", name)
    for ours, theirs in _IN_BLOCK if in_block else ():
        name = name.replace(f".{theirs}", f".{ours}")
    return name if in_block else _replaced(name, [(theirs, ours) for ours, theirs in _TIMM])


def _replaced(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
