# SPDX-License-Identifier: BSD-3-Clause
"""The files at the end of a training are of the weights that `load` takes."""

import json
import types

import jax
import numpy as np
import pytest
from etils import epath

import mlimages_jax
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.distributed import preemption
from mlimages_jax.training import final_report, train
from mlimages_jax.training.final_report import Reported, evaluated_for_report
from tests.support import labelled_set
from tests.support.small_run import small_config
from tfds_builders import shapes

pytestmark = pytest.mark.usefixtures("no_figures")
BEST_FIRST = {"total_steps": 4, "evaluate_every": 2, "checkpoint.best": "val/mAP",
              "model.stage_sizes": (1,), "model.stage_widths": (16,)}  # fmt: skip


class Saved:
    """Stands for checkpoints of which some are damaged."""

    def __init__(self, folder, *ranked, damaged=()):
        self.directory, self._ranked, self._damaged = folder, list(ranked), damaged
        self.aside = []

    @property
    def steps(self):
        return sorted(self._ranked)

    def best_step(self, steps):
        return next((step for step in self._ranked if step in steps), None)

    def set_aside(self, step, why):
        self._ranked.remove(step)
        self.aside.append(step)

    def restored(self, path, abstract_state):
        if int(path.name) in self._damaged:
            raise DamagedCheckpointError(path.name)
        return f"weights of {path.name}, as {abstract_state}"


def _reported(saved, monkeypatch, *, ema=None) -> Reported:
    monkeypatch.setattr(final_report, "restore_weights", saved.restored)
    evaluation = types.SimpleNamespace(run=lambda weights, check_stop: ({"of": weights}, "again"))
    state = types.SimpleNamespace(step=np.int32(8), weights="last", ema=ema)
    reports = {"val": ({"of": "last"}, "counted"), "test": ({}, "no")}
    return evaluated_for_report(
        saved,
        evaluation,
        state=state,
        abstract_state="shapes",
        reports=reports,
        check_stop=lambda: None,
    )


@pytest.mark.parametrize("ranked", [(), (8, 4)])
def test_the_last_step_is_not_evaluated_again(tmp_path, monkeypatch, ranked):
    """Nor is anything restored, where no best one is recorded or it is the last."""
    saved = Saved(tmp_path, *ranked)
    assert _reported(saved, monkeypatch) == (8, "last", {"of": "last"}, "counted")
    assert _reported(saved, monkeypatch, ema="mean").weights == "mean"


def test_the_best_step_is_restored_and_evaluated(tmp_path, monkeypatch):
    weights = "weights of 4, as shapes"
    found = _reported(Saved(tmp_path, 4, 8), monkeypatch)
    assert found == (4, weights, {"of": weights}, "again")


@pytest.mark.parametrize(("ranked", "left"), [((4, 6, 8), 6), ((4, 8, 6), 8)])
def test_a_damaged_best_step_gives_way_to_the_next(tmp_path, monkeypatch, ranked, left):
    saved = Saved(tmp_path, *ranked, damaged=(4,))
    assert _reported(saved, monkeypatch).step == left and saved.aside == [4]


@pytest.mark.parametrize(("processes", "drawn"), [(1, 1), (2, 0)])
def test_figures_of_an_earlier_end_do_not_stay(tmp_path, monkeypatch, processes, drawn):
    """Several processes draw none, and those of other weights would pass for theirs."""
    grids, workdir = [], epath.Path(tmp_path)
    stale = [workdir / "predictions.png", workdir / "examples.json"]
    for path in stale:
        path.touch()
    monkeypatch.setattr(final_report.report, "write_files", lambda *_, **__: None)
    monkeypatch.setattr(final_report.jax, "process_count", lambda: processes)
    monkeypatch.setattr(
        final_report.prediction_grid, "write_grid", lambda path, *_, **__: grids.append(path)
    )
    data = labelled_set.write(tmp_path / "data", [{0: 1.0}])
    reported = Reported(8, "weights", {}, "of one class per image")
    config = small_config(data.folder)
    final_report.write_report(workdir, reported, config=config, data=data, evaluation=None)
    assert grids == [stale[0]] * drawn and not any(path.exists() for path in stale)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=32, num_val=8, size=32)


@pytest.fixture
def best_first(monkeypatch):
    """The earlier an evaluation, the better it counts; what it writes and counts stays true."""
    evaluate = train.evaluate_and_log

    def pretending(evaluations, state, writer, step, *, check_stop):
        results = evaluate(evaluations, state, writer, step, check_stop=check_stop)
        return results._replace(values=results.values | {"val/mAP": 1 / step})

    monkeypatch.setattr(train, "evaluate_and_log", pretending)


def _losses(workdir) -> dict[int, float]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}


@pytest.mark.slow
@pytest.mark.usefixtures("best_first")
def test_the_files_are_of_the_weights_that_load_takes(few, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        final_report.prediction_grid, "write_grid", lambda path, *of, **how: drawn.append((of, how))
    )
    config = small_config(few, **BEST_FIRST)
    state = train.train(config, tmp_path)
    assert state.step == 4, "the state that is returned is the last one all the same"
    losses, model = _losses(tmp_path), mlimages_jax.load(tmp_path)
    assert losses.keys() == {2, 4} and losses[2] != losses[4]
    values = json.loads((tmp_path / "metrics.json").read_text())
    assert (values["step"], values["loss"]) == (2, losses[2])
    (((_, weights, _), how),) = drawn
    jax.tree.map(np.testing.assert_array_equal, weights["params"], model.params)
    table = [line.split("\t") for line in (tmp_path / "per_class.tsv").read_text().splitlines()]
    at = table[0].index("threshold")
    limits = {int(row[0]): float(row[at]) for row in table[1:]}
    for i, limit in enumerate(how["limits"]):
        assert limits[i] == pytest.approx(limit, rel=1e-5)

    # Started again: nothing is trained, and the files are the same.
    before = (tmp_path / "per_class.tsv").read_bytes()
    (tmp_path / "per_class.tsv").unlink()
    assert train.train(config, tmp_path).step == 4
    assert (tmp_path / "per_class.tsv").read_bytes() == before


@pytest.mark.slow
@pytest.mark.usefixtures("best_first")
def test_a_stop_while_the_best_step_is_evaluated_is_made_up_for(few, tmp_path, monkeypatch):
    config, restore = small_config(few, **BEST_FIRST), final_report.restore_weights

    def stopped(path, abstract_state):
        received.append(15)
        return restore(path, abstract_state)

    received: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "_received", received)
        patch.setattr(final_report, "restore_weights", stopped)
        with pytest.raises(preemption.Preempted):
            train.train(config, tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    train.train(config, tmp_path)
    loss = json.loads((tmp_path / "metrics.json").read_text())["loss"]
    assert loss == _losses(tmp_path)[2]
