# SPDX-License-Identifier: BSD-3-Clause
"""The names of classes in the metadata of `datasets`, in the forms of its versions."""

import json
from pathlib import Path

import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.class_names import ClassNames, class_names, features_of

LABEL = {"names": ["cat", "dog"], "_type": "ClassLabel"}
BOXES = {"bbox": {"_type": "Value"}, "category": LABEL}


@pytest.mark.parametrize(
    ("feature", "cell", "names"),
    [
        (LABEL, 1, ["dog"]),
        (LABEL, -1, None),
        (LABEL, None, None),
        ({"feature": LABEL, "_type": "List"}, [1, 0], ["dog", "cat"]),
        ({"feature": LABEL, "length": -1, "_type": "Sequence"}, [], []),
        ([LABEL], [0, None, -1], ["cat"]),
        ({"feature": BOXES, "_type": "Sequence"}, {"bbox": [], "category": [0, 0]}, ["cat"] * 2),
        ([BOXES], [{"bbox": 1, "category": 1}, {"category": 0}], ["dog", "cat"]),
        ({"feature": BOXES, "_type": "List"}, [], []),
        (BOXES, {"category": 1}, ["dog"]),
    ],
)
def test_numbers_become_names(feature, cell, names):
    assert class_names(feature).labels_of(cell) == names


@pytest.mark.parametrize("number", [2, -2, 0.5, "cat", True + 1])
def test_a_number_without_a_name_is_an_error(number):
    with pytest.raises(ValueError, match=rf"the class {number!r} has no name: the metadata has 2"):
        ClassNames(("cat", "dog")).labels_of(number)


@pytest.mark.parametrize(
    "feature",
    [None, 3, [], [LABEL, LABEL], {"_type": "Value"}, {"_type": "ClassLabel", "names": None},
     {"_type": "ClassLabel", "names": [1]}, {"_type": "ClassLabel", "names": []},
     [[[[[[LABEL]]]]]]],
)  # fmt: skip
def test_features_without_names(feature):
    assert class_names(feature) is None


def test_the_schema_comes_before_the_file_beside_it(tmp_path):
    path = tmp_path / "data.arrow"
    assert features_of(path, None) == {}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": {"a": LABEL}}))
    assert features_of(path, {b"other": b"{}"}) == {"a": LABEL}
    inside = json.dumps({"info": {"features": {"b": LABEL}}}).encode()
    assert features_of(path, {b"huggingface": inside}) == {"b": LABEL}


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"info": 3}', b'{"features": [1]}', b"\xff",
                                  b"[" * 100_000])  # fmt: skip
def test_damaged_metadata_is_named(text):
    with pytest.raises(PrepareError, match=r"a\.parquet: its metadata `huggingface`: not as"):
        features_of(Path("a.parquet"), {b"huggingface": text})
