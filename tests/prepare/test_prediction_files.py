# SPDX-License-Identifier: BSD-3-Clause
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.co_occurrence import predictions
from mlimages_jax.prepare.co_occurrence.predictions import PredictionFile
from tests.support.drawn_lists import STEADY

FLOATS = pa.list_(pa.float32())


def write(folder: Path, *, row_group_size: int | None = None, **columns: object) -> Path:
    path = folder / "p.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def read(path: Path, num_classes: int, posterior: float = 0.95) -> list[tuple]:
    """Rows of (name or label, classes above the posterior), and how many have no scores."""
    rows, without = [], 0
    for sure in PredictionFile(path, num_classes=num_classes).sure(posterior):
        names = sure.names if sure.labels is None else sure.labels.tolist()
        assert len(names) == sure.num_images
        found = [set() for _ in names]
        for image, class_ in zip(sure.images.tolist(), sure.classes.tolist(), strict=True):
            assert class_ not in found[image]
            found[image].add(class_)
        rows += zip(names, found, strict=True)
        without += sure.without_scores
    return [rows, without]


SCORES = [[0.96, 0.1, 1.0], None, [0.95, 0.0, 0.9500001], [0.2, 0.3, 0.5]]
EXPECTED = [[(b"a", {0, 2}), ("ü b".encode(), {2}), (b"d", set())], 1]
NAMES = ["a", "x", "ü b", "d"]


@pytest.mark.parametrize(
    "kind",
    [
        FLOATS, pa.large_list(pa.float32()), pa.list_(pa.float32(), 3), pa.list_(pa.float64()),
    ],
    ids=str,
)  # fmt: skip
def test_dense_scores_worked_by_hand(tmp_path, kind):
    path = write(tmp_path, name=NAMES, scores=pa.array(SCORES, kind), more=[1, 2, 3, 4])
    assert read(path, 3) == EXPECTED


def test_half_precision(tmp_path):
    half = [np.float16(1.0005), np.float16(0.95), np.float16(0.951)]  # a softmax may exceed 1
    path = write(tmp_path, name=["a"], scores=pa.array([half], pa.list_(pa.float16())))
    assert read(path, 3) == [[(b"a", {0, 2})], 0]


@pytest.mark.parametrize("integers", [pa.int64(), pa.uint16()], ids=str)
def test_sparse_scores_worked_by_hand(tmp_path, integers):
    path = write(
        tmp_path,
        name=pa.array(NAMES, pa.large_string()),
        classes=pa.array([[2, 0], [1], [1, 2], []], pa.list_(integers)),
        scores=pa.array([[1.0, 0.96], None, [0.95, 0.9500001], []], FLOATS),
    )
    assert read(path, 3) == EXPECTED


def test_labels_take_the_place_of_names(tmp_path):
    scores = pa.array([[1.0], [0.1], [1.0]], FLOATS)
    path = write(tmp_path, label=pa.array([7, None, 2], pa.int16()), scores=scores)
    file = PredictionFile(path, num_classes=1)
    assert (file.has_labels, file.num_rows) == (True, 3)
    assert read(path, 1) == [[(7, {0}), (-1, set()), (2, {0})], 0]


