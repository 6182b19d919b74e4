# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.report import charts
from mlimages_jax.report.charts import Line


def test_means_of_classes_of_similar_frequency():
    frequencies = np.array([0, 1, 2, 10, 1000, 1000])
    values = np.array([0.9, 0.2, 0.4, 0.5, np.nan, 0.8])
    means = charts.means_by_frequency(frequencies, values)
    assert [one["classes"] for one in means] == [2, 1, 1]
    assert [one["measure"] for one in means] == pytest.approx([0.3, 0.5, 0.8])
    assert [one["frequency"] for one in means] == pytest.approx([2**0.5, 10, 1000])


def test_long_lines_are_thinned_and_keep_their_end():
    line = Line("training", "run", {step: step / 2 for step in range(5001)})
    specification = charts.lines([line], unit="loss")
    rows = specification["datasets"]["lines"]
    assert len(rows) <= 1001
    assert rows[0]["step"] == 0 and rows[-1] == {
        "step": 5000, "value": 2500.0, "line": "training", "run": "run",
    }  # fmt: skip


def test_restarts_are_rules_below_the_lines():
    line = Line("training", "run", {1: 1.0})
    rule, curve = charts.lines([line], unit="loss", restarts=[7])["layer"]
    assert rule["mark"]["type"] == "rule" and curve["mark"]["type"] == "line"
