# SPDX-License-Identifier: BSD-3-Clause
"""`to-safetensors` and `from-safetensors`: one file of arrays that many programs read."""

from pathlib import Path

from mlimages_jax.checkpoints import safetensors
from mlimages_jax.checkpoints.safetensors import SUFFIX, WeightsFile, WeightsFileError
from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.description import description
from mlimages_jax.convert.weights import probability_rule, read_weights, write_workdir


def to_safetensors(*, checkpoint: str, output: Path) -> None:
    """Write weights, configuration and classes to a .safetensors file.

        mlimages convert to-safetensors --checkpoint=W --output=resnet.safetensors

    Its arrays are named params/stage0_block0/conv1/kernel and so on, kernels [height, width, in,
    out]; its metadata has the step, the configuration, the category file, how logits become
    probabilities, and, for programs of others, image size, preprocessing, calibration and classes
    (`usage`, as JSON). `mlimages_jax.load` takes the file as it is.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one step of it.
        output: the new file; its name ends in .safetensors.
    """
    if output.suffix != SUFFIX:
        raise ConvertError(f"--output={output}: let its name end in {SUFFIX}")
    if output.exists():
        raise ConvertError(f"{output} exists already: remove it or give another --output")
    weights = read_weights(checkpoint)
    content = WeightsFile(
        weights.arrays,
        step=weights.step,
        config=weights.config,
        dictionary=weights.dictionary,
        probability=probability_rule(weights.config),
        usage=description(weights),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(output, content)
    print(f"{output}: {len(weights.arrays)} arrays of {weights.where}")


def from_safetensors(*, checkpoint: Path, output: str) -> None:
    """Turn a file of to-safetensors back into a checkpoint.

        mlimages convert from-safetensors --checkpoint=resnet.safetensors --output=W

    Args:
        checkpoint: the file.
        output: the new workdir; it must not hold a checkpoint yet.
    """
    try:
        content = safetensors.read(checkpoint)
    except WeightsFileError as error:
        raise ConvertError(str(error)) from error
    layout.check(content.arrays, where=str(checkpoint))
    imported = {"imported": {"format": "safetensors", "file": str(checkpoint)}}
    folder = write_workdir(
        output,
        content.arrays,
        step=content.step,
        config=imported | content.config,
        dictionary=content.dictionary,
    )
    print(f"{folder}: start from it with --config.init_from={output}")
