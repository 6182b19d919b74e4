# SPDX-License-Identifier: BSD-3-Clause
import json
import sys

from PIL import Image

from mlimages_jax.monitoring import curves


def _write(folder, rows):
    text = "".join(f"{row}\n" if isinstance(row, str) else f"{json.dumps(row)}\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text)


def test_of_a_repeated_step_the_last_line_counts(tmp_path):
    _write(tmp_path, [
        {"step": 2, "training/loss": 3.0}, {"step": 4, "training/loss": 2.0, "val/mAP": None},
        '{"step": 4, "train', {"step": 2, "training/loss": 2.5}, {"val/mAP": 1.0},
    ])  # fmt: skip
    series = curves.read_series(tmp_path / "metrics.jsonl")
    assert series == {"training/loss": {2: 2.5, 4: 2.0}}
    assert list(series["training/loss"]) == [2, 4]


def test_a_figure_also_of_one_point_and_none_without_metrics(tmp_path):
    curves.write_curves(tmp_path)
    assert not list(tmp_path.iterdir())
    _write(tmp_path, [{"step": 2, "val/mAP": 0.5, "val/loss": 1.0}])
    curves.write_curves(tmp_path)
    assert Image.open(tmp_path / curves.NAME).size == (1350, 540)


def test_a_training_goes_on_where_nothing_can_draw(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    _write(tmp_path, [{"step": 2, "training/loss": 0.5}])
    curves.write_curves(tmp_path)
    assert not (tmp_path / curves.NAME).exists()
