# SPDX-License-Identifier: BSD-3-Clause
"""The file of one threshold a class: written, changed in a spreadsheet, damaged."""

import csv

import numpy as np
import pytest

from mlimages_jax.labels import class_thresholds
from mlimages_jax.labels.class_thresholds import ThresholdError
from mlimages_jax.labels.hierarchy import Hierarchy

IDS = ("n0", '"quoted"', "# tag", "=1+2")
HIERARCHY = Hierarchy(IDS, ("animal, beast", "b", "c", "d"), np.full(4, -1))
TEXT = class_thresholds.write_text(
    {"optimised": "maximum F1", "split": "val", "weights": "abc", "positive weight": "12"},
    {
        "class": range(4), "id": IDS, "threshold": ["0.5", "1e-07", "0.25", "1"],
        "name": HIERARCHY.names,
    },
)  # fmt: skip


def test_what_was_written_is_read():
    found = class_thresholds.parse(TEXT, where="W/t.tsv")
    assert found.ids == IDS and found.weights == "abc"
    np.testing.assert_array_equal(found.of(HIERARCHY), [0.5, 1e-7, 0.25, 1])
    assert str(found) == "W/t.tsv (maximum F1, val)"
    assert TEXT.splitlines()[0] == "# mlimages thresholds\t1"
    assert TEXT.splitlines()[6] == "0\tn0\t0.5\tanimal, beast"


def test_a_spreadsheet_may_sort_it_and_add_columns(tmp_path):
    """As LibreOffice and Excel write it: all lines equally long, CR LF, a byte order mark."""
    rows = list(csv.reader(TEXT.splitlines(), "excel-tab"))
    wide = [[*row, *[""] * (6 - len(row))] for row in [*rows[:6], *rows[:5:-1]]]
    wide[5][4:] = ["remark", "another"]
    path = tmp_path / "thresholds.tsv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, "excel-tab").writerows(wide)
    found = class_thresholds.read(path)
    assert found.ids == IDS[::-1]
    np.testing.assert_array_equal(found.of(HIERARCHY), [0.5, 1e-7, 0.25, 1])
    assert found.problem(HIERARCHY, "abc", positive_weight=12) is None


def test_thresholds_of_another_model_say_what_to_do():
    found = class_thresholds.parse(TEXT, where="t")
    others = Hierarchy((*IDS[:3], "n9"), HIERARCHY.names, np.full(4, -1))
    told = found.problem(others, "abc", positive_weight=12)
    assert told == f"t has thresholds of other classes: {class_thresholds.FIND_THEM}"
    told = found.problem(HIERARCHY, "def", positive_weight=12)
    assert "other weights, abc, and these are def: find" in told and "delete its line" in told
    told = found.problem(HIERARCHY, "abc", positive_weight=1)
    assert "weights positives by 12, and these are of one that weights them by 1" in told
    free = class_thresholds.parse(TEXT.replace("# weights\tabc\n", ""), where="t")
    assert free.problem(HIERARCHY, "def", positive_weight=12) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n0\t0.5\n", "^t:1: the first line must begin with '# mlimages thresholds'"),
        (TEXT.replace("threshold\t", "limit\t"), "^t: .* a line of column names"),
        ("# mlimages thresholds\t1\n", "^t: .* a line of column names"),
        ("# mlimages thresholds\t1\nid\tthreshold\n", "^t has no thresholds: find those"),
        (TEXT.replace("0.25", "0,25"), "^t:9: '0,25' is not a threshold; give a number from 0"),
        (TEXT.replace("\t0.25", ""), "^t:9: 'c' is not a threshold"),
        (TEXT + "9\n", "^t:11: the id or the threshold is missing"),
        (TEXT + "9\tn0\t0.1\n", "^t:11: class n0 already has a threshold"),
    ],
)
def test_a_wrong_line_is_named(text, message):
    with pytest.raises(ThresholdError, match=message):
        class_thresholds.parse(text, where="t")


def test_other_text_is_named(tmp_path):
    (tmp_path / "t").write_bytes(b"\xff\xfeabc")
    with pytest.raises(ThresholdError, match="UTF-16"):
        class_thresholds.read(tmp_path / "t")
