# SPDX-License-Identifier: BSD-3-Clause
"""The norm of a gradient over leaves of any shape."""

import jax
import numpy as np
import pytest

from mlimages_jax.step import gradient_norm


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_the_norm_is_that_of_all_elements(monkeypatch, backend):
    """Last axes below 32, at a multiple of it, and between; the other form computes the same."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    shapes = [(), (1,), (70,), (5, 31), (5, 64), (5, 70), (2, 3, 33), (0, 40)]
    rng = np.random.default_rng(0)
    leaves = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = np.linalg.norm(np.concatenate([leaf.ravel() for leaf in leaves]).astype(np.float64))
    found = gradient_norm.gradient_norm(dict(enumerate(leaves)))
    assert found.dtype == np.float32 and found.shape == ()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
