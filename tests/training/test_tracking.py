# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.monitoring import trackers
from mlimages_jax.settings import ConfigError
from mlimages_jax.training.train import train
from tests.support.small_run import small_config


class _Recorder:
    run_id = "1"

    def __init__(self, project, name, run_id, settings, workdir):
        self.opened = (project, name, settings)
        self.got = []

    def write(self, step, values):
        self.got.append((step, dict(values)))

    def add_file(self, path):
        self.got.append(path.name)

    def close(self):
        self.got.append("closed")


@pytest.mark.slow
def test_a_training_sends_its_metrics_and_files(drawn, tmp_path, monkeypatch):
    opened = []

    def open_(*arguments):
        opened.append(_Recorder(*arguments))
        return opened[-1]

    monkeypatch.setitem(trackers.TRACKERS, "wandb", open_)
    config = small_config(drawn, **{"total_steps": 4, "tracking.names": ("wandb",)})
    train(config, tmp_path / "run")
    (recorder,) = opened
    project, name, settings = recorder.opened
    assert (project, name, settings["total_steps"]) == ("mlimages", "run", 4)
    rows = [one for one in recorder.got if isinstance(one, tuple)]
    assert [step for step, _ in rows if step < 4] == [2]
    assert "training/loss" in rows[0][1] and "val/mAP" in rows[-1][1]
    files = [one for one in recorder.got if isinstance(one, str)]
    assert {"predictions.png", "per_class.tsv", "metrics.json"} < set(files)
    assert files[-1] == "closed"


def test_one_that_is_not_installed_ends_it_before_anything_is_compiled(
    drawn, tmp_path, monkeypatch
):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda *_: trackers._import("no_such_library"))
    config = small_config(drawn, **{"tracking.names": ("wandb",)})
    with pytest.raises(ConfigError, match="no_such_library is not installed: pip install"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()
