# SPDX-License-Identifier: BSD-3-Clause
"""Hierarchies and label lists that hypothesis draws, and lists as plain Python."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList

STEADY = settings(deadline=None, derandomize=True)  # on busy machines too, the same every time
CONFIDENCES = st.sampled_from([-1.0, 0.0, -0.0, 0.1, 0.7, 1.0]) | st.floats(0, 1, width=32)
NAMES = st.text("abä", min_size=1, max_size=2)  # short: they repeat


def make_hierarchy(parents: list[int]) -> Hierarchy:
    ids = tuple(f"n{i}" for i in range(len(parents)))
    return Hierarchy(ids, tuple(f"class {i}" for i in range(len(parents))), np.array(parents))


@st.composite
def hierarchies(draw, *, max_classes: int = 12) -> Hierarchy:
    count = draw(st.integers(1, max_classes))
    parents = [draw(st.integers(-1, i - 1)) for i in range(count)]
    numbers = draw(st.permutations(range(count)))  # a parent may come after its child
    shuffled = [-1] * count
    for i, parent in enumerate(parents):
        shuffled[numbers[i]] = -1 if parent < 0 else numbers[parent]
    return make_hierarchy(shuffled)


def label_lists(num_classes: int, *, max_rows: int = 8) -> st.SearchStrategy[LabelList]:
    labels = st.dictionaries(st.integers(0, num_classes - 1), CONFIDENCES, max_size=6)
    rows = st.lists(st.tuples(NAMES, labels), max_size=max_rows)
    return rows.map(
        lambda drawn: LabelList.from_rows(
            [(name, list(row), list(row.values())) for name, row in drawn],
            num_classes=num_classes,
        )
    )


def as_rows(label_list: LabelList) -> list[tuple[str, dict[int, float]]]:
    return [
        (name, dict(zip(classes.tolist(), confidences.tolist(), strict=True)))
        for name, classes, confidences in label_list
    ]


def assert_well_formed(label_list: LabelList) -> None:
    """Holds for every list: what readers and builders count on."""
    dtypes = {name: array.dtype.name for name, array in vars(label_list).items()}
    assert dtypes == {
        "names": "uint8", "name_offsets": "int64", "offsets": "int64", "classes": "int32",
        "confidences": "float32",
    }  # fmt: skip
    for offsets, values in (
        (label_list.name_offsets, label_list.names),
        (label_list.offsets, label_list.classes),
        (label_list.offsets, label_list.confidences),
    ):
        assert offsets[0] == 0
        assert offsets[-1] == len(values)
        assert (np.diff(offsets) >= 0).all()
