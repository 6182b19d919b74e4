# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax import settings
from mlimages_jax.checkpoints import best_record, manager
from mlimages_jax.checkpoints.best_record import BestRecord
from mlimages_jax.distributed import collectives
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.single_label import SingleLabelMetrics
from mlimages_jax.settings import metric_names
from mlimages_jax.training import evaluations, train
from mlimages_jax.training.best_checkpoint import BestCheckpoint
from tests.support.small_run import small_config
from tfds_builders import shapes

FOUND = {2: 0.1, 4: 0.5, 6: 0.5, 8: 0.2, 10: 0.9, 12: 0.9}  # the metric of every step
CHANGES = {
    "total_steps": 12,
    "evaluate_every": 2,
    "checkpoint.every": 3,
    "checkpoint.keep_latest": 1,
    "checkpoint.best": "val/mAP",
    "early_stopping.patience": 2,
    "loss.name": "sigmoid",
    "model.stage_sizes": (1,),
    "model.stage_widths": (16,),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=16, num_val=8, size=32)


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


@jax.jit
def _update(state, batch):
    """Stands for the step of a network, which would take long to compile."""
    params = jax.tree.map(lambda w: w / 2 + batch["image"].mean() / 255, state.params)
    metrics = dict.fromkeys(("loss", "learning_rate", "gradient_norm"), jnp.float32(1))
    metrics["images"] = jnp.float32(16)
    return dataclasses.replace(state, step=state.step + 1, params=params), metrics


@pytest.fixture
def evaluated(monkeypatch):
    """The steps that a training evaluates; negative ones in it are killed once."""
    steps: list[int] = []
    monkeypatch.setattr(train, "compile_step", lambda training, stage, max_labels: _update)

    def evaluate(_, state, writer, step, *, check_stop):
        if -step in steps:
            steps.remove(-step)
            raise Killed
        steps.append(step)
        assert int(state.step) == step
        return evaluations.Results({"val/mAP": FOUND[step]}, {})

    monkeypatch.setattr(train, "evaluate_and_log", evaluate)
    monkeypatch.setattr(train.curves, "write_curves", lambda workdir: None)  # takes its time
    return steps


@pytest.mark.slow
def test_a_run_keeps_its_best_and_ends_early_with_or_without_a_kill(
    drawn, tmp_path, evaluated, caplog, monkeypatch
):
    caplog.set_level("INFO")
    config, folder = small_config(drawn, **CHANGES), tmp_path / "whole" / "checkpoints"
    whole = jax.device_get(train.train(config, tmp_path / "whole"))
    assert whole.step == 8 and evaluated == [2, 4, 6, 8]
    assert "finished early, after 8 of 12 steps: 2 evaluations since step 4 (0.5000)" in caplog.text
    assert "the best checkpoint is step 4: val/mAP 0.5000" in caplog.text
    assert [step.name for step in manager.find(folder)] == ["4", "8"]
    goodput = (tmp_path / "whole" / "goodput.jsonl").read_text().splitlines()
    assert json.loads(goodput[-1])["finished"]

    # A restart trains no step, and what it evaluates again changes nothing.
    record = (folder / best_record.FILE).read_text()
    evaluated.clear()
    monkeypatch.setitem(FOUND, 8, 0.6)  # as on other devices, if by far more
    assert train.train(config, tmp_path / "whole").step == 8
    monkeypatch.setitem(FOUND, 8, 0.2)
    assert evaluated == [8] and (folder / best_record.FILE).read_text() == record

    # Killed while it evaluates: the value is made up for before the next step.
    evaluated[:] = [-6]
    with pytest.raises(Killed):
        train.train(config, tmp_path / "killed")
    assert evaluated == [2, 4]
    state = jax.device_get(train.train(config, tmp_path / "killed"))
    assert evaluated == [2, 4, 6, 8]
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    assert (tmp_path / "killed/checkpoints" / best_record.FILE).read_text() == record
    assert [step.name for step in manager.find(tmp_path / "killed")] == ["4", "8"]


