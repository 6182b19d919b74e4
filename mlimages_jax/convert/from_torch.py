# SPDX-License-Identifier: BSD-3-Clause
"""`from-torch`: the network of a folder written by `to-torch`, also after a training in PyTorch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.to_torch import CONFIG
from mlimages_jax.convert.torch_names import arrays_of
from mlimages_jax.convert.weights import write_workdir
from mlimages_jax.labels.hierarchy import Hierarchy

_WEIGHTS = ("model.safetensors", "weights.safetensors")


def from_torch(*, checkpoint: Path, output: str) -> None:
    """Convert a PyTorch network written by to-torch back to a checkpoint.

        mlimages convert from-torch --checkpoint=exported --output=workdirs/returned

    Weights that nobody changed return bit for bit, with configuration, classes and thresholds. A
    network trained further in PyTorch returns too, if it is saved beside config.json:

        safetensors.torch.save_file(model.state_dict(), "exported/model.safetensors")

    The class list stays behind if the number of classes has changed.

    Args:
        checkpoint: the folder, or a .safetensors file with the names of either module of to-torch.
        output: the new workdir; it must not contain a checkpoint yet.
    """
    file = _weights_file(checkpoint)
    arrays = _arrays(file)
    classes = layout.check(arrays, where=str(file)).num_classes
    values = _values(file.with_name(CONFIG))
    saved = values.get("saved", {})
    class_list, thresholds = saved.get("dictionary", ""), saved.get("thresholds", "")
    named = len(Hierarchy.from_text(class_list, where=CONFIG)) if class_list else classes
    if named != classes:
        print(f"without the class list of {CONFIG}: it names {named:,} classes, not {classes:,}")
        class_list = thresholds = ""
    folder = write_workdir(
        output,
        arrays,
        step=values.get("step", 0),
        config={"imported": {"format": "torch", "file": str(file)}} | saved.get("config", {}),
        class_list=class_list,
        thresholds=thresholds,
    )
    print(f"{folder}: start from it with --config.init_from={output}")


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in _WEIGHTS if (path / name).exists()]
    if len(found) != 1:
        which = "both of" if found else "neither of"
        raise ConvertError(f"{path} has {which} {' and '.join(_WEIGHTS)}: give the file")
    return found[0]


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """Reads the arrays, by the names of `layout`."""
    try:
        return arrays_of(load_file(file))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ConvertError(
            f"{file} is not a float32 .safetensors file ({error}): save it with "
            "safetensors.torch.save_file(model.state_dict(), FILE)"
        ) from error


def _values(path: Path) -> dict[str, Any]:
    """Reads config.json; {} if there is none."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConvertError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConvertError(f"{path} is not a JSON object")
    return values
