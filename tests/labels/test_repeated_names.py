# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.labels import repeated_names
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.repeated_names import find_repeats, first_shared, hashes_of


def _list(*names: str) -> LabelList:
    return LabelList.from_rows([(name, [0], [1.0]) for name in names], num_classes=1)


@pytest.mark.parametrize("rows", [2, 1000])
def test_names_in_one_list_and_in_several(monkeypatch, rows):
    monkeypatch.setattr(repeated_names, "_ROWS", rows)
    lists = {
        "train": _list("a.jpg", "b.jpg", "a.jpg", "é b.jpg", "a.jpg"),
        "val": _list("c.jpg", "é b.jpg", "b.jpg"),
        "test": _list("d.jpg", "a.jp"),
    }
    repeats = find_repeats({split: hashes_of(rows) for split, rows in lists.items()})
    assert repeats.within == {"train": 2}
    assert repeats.between == {("train", "val"): 2}
    assert first_shared(lists["val"], lists["train"]) == "é b.jpg"


def test_lists_without_repeats():
    hashes = {split: hashes_of(_list(*names)) for split, names in (("a", "xyz"), ("b", "uvw"))}
    assert find_repeats(hashes) == ({}, {})
