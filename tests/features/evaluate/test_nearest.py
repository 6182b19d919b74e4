# SPDX-License-Identifier: BSD-3-Clause
import dataclasses

import jax
import numpy as np
import pytest

from mlimages_jax.features.evaluate.nearest import nearest
from tests.features.feature_sets import Watched, cosines, in_memory, random_features


def search(queries, base, **options):
    """All neighbours and similarities, [n, k] each."""
    blocks = list(nearest(in_memory(queries), in_memory(base), **options))
    np.testing.assert_array_equal(
        np.concatenate([block.queries for block in blocks]), np.arange(len(queries))
    )
    return (
        np.concatenate([block.neighbours for block in blocks]),
        np.concatenate([block.similarity for block in blocks]),
    )


@pytest.mark.parametrize(("query_rows", "base_rows"), [(100, 100), (7, 11), (1, 1), (50, 2)])
def test_equals_all_cosines_sorted_for_any_size_of_blocks(query_rows, base_rows):
    queries, base = random_features(20, 16), random_features(50, 16, seed=1)
    found, similarity = search(queries, base, k=6, query_rows=query_rows, base_rows=base_rows)
    expected = cosines(queries, base)
    order = np.argsort(-expected, axis=1)[:, :6]
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(similarity, np.take_along_axis(expected, order, 1), atol=1e-6)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_queries_are_divided_among_the_devices(monkeypatch, devices):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:devices])
    queries, base = random_features(20, 16), random_features(50, 16, seed=1)
    found, _ = search(queries, base, k=6, query_rows=9, base_rows=20)
    np.testing.assert_array_equal(found, np.argsort(-cosines(queries, base), axis=1)[:, :6])


def test_the_whole_base_may_be_the_neighbours():
    base = random_features(9, 4)
    found, _ = search(base[:2], base, k=9, base_rows=4)
    np.testing.assert_array_equal(np.sort(found), [range(9)] * 2)
    np.testing.assert_array_equal(found[:, 0], [0, 1])


@pytest.mark.parametrize("base_rows", [2, 3, 100])
def test_of_equal_neighbours_the_first_come_first(base_rows):
    one, other = [1.0, 0], [1.0, 1]
    base = np.array([other, one, one, other, one, one, one])
    found, similarity = search(np.array([one]), base, k=4, base_rows=base_rows)
    np.testing.assert_array_equal(found, [[1, 2, 4, 5]])
    np.testing.assert_array_equal(similarity, [[1, 1, 1, 1]])


def test_padding_is_never_a_neighbour():
    """It would win over neighbours whose cosines are negative."""
    base = -np.abs(random_features(5, 3)) - 0.1
    found, similarity = search(np.ones((1, 3)), base, k=5, base_rows=4)
    np.testing.assert_array_equal(np.sort(found), [range(5)])
    assert similarity.max() < 0


def test_features_are_read_a_block_at_a_time():
    images = in_memory(random_features(103, 4))
    queries = dataclasses.replace(images, array=Watched(images.array))
    base = dataclasses.replace(images, array=Watched(images.array))
    assert len(list(nearest(queries, base, k=3, query_rows=24, base_rows=10))) == 5
    assert (queries.array.longest, base.array.longest) == (24, 10)


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(ValueError, match="k=4 must be from 1 to 3"):
        search(np.ones((1, 2)), np.ones((3, 2)), k=4)
