# SPDX-License-Identifier: BSD-3-Clause
"""`to-safetensors` and `from-safetensors`: one file of arrays that many programs read."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.weights import probability_rule, read_weights, write_workdir


def to_safetensors(*, checkpoint: str, output: Path) -> None:
    """Write parameters and running statistics to a .safetensors file.

        python -m mlimages_jax.convert to-safetensors --checkpoint=W --output=resnet.safetensors

    Its arrays are named params/stage0_block0/conv1/kernel and so on, kernels [height, width, in,
    out]; its metadata has the step, the configuration and how logits become probabilities.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one step of it.
        output: the new file.
    """
    if output.exists():
        raise ConvertError(f"{output} exists already: remove it or give another --output")
    weights = read_weights(checkpoint)
    metadata = {
        "step": str(weights.step),
        "config": json.dumps(weights.config),
        "probability": probability_rule(weights.config),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(save(weights.arrays, metadata))
    print(f"{output}: {len(weights.arrays)} arrays of {weights.where}")


def from_safetensors(*, checkpoint: Path, output: str) -> None:
    """Turn a file of to-safetensors back into a checkpoint.

        python -m mlimages_jax.convert from-safetensors --checkpoint=resnet.safetensors --output=W

    Args:
        checkpoint: the file.
        output: the new workdir; it must not hold a checkpoint yet.
    """
    try:
        with safe_open(checkpoint, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ConvertError(f"{checkpoint} is damaged or no safetensors file: {error}") from error
    layout.check(arrays, where=str(checkpoint))
    config = json.loads(metadata.get("config", "{}"))
    config.setdefault("imported", {"format": "safetensors", "file": str(checkpoint)})
    folder = write_workdir(output, arrays, step=int(metadata.get("step", 0)), config=config)
    print(f"{folder}: start from it with --config.init_from={output}")
