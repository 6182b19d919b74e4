# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.features.duplicates import bounds
from mlimages_jax.features.duplicates.bounds import ROUNDING, bound_vectors, principal_directions
from tests.features.feature_sets import cosines, in_memory, random_features


def test_worked_by_hand():
    """In the plane of (0.6, 0.8, 0) and (0, 1, 0), of which the first axis is kept."""
    unit = np.array([[0.6, 0.8, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    short = bound_vectors(unit, np.eye(3, dtype=np.float32)[:, :1])
    np.testing.assert_allclose(short, [[0.6, 0.8], [0, 1], [0, 0]], atol=1e-7)


@pytest.mark.parametrize("width", [1, 4, 24])
def test_products_are_never_below_the_cosine_and_equal_it_where_all_is_kept(width):
    features = random_features(80, 24)
    features[40:] = features[:40] + 0.1 * random_features(40, 24, seed=1)
    images = in_memory(features)
    directions = principal_directions(images, width)
    assert directions.shape == (24, width)
    np.testing.assert_allclose(directions.T @ directions, np.eye(width), atol=1e-5)
    short = bound_vectors(images.unit(slice(None)), directions).astype(np.float64)
    assert short.shape == (80, width + 1)
    over = short @ short.T - cosines(features, features)
    assert over.min() > -ROUNDING / 10
    assert (over.max() < ROUNDING / 10) == (width == 24)


def test_directions_are_those_that_keep_most():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    features = rng.normal(size=(500, 6)) * [5, 3, 1, 0.1, 0.1, 0.1] @ axes.T
    found = principal_directions(in_memory(features), 3)
    np.testing.assert_allclose(np.linalg.norm(axes[:, :3].T @ found, axis=0), 1, atol=0.02)


def test_directions_come_from_blocks_of_the_whole_set(monkeypatch):
    """The first half of the set has features that the second lacks."""
    monkeypatch.setattr(bounds, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(bounds, "_BLOCKS_OF_SAMPLE", 5)
    features = np.zeros((100, 4))
    features[:50, 0] = features[50:, 1] = 1
    found = principal_directions(in_memory(features), 2)
    np.testing.assert_allclose(np.linalg.norm(found[:2], axis=0), 1, atol=1e-6)
