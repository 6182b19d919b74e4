# SPDX-License-Identifier: BSD-3-Clause
"""Variables of a small network as the original names them, written down here by hand.

With TensorFlow installed this writes the files of tests/convert/written_by_tensorflow:

    python -m tests.support.original_checkpoint tests/convert/written_by_tensorflow/model.ckpt-7
"""

import sys
import zlib

import numpy as np

CLASSES = 5
STEP = 7

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def _norm(scope: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{scope}/batch_normalization/{leaf}": (channels,) for leaf in _NORM}


def network(classes: int = CLASSES) -> dict[str, tuple[int, ...]]:
    """Stem 3x3 of 4 channels; a block of 8 channels; two blocks of 16."""
    block = {
        **_norm("stages_1_block_1/conv1_b2_bn", 16),
        "stages_1_block_1/conv1_b2/conv2d/kernel": (1, 1, 16, 4),
        **_norm("stages_1_block_1/conv2_b2_bn", 4),
        "stages_1_block_1/conv2_b2/conv2d/kernel": (3, 3, 4, 4),
        **_norm("stages_1_block_1/conv3_b2_bn", 4),
        "stages_1_block_1/conv3_b2/conv2d/kernel": (1, 1, 4, 16),
    }
    return {
        "init/init_conv/conv2d/kernel": (3, 3, 3, 4),
        **_projected("stages_0_block_0", 4, 8),
        **_projected("stages_1_block_0", 8, 16),
        **block,
        **_norm("global_pool/bn", 16),
        "logits/dense/kernel": (16, classes),
        "logits/dense/bias": (classes,),
    }


def _projected(block: str, before: int, width: int) -> dict[str, tuple[int, ...]]:
    inner = width // 4
    return {
        **_norm(f"{block}/conv1_b1_bn", before),
        f"{block}/conv1_b1/conv2d/kernel": (1, 1, before, width),
        **_norm(f"{block}/conv1_b2_bn", before),
        f"{block}/conv1_b2/conv2d/kernel": (1, 1, before, inner),
        **_norm(f"{block}/conv2_b2_bn", inner),
        f"{block}/conv2_b2/conv2d/kernel": (3, 3, inner, inner),
        **_norm(f"{block}/conv3_b2_bn", inner),
        f"{block}/conv3_b2/conv2d/kernel": (1, 1, inner, width),
    }


def slots(*, trained: tuple[str, ...] = ("",)) -> dict[str, tuple[int, ...]]:
    """Velocities of the trained variables whose names begin with one of these."""
    return {
        f"{name}/Momentum": shape
        for name, shape in network().items()
        if "moving_" not in name and name.startswith(trained)
    }


def values(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A value of its own for every name; variances are positive, counts whole."""
    return {name: _value(name, shape) for name, shape in shapes.items()}


def of_train_py() -> dict[str, np.ndarray]:
    """All that train.py saves, in the order of its graph."""
    counts = {"Variable": (CLASSES,), "Variable_1": (CLASSES,)}
    return values({**network(), **counts, "global_step": (), **slots()})


def of_finetune_py(*, trained: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    return values({**network(), "global_step": (), **slots(trained=trained)})


def _value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    draws = np.random.default_rng(zlib.crc32(name.encode()))
    if name == "global_step":
        return np.array(STEP, np.int64)
    if name.startswith("Variable"):
        return draws.integers(0, 20, shape).astype(np.float32)
    if name.endswith(("gamma", "moving_variance")):
        return draws.uniform(0.5, 1.5, shape).astype(np.float32)
    return draws.normal(0, 0.3, shape).astype(np.float32)


def write_with_tensorflow(prefix: str, variables: dict[str, np.ndarray]) -> None:
    import tensorflow as tf

    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.constant(array) for array in variables.values()],
    )


if __name__ == "__main__":
    write_with_tensorflow(sys.argv[1], of_train_py())
