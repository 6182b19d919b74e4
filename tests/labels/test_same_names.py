# SPDX-License-Identifier: BSD-3-Clause
import unicodedata

import numpy as np
import pytest

from mlimages_jax.labels.class_map import map_classes
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelList
from mlimages_jax.labels.merging import merge_rows
from mlimages_jax.labels.same_names import AmbiguousNameError, SameNames

NFC, NFD = "caf\u00e9", "cafe\u0301"


def _classes(*ids):
    return Hierarchy(ids, ids, np.full(len(ids), -1))


def test_the_equal_name_goes_before_the_same_one():
    names = SameNames([NFC, NFD, "dog"])
    assert [names.find(name) for name in (NFC, NFD, "dog", "cat")] == [NFC, NFD, "dog", None]
    assert SameNames([NFD]).find(NFC) == NFD
    assert SameNames([NFC]).find(NFD) == NFC
    hangul = "\ud55c\uad6d"
    assert SameNames([unicodedata.normalize("NFD", hangul)]).find(hangul) is not None
    assert SameNames([]).find("") is None


def test_one_of_two_is_not_guessed():
    first, second = NFC + NFD, NFD + NFC
    with pytest.raises(AmbiguousNameError) as caught:
        SameNames([NFC + NFC, first]).find(second)
    assert ascii(NFC + NFC) in str(caught.value)
    assert ascii(first) in str(caught.value)


def test_upper_and_lower_case_is_a_question():
    names = SameNames(["Cat.JPG", "stra\u00dfe"])
    assert names.find("cat.jpg") is None
    assert names.question("cat.jpg") == "; is it 'Cat.JPG'?"
    assert names.question("STRASSE") == "; is it 'stra\u00dfe'?"
    assert names.question("dog") == ""


def test_rows_of_the_same_name_are_merged():
    rows = [(f"{NFD}.jpg", [1], [1]), ("a.jpg", [1], [1]), (f"{NFC}.jpg", [2], [1])]
    (merged,) = merge_rows(LabelList.from_rows(rows, num_classes=3))
    assert [(row.name, row.classes.tolist()) for row in merged] == [
        (f"{NFD}.jpg", [1, 2]), ("a.jpg", [1]),
    ]  # fmt: skip


def test_classes_of_the_same_id_are_the_same():
    assert map_classes(_classes(NFC, "dog", "x"), _classes("dog", NFD)).tolist() == [1, 0, -1]
    assert _classes("dog", NFD).index(NFC) == 1
    both = _classes(NFC, NFD)
    assert [both.index(NFC), both.index(NFD)] == [0, 1]
    with pytest.raises(KeyError, match="is it 'dog'"):
        _classes("dog").index("Dog")
