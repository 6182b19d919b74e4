# SPDX-License-Identifier: BSD-3-Clause
import numpy as np

from mlimages_jax.evaluation import predictions
from mlimages_jax.labels.hierarchy import Hierarchy

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
