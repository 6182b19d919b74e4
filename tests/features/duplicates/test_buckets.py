# SPDX-License-Identifier: BSD-3-Clause
import numpy as np

from mlimages_jax.features.duplicates.buckets import make_centres, nearest_centres, pairs_in_buckets
from tests.features.feature_sets import cosines, random_features


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def as_set(pairs):
    return {pair for i, j in pairs for pair in zip(i.tolist(), j.tolist(), strict=True)}


def test_the_nearest_centres_are_those_with_the_largest_products():
    rows, centres = unit(random_features(30, 5)), unit(random_features(7, 5, seed=1))
    found = nearest_centres(rows, centres, memberships=3)
    np.testing.assert_array_equal(found, np.argsort(-cosines(rows, centres), axis=1)[:, :3])
    assert found.dtype == np.int32


def test_centres_go_to_clusters():
    """Three far apart: some draw of three rows finds them, and every centre is a mean."""
    rng = np.random.default_rng(0)
    rows = unit(np.repeat(np.eye(3), 40, axis=0) + rng.normal(0, 0.05, (120, 3)))
    centres = next(
        made
        for made in (make_centres(rows, 3, seed=seed) for seed in range(20))
        if len(set(made.argmax(1))) == 3
    )
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, rtol=1e-5)
    means = unit(rows.reshape(3, 40, 3).mean(1))
    np.testing.assert_allclose(centres[centres.argmax(1).argsort()], means, atol=1e-3)


def test_centres_are_the_same_again():
    rows = unit(random_features(200, 4))
    np.testing.assert_array_equal(make_centres(rows, 9), make_centres(rows, 9))
    assert not np.array_equal(make_centres(rows, 9), make_centres(rows, 9, seed=1))


def test_pairs_worked_by_hand():
    """Rows 0 and 3 are the same, but in no bucket together; 1 and 2 share two buckets."""
    rows = unit(np.array([[1, 0], [1, 0.1], [1, 0.1], [1, 0], [0, 1]]))
    buckets = np.array([[0, 4], [1, 2], [2, 1], [1, 5], [0, 1]], np.int32)
    finished = []
    pairs = pairs_in_buckets(rows, buckets, least=0.9, finished=lambda: finished.append(None))
    assert as_set(pairs) == {(1, 2), (1, 3), (2, 3)}
    assert len(finished) == 6
    assert as_set(pairs_in_buckets(rows, buckets, least=0.999)) == {(1, 2)}


def test_in_all_buckets_all_pairs_are_found():
    rows = unit(random_features(40, 5))
    centres = make_centres(rows, 4)
    everywhere = nearest_centres(rows, centres, memberships=4)
    expected = {
        (i, j) for i, j in zip(*np.nonzero(cosines(rows, rows) >= 0.9), strict=True) if i < j
    }
    assert as_set(pairs_in_buckets(rows, everywhere, least=0.9)) == expected
    once = as_set(pairs_in_buckets(rows, everywhere[:, :1], least=0.9))
    assert once < expected
    assert len(once) > len(expected) / 4