class Saved:
    """Stands for checkpoints."""

    def __init__(self, *values: float, metric: str = "val/mAP"):
        self.evaluations: BestRecord | None = None
        for number, value in enumerate(values, start=1):
            self.record(metric, 2 * number, value)

    forget_evaluations_after = manager.Checkpoints.forget_evaluations_after
    record = manager.Checkpoints.record

    def _write(self, record: BestRecord) -> None:
        self.evaluations = record


def _best(saved: Saved, *, start: int = 0, **changes) -> BestCheckpoint:
    config = settings.checked(small_config("unused", **{**CHANGES, **changes}))
    return BestCheckpoint(config, saved, start=start)


def test_a_restart_from_an_earlier_step_forgets_what_came_later():
    saved = Saved(0.1, 0.5, 0.3, 0.2)
    assert _best(saved, start=8).ends_early(8)
    resumed = _best(saved, start=6)  # step 8 was damaged
    assert not resumed.ends_early(6) and not resumed.is_missing(6)
    assert saved.evaluations.evaluations[-1].step == 6
    resumed.record(8, {"val/mAP": 0.9})
    assert not resumed.ends_early(8) and saved.evaluations.best() == (8, 0.9)
    resumed.record(8, {"val/mAP": 0.1})  # again, at the end: the first counts
    assert saved.evaluations.best() == (8, 0.9)


def test_which_steps_are_saved_and_made_up_for():
    best = _best(Saved(0.1, 0.2))
    assert [step for step in range(1, 13) if best.needs_save(step)] == [2, 4, 6, 8, 10, 12]
    resumed = _best(Saved(0.1, 0.2), start=6)
    assert [step for step in range(13) if resumed.is_missing(step)] == [6, 8, 10]
    off = _best(saved := Saved(), **{"checkpoint.best": "", "early_stopping.patience": 0})
    assert not any(off.needs_save(step) or off.is_missing(step) for step in range(13))
    off.record(2, {"val/mAP": 0.5})
    assert saved.evaluations is None


def test_no_patience_never_ends_and_the_last_step_is_not_early():
    saved = Saved(0.5, 0.4, 0.3, 0.2, 0.1, 0.1)
    assert _best(saved, start=12).ends_early(10)
    assert not _best(saved, start=12).ends_early(12)
    assert not _best(saved, start=12, **{"early_stopping.patience": 0}).ends_early(10)


def test_values_that_are_no_numbers_are_evaluations_without_improvement():
    best = _best(saved := Saved())
    for step in (2, 4):
        best.record(step, {"val/mAP": float("nan")})
    assert best.ends_early(4) and saved.evaluations.best() is None


def test_another_metric_begins_anew(caplog):
    best = _best(saved := Saved(0.5, 0.4, 0.3, metric="val/loss"), start=6)
    assert "was chosen by val/loss; from now on it is chosen by val/mAP" in caplog.text
    assert not best.ends_early(6) and best.is_missing(6)
    best.record(6, {"val/mAP": 0.3})
    assert saved.evaluations == BestRecord("val/mAP", ((6, 0.3),))


def test_after_its_last_step_a_run_keeps_the_best_one_of_another_metric(caplog):
    """As where a finished run is started again to evaluate another split."""
    best = _best(saved := Saved(*6 * [0.5], metric="val/loss"), start=12)
    assert "stays the one chosen by val/loss: all steps are done" in caplog.text
    best.record(12, {"val/mAP": 0.3})
    best.finish()
    assert saved.evaluations == Saved(*6 * [0.5], metric="val/loss").evaluations
    best = _best(saved := Saved(*6 * [float("nan")], metric="val/loss"), start=12)
    best.record(12, {"val/mAP": 0.3})
    assert saved.evaluations == BestRecord("val/mAP", ((12, 0.3),))


