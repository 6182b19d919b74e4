# SPDX-License-Identifier: BSD-3-Clause
"""Tags by hand on animal > dog > poodle and vehicle > car, and against plain loops."""

import numpy as np
import pytest

from mlimages_jax.inference import tagging
from mlimages_jax.labels.hierarchy import Hierarchy
from tests.support.five_classes import CLASS_LIST

#                   animal dog  poodle vehicle car
SCORES = np.array([[0.9, 0.4, 0.8, 0.1, 0.3], [0.2, 0.2, 0.0, 0.7, 0.7]], np.float32)


@pytest.fixture
def hierarchy(tmp_path):
    (tmp_path / "dictionary.txt").write_text(CLASS_LIST)
    return Hierarchy.from_file(tmp_path / "dictionary.txt")


def _found(tags):
    return [[tag.index for tag in row] for row in tags]


def _forest(rng, classes=200):
    """Parents at random, also with larger indices than their children."""
    order = rng.permutation(classes)
    parents = np.full(classes, -1, np.int32)
    for place in range(1, classes):
        if rng.random() < 0.9:
            parents[order[place]] = order[rng.integers(place)]
    ids = tuple(f"n{i}" for i in range(classes))
    return Hierarchy(ids, ids, parents)


def test_tags_carry_whole_names_and_the_path_from_the_root(hierarchy):
    first, second = tagging.best_tags(SCORES, hierarchy, top_k=3)
    assert [tag.index for tag in first] == [0, 2, 1]
    poodle = first[1]
    assert poodle.id == "n2" and poodle.name == "poodle" and poodle.score == np.float32(0.8)
    assert poodle.path == ("animal", "dog, domestic dog", "poodle")
    assert first[0].path == ("animal",)
    assert first[2].name == "dog, domestic dog"
    assert [tag.index for tag in second] == [3, 4, 0]  # equal scores: the lower index
    assert type(poodle.score) is float and type(poodle.index) is int


def test_no_bound_and_a_bound_above_the_number_of_classes(hierarchy):
    assert _found(tagging.best_tags(SCORES, hierarchy, top_k=None)) == [
        [0, 2, 1, 4, 3], [3, 4, 0, 1, 2],
    ]  # fmt: skip
    assert _found(tagging.best_tags(SCORES, hierarchy, top_k=9))[1] == [3, 4, 0, 1, 2]
    assert tagging.best_tags(SCORES[:0], hierarchy) == []


def test_a_threshold_is_reached_by_an_equal_score(hierarchy):
    limits = tagging.class_limits(hierarchy, threshold=0.7)
    assert _found(tagging.best_tags(SCORES, hierarchy, limits=limits)) == [[0, 2], [3, 4]]
    assert _found(tagging.best_tags(SCORES, hierarchy, top_k=1, limits=limits)) == [[0], [3]]
    high = tagging.class_limits(hierarchy, threshold=0.95)
    assert tagging.best_tags(SCORES, hierarchy, limits=high) == [[], []]
    zero = tagging.class_limits(hierarchy, threshold=0)
    assert _found(tagging.best_tags(SCORES, hierarchy, limits=zero))[1] == [3, 4, 0, 1, 2]


def test_thresholds_of_single_classes_from_a_file(hierarchy, tmp_path):
    path = tmp_path / "thresholds.txt"
    path.write_bytes(b"\xef\xbb\xbfn1\t0.3\r\n\r\n2\t0.85\r\n")
    limits = tagging.class_limits(hierarchy, thresholds=path)
    np.testing.assert_array_equal(limits, [-np.inf, 0.3, 0.85, -np.inf, -np.inf])
    assert _found(tagging.best_tags(SCORES, hierarchy, limits=limits)) == [[0, 1, 4, 3], [3, 4, 0]]
    both = tagging.class_limits(hierarchy, threshold=0.5, thresholds=path)
    assert _found(tagging.best_tags(SCORES, hierarchy, limits=both)) == [[0, 1], [3, 4]]
    mapped = tagging.class_limits(hierarchy, threshold=0.5, thresholds={"n1": 0.3, 2: 0.85})
    np.testing.assert_array_equal(mapped, both)
    assert tagging.class_limits(hierarchy) is None
    np.testing.assert_array_equal(tagging.class_limits(hierarchy, thresholds={}), [-np.inf] * 5)


