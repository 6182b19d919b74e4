# SPDX-License-Identifier: BSD-3-Clause
import jax
import numpy as np
import pytest

from mlimages_jax.features.duplicates import near_pairs as module
from mlimages_jax.features.duplicates.near_pairs import count_tiles, near_pairs, pairs_between
from tests.features.feature_sets import random_features

LEAST = 3.0


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(module, "_STEP", 4)
    monkeypatch.setattr(module, "_ROWS_OF_PAIRS", 3)


def listed(pairs):
    return [pair for i, j in pairs for pair in zip(i.tolist(), j.tolist(), strict=True)]


@pytest.mark.parametrize("tile", [1, 5, 8, 23, 100])
def test_every_pair_comes_once_for_any_size_of_tiles(tile):
    rows = random_features(23, 6)
    finished = []
    found = listed(near_pairs(rows, least=LEAST, tile=tile, finished=lambda: finished.append(None)))
    products = rows.astype(np.float64) @ rows.T
    expected = list(zip(*np.nonzero(np.triu(products >= LEAST, 1)), strict=True))
    assert sorted(found) == expected
    assert 20 < len(expected) < 200
    assert len(finished) == count_tiles(23, tile=tile)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_a_tile_is_divided_among_the_devices(monkeypatch, devices):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:devices])
    rows = random_features(23, 6)
    products = rows.astype(np.float64) @ rows.T
    expected = list(zip(*np.nonzero(np.triu(products >= LEAST, 1)), strict=True))
    assert sorted(listed(near_pairs(rows, least=LEAST, tile=10))) == expected
    (tile,) = module._products(rows, rows, [(0, 0, True)], least=LEAST, tile=23)
    shards = tile.above.addressable_shards
    assert len({shard.index[0].start for shard in shards}) == devices, "each has its own rows"


@pytest.mark.parametrize("tile", [2, 7, 100])
def test_pairs_between_two_sets(tile):
    first, rows = random_features(9, 6), random_features(20, 6, seed=1)
    found = listed(pairs_between(first, rows, least=LEAST, tile=tile))
    expected = np.nonzero(first.astype(np.float64) @ rows.T >= LEAST)
    assert sorted(found) == list(zip(*expected, strict=True))
    assert len(found) > 10


def test_equal_to_the_value_is_enough():
    rows = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert listed(near_pairs(rows, least=1.0)) == [(0, 1)]
    assert listed(near_pairs(rows, least=1.0001)) == []


def test_a_low_value_gives_no_padding():
    assert listed(near_pairs(np.eye(3, dtype=np.float32), least=-1.0)) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(("rows", "tiles"), [(1, 1), (8, 1), (9, 3), (17, 6)])
def test_number_of_tiles(rows, tiles):
    assert count_tiles(rows, tile=8) == tiles
