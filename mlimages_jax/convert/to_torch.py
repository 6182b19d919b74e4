# SPDX-License-Identifier: BSD-3-Clause
"""`to-torch`: the network as a plain PyTorch module with its weights; works without PyTorch."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.description import description
from mlimages_jax.convert.weights import complete_folder, read_weights

MODULE = Path(__file__).with_name("torch_resnet.py")
_LEAVES = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}


def to_torch(*, checkpoint: str, output: Path) -> None:
    """Write the network for PyTorch: a self-contained module, a state dict and a description.

        mlimages convert to-torch --checkpoint=W --output=exported

    The folder gets resnet.py, which needs torch and safetensors only, weights.safetensors, and
    config.json: architecture, image size, preprocessing, calibration and classes. In that folder:
    `import resnet; model = resnet.load(".")`.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        output: the new folder.
    """
    saved, arrays = read_weights(checkpoint)
    architecture = layout.check(arrays, where=str(saved.where))
    if not architecture.stem_kernel % 2:
        raise ConvertError(
            f"{saved.where}: the first kernel has {architecture.stem_kernel} pixels per "
            "side; PyTorch pads both sides equally, which requires an odd number"
        )
    data = save(state_dict(arrays), {"format": "pt"})
    config = {"architecture": architecture._asdict(), **description(saved)}
    with complete_folder(output) as folder:
        shutil.copyfile(MODULE, folder / "resnet.py")
        (folder / "weights.safetensors").write_bytes(data)
        (folder / "config.json").write_text(json.dumps(config, indent=1))
    print(f"{output}: the network of {saved.where}")


def state_dict(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts arrays to the names and layouts of the PyTorch module.

    Convolutions [height, width, in, out] become [out, in, height, width]; the classifier
    [in, out] becomes [out, in].

    Args:
        arrays: Arrays by the names of `layout`.
    """
    state: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        *module, leaf = name.split("/")[1:]
        if leaf == "kernel":
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
        state[".".join([*module, _LEAVES.get(leaf, leaf)])] = np.ascontiguousarray(array)
        if leaf == "var":
            # PyTorch refuses a state without this counter, which only BatchNorms without a momentum
            # read.
            state[".".join([*module, "num_batches_tracked"])] = np.array(0, np.int64)
    return state
