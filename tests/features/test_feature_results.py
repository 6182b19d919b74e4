# SPDX-License-Identifier: BSD-3-Clause
import json

from mlimages_jax.features.results import table, write_json


def test_options_are_shown_whole_and_measures_with_four_digits():
    rows = [{"C": 1e-5, "top1": 0.5, "calibration_error": 0.1, "top5": 1.0}]
    rows.append({"C": 10.0, "top1": 0.12345, "calibration_error": 0.1, "top5": float("nan")})
    assert table(rows) == "    C    top1    top5\n1e-05  0.5000  1.0000\n   10  0.1235     nan"


def test_what_is_not_finite_becomes_null(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"ü": [1.5, {"b": float("nan")}], "c": (float("inf"), "x", 2, None)})
    assert json.loads(path.read_text()) == {"ü": [1.5, {"b": None}], "c": [None, "x", 2, None]}
    assert [found.name for found in tmp_path.iterdir()] == ["r.json"]
