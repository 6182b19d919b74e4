# SPDX-License-Identifier: BSD-3-Clause
"""A workdir with the checkpoint of a small network whose values are all different."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mlimages_jax.convert.weights import flat, write_workdir
from mlimages_jax.models.architecture import network_of
from tests.support import original_checkpoint, reference

CONFIG = {
    "loss": {"name": "weighted", "weighted": {"positive_weight": 4.0}},
    "image_size": 24,
    "seed": 3,
}


@pytest.fixture(scope="session")
def weights() -> dict:
    """{"params", "batch_stats"} of the small network."""
    tree: dict = {}
    for name, array in original_checkpoint.values(original_checkpoint.network()).items():
        *folders, leaf = reference.our_path(name)
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = array
    return tree


@pytest.fixture(scope="session")
def workdir(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "w"
    write_workdir(folder, flat(weights), step=11, config=CONFIG)
    return folder


@pytest.fixture(scope="session")
def predictions(weights):
    """Five images float32 [5, 24, 24, 3], and logits and features of the small network."""
    images = reference.input_images(0, 5, 24, 24)
    logits, features = jax.jit(network_of(weights["params"]).apply)(weights, images)
    return images, np.asarray(logits), np.asarray(features)
