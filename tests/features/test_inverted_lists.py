# SPDX-License-Identifier: BSD-3-Clause
import sys

import numpy as np
import pytest

from mlimages_jax.features import FeaturesError
from mlimages_jax.features.evaluate.approximate import Approximate
from mlimages_jax.features.evaluate.nearest import nearest
from mlimages_jax.features.inverted_lists import ROUNDING, InvertedLists
from tests.features.feature_sets import cosines, in_memory, random_features


def test_without_faiss_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(FeaturesError, match=r"pip install 'mlimages-jax\[index\]'"):
        InvertedLists(np.eye(3, dtype=np.float32).__getitem__, 3)


@pytest.fixture
def rows():
    pytest.importorskip("faiss", reason="pip install -e '.[index]'")
    rows = random_features(400, 12)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_all_lists_find_all(rows):
    index = InvertedLists(rows.__getitem__, 400, lists=8, probes=8)
    products, positions = index.nearest(rows[:50], k=5)
    expected = cosines(rows[:50], rows)
    found = np.take_along_axis(expected, positions, 1)
    np.testing.assert_allclose(products, found, atol=ROUNDING)
    np.testing.assert_allclose(found, -np.sort(-expected)[:, :5], atol=2 * ROUNDING)
    compared = []
    pairs = set()
    for i, j in index.pairs(rows.__getitem__, 400, least=0.95, finished=compared.append):
        assert (i < j).all()
        pairs |= set(zip(i.tolist(), j.tolist(), strict=True))
    assert sum(compared) == 400
    near = np.triu(cosines(rows, rows), 1)
    assert set(zip(*(side.tolist() for side in np.nonzero(near >= 0.95)), strict=True)) <= pairs
    assert min(near[i, j] for i, j in pairs) > 0.95 - 2 * ROUNDING


def test_where_lists_have_too_few_more_are_searched(rows):
    index = InvertedLists(rows.__getitem__, 400, lists=100, probes=1)
    products, positions = index.nearest(rows[:20], k=200)
    found = np.take_along_axis(cosines(rows[:20], rows), positions, 1)
    np.testing.assert_allclose(products, found, atol=ROUNDING)
    assert all(len(set(row)) == 200 for row in positions.tolist())
    assert InvertedLists(rows.__getitem__, 400).lists == 10, "faiss wants 39 a list"


def test_empty_lists_hide_nobody(capfd):
    """Equal images are in one list; the lists of the others, nearest to many queries, are empty."""
    pytest.importorskip("faiss", reason="pip install -e '.[index]'")
    rows = np.repeat(np.eye(8, dtype=np.float32)[:1], 50, 0)
    index = InvertedLists(rows.__getitem__, 50, lists=40, probes=1)
    products, positions = index.nearest(np.eye(8, dtype=np.float32), k=50)
    np.testing.assert_allclose(products, [[1] * 50, *[[0] * 50] * 7], atol=ROUNDING)
    assert all(sorted(row) == list(range(50)) for row in positions.tolist())
    assert "WARNING" not in "".join(capfd.readouterr())


def test_the_recall_is_that_of_the_exact_search(rows):
    base, queries = in_memory(rows[:300]), in_memory(rows[300:])
    few = Approximate(base, lists=20, probes=1)
    told = few.recall(queries, base, k=5, count=1_000)
    (found,), (exact,) = few.nearest(queries, base, k=5), nearest(queries, base, k=5)
    hits = [set(a) & set(b) for a, b in zip(found.neighbours, exact.neighbours, strict=True)]
    assert told.recall == pytest.approx(sum(map(len, hits)) / 500) and 0.2 < told.recall < 1
    assert (told.checked, told.k) == (100, 5)
    assert few.recall(queries, base, k=5, count=30).checked == 30
    everywhere = Approximate(base, lists=20, probes=20)
    assert everywhere.recall(queries, base, k=5, count=100).recall > 0.99