def test_pieces_and_row_groups_do_not_matter(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.random((50, 3), np.float32)
    scores_column = pa.array([None if i % 7 == 3 else row for i, row in enumerate(scores)], FLOATS)
    columns = {"name": [f"{i}" for i in range(50)], "scores": scores_column}
    expected = [
        (f"{i}".encode(), set(np.flatnonzero(scores[i] > 0.5).tolist()))
        for i in range(50)
        if i % 7 != 3
    ]
    for values_at_once, row_group_size in ((12, 50), (12, 5), (1, 50), (1 << 20, 7)):
        monkeypatch.setattr(predictions, "_VALUES_AT_ONCE", values_at_once)
        path = write(tmp_path, row_group_size=row_group_size, **columns)
        assert read(path, 3, 0.5) == [expected, 7]


BAD = [
    ({"scores": [[0.1, 0.2], [0.1]]}, r"row 1 \(b\): .*not 2.*--prediction-dictionary"),
    ({"scores": [[0.1, 0.2], [0.1, float("nan")]]}, r"row 1 \(b\): a score is NaN"),
    ({"scores": [[0.1, 0.2], [0.1, None]]}, r"row 1 \(b\): a score is NaN"),
    ({"scores": [[0.1, 0.2], [7.5, 0.1]]}, r"row 1 \(b\): .*logits"),
    ({"scores": [[-0.5, 0.2], [0.5, 0.1]]}, r"row 0 \(a\): .*logits"),
    ({"scores": [[1.0], [0.5]], "classes": [[1], [2]]}, r"row 1 \(b\): .*not in 0\.\.1"),
    ({"scores": [[1.0], [0.5]], "classes": [[-1], [0]]}, r"row 0 \(a\): .*not in 0\.\.1"),
    ({"scores": [[1.0], [0.5]], "classes": [[1], [None]]}, r"row 1 \(b\): .*not in 0\.\.1"),
    ({"scores": [[1.0], [0.5]], "classes": [[1], None]}, r"row 1 \(b\): .*numbers of classes"),
    ({"scores": [[1.0], [0.5]], "classes": [[1], [0, 1]]}, r"row 1 \(b\): .*numbers of classes"),
    ({"scores": [[1.0], [1.0, 1.0]], "classes": [[1], [0, 0]]}, r"row 1 \(b\): .*twice"),
    ({"scores": [[1.0], [float("inf")]], "classes": [[1], [0]]}, r"row 1 \(b\): a score"),
]


@pytest.mark.parametrize(("columns", "message"), BAD)
def test_a_bad_row_is_named(tmp_path, columns, message):
    arrays = {"scores": pa.array(columns["scores"], FLOATS)}
    if "classes" in columns:
        arrays["classes"] = pa.array(columns["classes"], pa.list_(pa.int32()))
    path = write(tmp_path, name=["a", "b"], **arrays)
    with pytest.raises(PrepareError, match=rf"p\.parquet: {message}"):
        read(path, 2)


def test_rows_are_counted_over_pieces_and_missing_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "_VALUES_AT_ONCE", 4)
    scores = [[0.5, 0.5]] * 3 + [None] + [[0.5, 0.5]] * 2 + [[2.0, 0.5]]
    path = write(tmp_path, name=list("abcdefg"), scores=pa.array(scores, FLOATS))
    with pytest.raises(PrepareError, match=r"row 6 \(g\)"):
        read(path, 2)
    monkeypatch.undo()  # all in one piece
    with pytest.raises(PrepareError, match=r"row 6 \(g\)"):
        read(path, 2)
    names = pa.array(["a", "b", "c", "d", "e", None, "g"])
    path = write(tmp_path, name=names, scores=pa.array([[0.5, 0.5]] * 7, FLOATS))
    with pytest.raises(PrepareError, match=r"row 5 .*null"):
        read(path, 2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"scores": [[0.5]]}, r"no column 'name', only \['scores'\]"),
        ({"name": ["a"]}, "no column 'scores'"),
        ({"name": ["a"], "scores": [0.5]}, "column 'scores' has double, not lists of floats"),
        ({"name": ["a"], "scores": [[1]]}, "column 'scores' has list<.*int64>"),
        ({"name": [1], "scores": [[0.5]]}, "column 'name' has int64, not strings"),
        ({"label": ["a"], "scores": [[0.5]]}, "column 'label' has string, not integers"),
        (
            {"name": ["a"], "scores": [[0.5]], "classes": [["a"]]},
            "column 'classes' has list<.*string>, not lists of integers",
        ),
    ],
)
def test_bad_columns_are_named(tmp_path, columns, message):
    with pytest.raises(PrepareError, match=rf"p\.parquet: {message}"):
        PredictionFile(write(tmp_path, **columns), num_classes=1)


def test_damaged_files_are_named(tmp_path):
    path = write(tmp_path, name=["a"] * 1000, scores=[[0.5, 0.25]] * 1000)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(200) + content[204:])
    with pytest.raises(PrepareError, match=r"p\.parquet: unreadable after row 0"):
        read(path, 2)
    path.write_bytes(content[:-20])
    with pytest.raises(PrepareError, match=r"p\.parquet: not a Parquet file"):
        read(path, 2)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.parquet", 2)


ROWS = st.lists(
    st.none() | st.lists(st.sampled_from([0.0, 0.5, 0.5000001, 1.0]), min_size=4, max_size=4),
    max_size=8,
)


@STEADY
@given(ROWS, st.integers(1, 20))
def test_dense_and_sparse_files_say_the_same(tmp_path_factory, rows, values_at_once):
    folder = tmp_path_factory.getbasetemp()
    names = [f"{i}" for i in range(len(rows))]
    expected = [
        [
            (name.encode(), {j for j, score in enumerate(row) if np.float32(score) > 0.5})
            for name, row in zip(names, rows, strict=True)
            if row is not None
        ],
        rows.count(None),
    ]
    kept = [[j for j, score in enumerate(row or ()) if score] for row in rows]
    scores = [
        None if row is None else [row[j] for j in js] for row, js in zip(rows, kept, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "_VALUES_AT_ONCE", values_at_once)
        columns = {"name": pa.array(names, pa.string())}
        dense = write(folder, scores=pa.array(rows, FLOATS), **columns)
        assert read(dense, 4, 0.5) == expected
        classes = pa.array(kept, pa.list_(pa.int32()))
        sparse = write(folder, scores=pa.array(scores, FLOATS), classes=classes, **columns)
        assert read(sparse, 4, 0.5) == expected