@pytest.mark.parametrize(("values", "count"), [((0.5, 0.4), 1), ((float("nan"),), 0), ((), 0)])
def test_switched_off_it_says_that_the_best_one_is_still_used(caplog, values, count):
    off = {"checkpoint.best": "", "early_stopping.patience": 0}
    _best(saved := Saved(*values), start=4, **off)
    told = "chosen by val/mAP: it is kept and used, not the latest, until best.json"
    assert caplog.text.count(told) == count and len(caplog.messages) == count
    assert saved.evaluations == Saved(*values).evaluations


def test_the_number_of_process_0_decides_for_all(monkeypatch):
    best = _best(saved := Saved())
    monkeypatch.setattr(collectives, "of_process_0", lambda value: value + 0.25)
    best.record(2, {"val/mAP": 0.5})
    assert saved.evaluations.best() == (2, 0.75)


def test_raw_weights_are_not_the_ones_that_are_used(caplog):
    _best(Saved(), **{"optimizer.ema_decay": 0.9})
    assert "val_averaged/mAP is a metric of those" in caplog.text
    caplog.clear()
    ema = {"optimizer.ema_decay": 0.9, "checkpoint.best": "val_averaged/mAP"}
    best = _best(saved := Saved(), **ema)
    assert not caplog.text
    best.record(2, {"val/mAP": 0.5, "val_averaged/mAP": 0.7})
    assert saved.evaluations.best() == (2, 0.7)


def _written(metrics, *, names, ema) -> list[str]:
    """The names that evaluations with these metrics write."""
    nothing = types.SimpleNamespace(
        run=lambda weights, check_stop: ({"loss": 1.0} | metrics.compute(), metrics)
    )
    writer = types.SimpleNamespace(write=lambda step, values: None)
    state = types.SimpleNamespace(weights="raw", ema="ema" if ema else None)
    found = evaluations.evaluate_and_log(
        dict.fromkeys(names, nothing), state, writer, 4, check_stop=lambda: None
    )
    return sorted(found.values)


@pytest.mark.parametrize("single_label", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_the_names_that_may_be_given_are_those_written(single_label):
    metrics = SingleLabelMetrics(2) if single_label else MultiLabelMetrics(
        2, np.array([[0], [1]]), positive_weight=1.0
    )  # fmt: skip
    known = metric_names.metric_names(
        splits=("val", "test"), views=("central", "whole"), sizes=(32,),
        single_label=single_label, has_ema=True,
    )  # fmt: skip
    evaluations_of = ("val_central_32", "val_whole_32", "test_central_32", "test_whole_32")
    written = _written(metrics, names=evaluations_of, ema=True)
    counts = ("/examples", "/mAP_classes")  # which rank nothing
    assert sorted(known) == [name for name in written if not name.endswith(counts)]
    one = metric_names.metric_names(
        splits=("val",), views=("central",), sizes=(32,), single_label=single_label, has_ema=False
    )
    assert set(one) < set(_written(metrics, names=("val",), ema=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint.best": "val/map"}, "val/map' is none of.*did you mean 'val/mAP'"),
        ({"checkpoint.best": "test/mAP"}, "none of the metrics of this run's evaluations, val/mAP"),
        ({"checkpoint.best": "val_averaged/mAP"}, "none of"),  # without EMA
        ({"loss.name": "softmax"}, "none of.*, val/top1, val/top5"),
        ({"evaluation.splits": ()}, "checkpoint.best='val/mAP': nothing is evaluated"),
        ({"evaluate_every": 0}, "evaluate_every=0 evaluates at the end only"),
        ({"checkpoint.best": ""}, "early_stopping.patience=2: name the metric"),
        ({"evaluation.sizes": (32, 48)}, "did you mean 'val_whole_(32|48)/mAP'"),
    ],
)
def test_a_metric_that_is_not_written_is_refused_by_name(changes, message):
    with pytest.raises(settings.ConfigError, match=message):
        settings.checked(small_config("unused", **{**CHANGES, **changes}))
