# SPDX-License-Identifier: BSD-3-Clause
"""Means of groups of classes, log lines and the table, on classes whose numbers are known."""

import numpy as np
import pytest

from mlimages_jax.evaluation.class_details import COLUMNS, ClassDetails
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.multi_label import MultiLabelMetrics

TREE = Hierarchy(
    ("n0", "n1", "n2", "n3"), ("animal", "dog", "poodle", "car"), np.array([-1, 0, 1, -1])
)
LIMITS = np.array([0.5, 0.9, 0.5, 0.2])


@pytest.fixture(scope="module")
def metrics():
    """Average precisions 1, 1/2, 1/3 and none; probabilities 1/2 and above for scores from 0."""
    metrics = MultiLabelMetrics(4, positive_weight=1.0)
    scores = np.array([[2, 1, 0, 5], [-1, 2, 1, 5], [-2, -1, 2, -5]], np.float32)
    targets = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    metrics.update(scores, targets)
    return metrics


def test_the_table_of_given_thresholds(metrics):
    details = ClassDetails.of(
        metrics, TREE, thresholds=(LIMITS, "W/t.tsv"), train_positives=np.array([101, 100, 20, 19])
    )
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in details.rows()]
    assert [row["class"] for row in rows] == [0, 1, 2, 3]
    first, second, third, last = rows
    assert first["id"] == "n0" and first["name"] == "animal" and first["depth"] == 0
    assert (first["average_precision"], second["average_precision"]) == ("1.0000", "0.5000")
    assert (first["ap_low"], first["ap_high"], first["balanced_ap"]) == ("1.0000",) * 3
    assert second["balanced_ap"] == f"{1 / 1.5:.4f}" and third["balanced_ap"] == "0.5000"
    assert float(second["ap_low"]) <= 0.5 <= float(second["ap_high"])
    assert [row["train_positives"] for row in rows] == [101, 100, 20, 19]
    assert [row["positives"] for row in rows] == [1, 1, 1, 0]
    assert [row["threshold"] for row in rows] == ["0.5", "0.9", "0.5", "0.2"]
    assert [first[name] for name in ("precision", "recall", "f1")] == ["1.0000"] * 3
    assert [second[name] for name in ("precision", "recall", "f1")] == ["", "0.0000", "0.0000"]
    assert [third[name] for name in ("precision", "recall", "f1")] == ["0.3333", "1.0000", "0.5000"]
    assert [last[name] for name in ("average_precision", "ap_low", "recall", "f1")] == [""] * 4
    assert last["precision"] == "0.0000"  # two images reach 0.2, wrongly


def test_means_and_log_lines_of_groups(metrics):
    counts = np.array([101, 100, 20, 19])
    details = ClassDetails.of(metrics, TREE, thresholds=(LIMITS, "W/t"), train_positives=counts)
    assert details.means() == pytest.approx(
        {
            "balanced_mAP": (1 + 2 / 3 + 0.5) / 3, "mAP_head": 1.0, "mAP_medium": 5 / 12,
            "mAP_depth_0": 1.0, "mAP_depth_1": 0.5, "mAP_depth_2": 1 / 3,
        }
    )  # fmt: skip
    assert details.lines() == [
        "thresholds in per_class.tsv: W/t",
        "mAP (classes) by positives in training: head (more than 100) 1.0000 (1), "
        "medium (20 to 100) 0.4167 (2)",
        "mAP (classes) by depth in the hierarchy: 0: 1.0000 (1), 1: 0.5000 (1), 2: 0.3333 (1)",
    ]


def test_what_is_unknown_is_left_out(metrics):
    flat = Hierarchy(TREE.ids, TREE.names, np.full(4, -1))
    details = ClassDetails.of(metrics, flat)
    assert details.means().keys() == {"balanced_mAP"}
    assert details.lines() == ["thresholds in per_class.tsv: maximum F1 on these images"]
    assert {row[COLUMNS.index("train_positives")] for row in details.rows()} == {""}
    assert all(row[COLUMNS.index("threshold")] for row in details.rows())
    empty = ClassDetails.of(MultiLabelMetrics(4), flat)
    assert empty.means() == {}
    (columns,) = {row[3:7] + row[9:13] for row in empty.rows()}
    assert set(columns) == {""}
