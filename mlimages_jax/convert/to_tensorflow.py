# SPDX-License-Identifier: BSD-3-Clause
"""`to-tensorflow`: a checkpoint that the original's scripts can restore."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from mlimages_jax.checkpoints import manager
from mlimages_jax.convert import ConvertError
from mlimages_jax.convert.tensorflow_checkpoint import write_checkpoint
from mlimages_jax.convert.tensorflow_names import (
    GLOBAL_STEP,
    MOMENTUM,
    NEGATIVE_COUNTS,
    POSITIVE_COUNTS,
    tensorflow_name,
)
from mlimages_jax.convert.weights import flat, read_weights


def to_tensorflow(*, checkpoint: str, output: Path, training_state: bool = False) -> None:
    """Write a TensorFlow checkpoint with the original's names, without TensorFlow.

        mlimages convert to-tensorflow --checkpoint=workdirs/quickstart --output=export/model.ckpt

    The original's extract_feature.py and image_classification.py need the network only; its
    training resumes only with --training-state. Class counts are written for the first group only,
    because a group corresponds to a worker of the original.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        output: the prefix of the new files, to which .index and .data-00000-of-00001 are added.
        training_state: write velocities, step and class counts too.
    """
    # Velocities belong to the trained weights, not to their EMA.
    saved, arrays = read_weights(checkpoint, ema=not training_state)
    variables = {tensorflow_name(name): array for name, array in arrays.items()}
    if training_state:
        variables |= training_variables(saved.where, arrays)
    write_checkpoint(output, variables)
    print(f"{output}: {len(variables)} variables of {saved.where}")


def training_variables(folder: epath.Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what train.py or finetune.py saves besides the network, in graph order.

    Raises:
        ConvertError: If the checkpoint has no state of SGD with momentum.
    """
    tree = jax.device_get(manager.load(folder))
    velocities = _velocities(tree["opt_state"])
    if velocities is None:
        raise ConvertError(f"{folder} has no velocities of SGD: omit --training-state")
    variables: dict[str, np.ndarray] = {}
    if counts := tree["class_counts"]:
        variables[POSITIVE_COUNTS] = counts["positive"][0]
        variables[NEGATIVE_COUNTS] = counts["negative"][0]
    variables[GLOBAL_STEP] = np.array(int(folder.name), np.int64)
    slots = flat({"params": velocities})  # None for frozen parameters
    return variables | {
        tensorflow_name(name) + MOMENTUM: slots[name]
        for name in arrays
        if slots.get(name) is not None
    }


def _velocities(opt_state: Any) -> dict[str, Any] | None:
    """Finds the tree that optax calls `trace`, at any depth of the state."""
    if isinstance(opt_state, dict):
        if "trace" in opt_state:
            return opt_state["trace"]
        opt_state = list(opt_state.values())
    if isinstance(opt_state, list | tuple):
        return next((tree for part in opt_state if (tree := _velocities(part))), None)
    return None
