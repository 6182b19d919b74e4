# SPDX-License-Identifier: BSD-3-Clause
import numpy as np

from mlimages_jax import predictions
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics import MultiLabelMetrics

TREE = Hierarchy(
    ids=("a", "b", "c", "d"),
    names=("animal", "dog", "puppy", "stone"),
    parents=np.array([-1, 0, 1, -1], np.int32),
)


def test_ancestors_of_a_shown_tag_are_left_out():
    shown = predictions.specific_classes(np.array([0.9, 0.8, 0.7, 0.1]), TREE, count=2)
    assert shown == [2, 3]
    shown = predictions.specific_classes(np.array([0.9, 0.8, 0.1, 0.2]), TREE, count=3)
    assert shown == [1, 3, 2], "an unlikely child does not hide its parent"


def test_the_table_lists_the_best_class_first(tmp_path):
    metrics = MultiLabelMetrics(4)
    metrics.update(
        np.array([[3.0, 1, 0, 0], [2.0, 2, 0, 0]]), np.array([[1.0, 1, 0, 0], [1.0, 0, 0, 0]])
    )
    predictions.write_per_class_table(tmp_path / "t.tsv", metrics, TREE)
    lines = (tmp_path / "t.tsv").read_text().splitlines()
    assert lines[0] == "class\tid\tdepth\taverage_precision\tname"
    assert lines[1] == "0\ta\t0\t1.0000\tanimal"
    assert lines[2] == "1\tb\t1\t0.5000\tdog"
    assert lines[3:] == ["2\tc\t2\t\tpuppy", "3\td\t0\t\tstone"]
