# SPDX-License-Identifier: BSD-3-Clause
"""Exports share their compiled programs, a network and images."""

import cv2
import jax
import numpy as np
import pytest

from tests.support import image_files, small_model, user_folder
from tests.support.exporting import MODEL
from tests.support.shared_programs import sharing_programs

__all__ = ["sharing_programs"]


@pytest.fixture(scope="module")
def tree():
    """Drawn weights, He's scale for kernels."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape)
        if leaf.ndim > 1:
            values *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        else:
            values = 0.1 * values + (path[-1].key in ("scale", "var"))
        return values.astype(np.float32)

    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def checkpoint(tree, tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("run"), {}, tree=tree)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A person's folder; and 30 images of noise in a sub-folder."""
    folder = tmp_path_factory.mktemp("images")
    user_folder.write_folder(folder)
    (folder / "noise").mkdir()
    for i in range(30):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 12, 3), np.uint8)
        large = cv2.resize(pixels, (60, 45), interpolation=cv2.INTER_CUBIC)
        (folder / "noise" / f"{i:02d}.jpg").write_bytes(image_files.jpeg(large))
    return folder