def test_digits_are_an_id_where_the_classes_have_such_ids(tmp_path):
    named = Hierarchy(("1", "0", "n"), ("one", "zero", "other"), np.array([-1, -1, -1]))
    (tmp_path / "t").write_text("1\t0.25\n2\t0.5\n")
    file = tagging.class_limits(named, thresholds=tmp_path / "t")
    np.testing.assert_array_equal(file, [0.25, -np.inf, 0.5])
    number = tagging.class_limits(named, thresholds={1: 0.25})  # a number is an index
    np.testing.assert_array_equal(number, [-np.inf, 0.25, -np.inf])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t is empty: write a WordNet id or class index, a tab and a threshold on each"),
        (" \n\n", "t is empty"),
        ("# mlimages thresholds\t1\nid\tthreshold\nn7\t0.5\n", "t: n7: 'n7' is neither"),
        ("n0\t0.5\nn7\t0.5\n", r"t:2: 'n7' is neither a WordNet id .* nor an index from 0 to 4"),
        ("5\t0.5\n", "t:1: '5' is neither"),
        ("-1\t0.5\n", "t:1: '-1' is neither"),
        ("\nn0 0.5\n", "t:2: 1 columns instead of 2"),
        ("n0\t0.5\tx\n", "t:1: 3 columns instead of 2"),
        ("n0\thalf\n", "t:1: 'half' is not a threshold; give a number from 0 to 1"),
        ("n0\t50\n", "t:1: '50' is not a threshold"),
        ("n0\tnan\n", "t:1: 'nan' is not a threshold"),
        ("n0\t0.5\n0\t0.6\n", r"t:2: class n0 already has a threshold, .*t:1; keep one"),
    ],
)
def test_a_wrong_line_is_named(hierarchy, tmp_path, text, message):
    (tmp_path / "t").write_text(text)
    with pytest.raises(tagging.ThresholdError, match=message):
        tagging.class_limits(hierarchy, thresholds=tmp_path / "t")


def test_other_wrong_thresholds_are_named(hierarchy, tmp_path):
    (tmp_path / "t").write_bytes(b"n0\t0.5\n\xff\xfe")
    with pytest.raises(tagging.ThresholdError, match="t:2: not UTF-8"):
        tagging.class_limits(hierarchy, thresholds=tmp_path / "t")
    with pytest.raises(tagging.ThresholdError, match=r"thresholds\['cat'\]: 'cat' is neither"):
        tagging.class_limits(hierarchy, thresholds={"cat": 0.5})
    with pytest.raises(tagging.ThresholdError, match=r"thresholds\[5\]: 5 is neither"):
        tagging.class_limits(hierarchy, thresholds={5: 0.5})
    with pytest.raises(tagging.ThresholdError, match=r"threshold=1.5: 1.5 is not a threshold"):
        tagging.class_limits(hierarchy, threshold=1.5)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tagging.class_limits(hierarchy, thresholds=tmp_path / "nowhere")


def test_consistent_scores_by_hand(hierarchy):
    before = SCORES.copy()
    consistent = tagging.consistent_scores(SCORES, hierarchy)
    expected = np.array([[0.9, 0.4, 0.4, 0.1, 0.1], [0.2, 0.2, 0.0, 0.7, 0.7]], np.float32)
    np.testing.assert_array_equal(consistent, expected)
    assert consistent.dtype == np.float32
    np.testing.assert_array_equal(SCORES, before)


def test_consistent_scores_are_the_minimum_on_the_way_up():
    rng = np.random.default_rng(0)
    hierarchy = _forest(rng)
    scores = rng.random((7, 200))
    consistent = tagging.consistent_scores(scores, hierarchy)
    assert hierarchy.depth.max() > 5
    for row, ours in zip(scores, consistent, strict=True):
        for i in range(200):
            least, above = row[i], hierarchy.parents[i]
            while above >= 0:
                least, above = min(least, row[above]), hierarchy.parents[above]
            assert ours[i] == least
    below = hierarchy.parents >= 0
    assert (consistent[:, below] <= consistent[:, hierarchy.parents[below]]).all()


def test_tags_are_those_of_sorting():
    rng = np.random.default_rng(1)
    hierarchy = _forest(rng)
    scores = rng.integers(0, 40, (9, 200)) / np.float32(40)
    limits = tagging.class_limits(hierarchy, thresholds=dict(enumerate(rng.random(200))))
    for row, tags in zip(
        scores, tagging.best_tags(scores, hierarchy, top_k=70, limits=limits), strict=True
    ):
        allowed = [i for i in range(200) if row[i] >= limits[i]]
        assert [tag.index for tag in tags] == sorted(allowed, key=lambda i: (-row[i], i))[:70]
        assert [tag.score for tag in tags] == [row[tag.index] for tag in tags]


def test_scores_of_other_classes_and_no_tags_at_all_are_refused(hierarchy):
    with pytest.raises(ValueError, match=r"scores \(2, 4\) must be \[n, 5\]"):
        tagging.best_tags(SCORES[:, :4], hierarchy)
    with pytest.raises(ValueError, match=r"scores \(5,\) must be \[n, 5\]"):
        tagging.consistent_scores(SCORES[0], hierarchy)
    with pytest.raises(ValueError, match="top_k=0 must be at least 1"):
        tagging.best_tags(SCORES, hierarchy, top_k=0)


def test_a_score_is_shown_with_the_digits_of_a_float32():
    assert tagging.rounded(float(np.float32(0.3))) == 0.3
    assert tagging.rounded(float(np.float32(1 / 3))) == 0.33333334
