# SPDX-License-Identifier: BSD-3-Clause
"""`to-safetensors` and `from-safetensors`: a single file of arrays that many programs can read."""

from pathlib import Path

from mlimages_jax.checkpoints import hub, own_thresholds, safetensors
from mlimages_jax.checkpoints.safetensors import SUFFIX, WeightsFile, WeightsFileError
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.convert import ConvertError, layout
from mlimages_jax.convert.description import description
from mlimages_jax.convert.weights import (
    check_new_file,
    probability_rule,
    read_weights,
    write_workdir,
)


def to_safetensors(*, checkpoint: str, output: Path) -> None:
    """Write weights, configuration and classes to a .safetensors file.

        mlimages convert to-safetensors --checkpoint=workdirs/quickstart --output=resnet.safetensors

    Arrays are named params/stage0_block0/conv1/kernel and so on; kernels are [height, width, in,
    out]. The metadata contains the step, the configuration, the class list, thresholds.tsv if it is
    of these weights, how logits become probabilities, and, for other programs, image size,
    preprocessing, calibration and classes (`usage`, as JSON). `mlimages_jax.load` reads the file
    directly.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        output: the new file, whose name ends in .safetensors.
    """
    check_new_file(output, suffix=SUFFIX)
    saved, content = contents(checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(output, content)
    print(f"{output}: {len(content.arrays)} arrays of {saved.where}")


def contents(checkpoint: str) -> tuple[SavedModel, WeightsFile]:
    """Reads a checkpoint, and returns it with what a file of it holds.

    Args:
        checkpoint: A workdir, its checkpoints folder, or one of its steps.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ConvertError: If it is not a network of this package.
    """
    saved, arrays = read_weights(checkpoint)
    return saved, WeightsFile(
        arrays,
        step=saved.step,
        config=saved.config,
        class_list=saved.class_list,
        probability=probability_rule(saved.config),
        usage=description(saved),
        thresholds=(own_thresholds.thresholds_of(saved) and saved.thresholds) or "",
    )


def from_safetensors(*, checkpoint: str, output: str) -> None:
    """Convert a file written by to-safetensors back to a checkpoint.

        mlimages convert from-safetensors --checkpoint=resnet.safetensors --output=workdirs/returned

    Args:
        checkpoint: the file, or hf://user/name@revision.
        output: the new workdir; it must not contain a checkpoint yet.
    """
    try:
        path, where = Path(checkpoint), str(checkpoint)
        if hub.is_address(checkpoint):
            path, address = hub.download(hub.parse(checkpoint))
            where = str(address)
        content = safetensors.read(path)
    except WeightsFileError as error:
        raise ConvertError(str(error)) from error
    layout.check(content.arrays, where=where)
    imported = {"imported": {"format": "safetensors", "file": where}}
    folder = write_workdir(
        output,
        content.arrays,
        step=content.step,
        config=imported | content.config,
        class_list=content.class_list,
        thresholds=content.thresholds,
    )
    print(f"{folder}: start from it with --config.init_from={output}")
