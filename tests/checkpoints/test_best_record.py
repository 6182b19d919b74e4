# SPDX-License-Identifier: BSD-3-Clause
import json
import math
import shutil

import jax
import numpy as np
import pytest

from mlimages_jax import load
from mlimages_jax.checkpoints import best_record, manager, saved_model
from mlimages_jax.checkpoints.best_record import BestRecord, Evaluated
from tests.checkpoints.test_manager import _abstract, _state
from tests.support import damage, small_model


def _record(*values, metric="val/mAP") -> BestRecord:
    rows = (Evaluated(2 * n, value) for n, value in enumerate(values, start=1))
    return BestRecord(metric, tuple(rows))


def test_the_best_is_the_highest_or_of_losses_and_errors_the_lowest():
    values = (0.2, 0.5, 0.1, 0.5, math.nan)
    assert _record(*values).best() == (4, 0.5)  # the earlier of equal ones
    assert _record(*values).since_best() == 3
    for metric in ("val/loss", "val_averaged/calibration_error"):
        assert _record(*values, metric=metric).best() == (6, 0.1)
    assert _record(*values).best({2, 6, 10}) == (2, 0.2)  # of those that exist
    assert _record(*values).best({10}) is None  # a value that is no number is never the best
    assert _record(math.nan, math.nan).since_best() == 2
    assert BestRecord("val/mAP").best() is None


def test_a_repeated_evaluation_replaces_what_came_after_it():
    record = _record(0.1, 0.2, 0.3).with_value(4, 0.5)
    assert record == _record(0.1, 0.5)
    assert math.isnan(record.with_value(6, math.inf).evaluations[-1].value)


def test_a_record_comes_back_or_is_known_to_be_damaged(tmp_path):
    assert best_record.read(tmp_path) is None
    best_record.write(tmp_path, _record(0.1, 1 / 3))
    assert best_record.read(tmp_path) == _record(0.1, 1 / 3)
    best_record.write(tmp_path, _record(math.nan))
    assert math.isnan(best_record.read(tmp_path).evaluations[0].value)
    whole = (tmp_path / best_record.FILE).read_text()
    assert json.loads(whole)["evaluations"] == [[2, None]]  # JSON that every reader takes
    for broken in (whole.replace("[2,", "[4,"), whole[:-4], "", "[]", "{}", "\x00" * 9):
        (tmp_path / best_record.FILE).write_text(broken)
        with pytest.raises(best_record.BestRecordError, match=r"best\.json is damaged"):
            best_record.read(tmp_path)


def _run(folder, values, *, keep_latest=2, **kwargs):
    """The steps that are left of 2, 4, ... after the value of each was recorded."""
    with manager.Checkpoints(folder, keep_latest=keep_latest, **kwargs) as saved:
        for step, value in zip(range(2, 100, 2), values, strict=False):
            saved.save(_state(step), step=step, config={})
            saved.record("val/mAP", step, value)
        saved.delete_unkept()
        return saved.steps


def test_the_best_is_kept_beside_the_latest_and_only_one(tmp_path):
    assert _run(tmp_path / "changes", (0.5, 0.6, 0.3, 0.2, 0.1)) == [4, 8, 10]
    # The last step becomes the best: no save follows that would delete the former one.
    assert _run(tmp_path / "last", (0.5, 0.4, 0.6), keep_latest=1, keep_every=4) == [4, 6]


def test_a_former_best_is_deleted_only_when_the_new_one_is_written(tmp_path):
    with manager.Checkpoints(tmp_path, keep_latest=1) as saved:
        for step, value in ((2, 0.5), (4, 0.4), (6, 0.9)):
            saved.save(_state(step), step=step, config={})
            saved.record("val/mAP", step, value)
        assert (tmp_path / "2").exists()
        saved.save(_state(8), step=8, config={})
        # Another metric begins a record of its own.
        saved.record("val/loss", 8, 0.9)
        assert saved.evaluations == BestRecord("val/loss", ((8, 0.9),))
    assert [folder.name for folder in manager.find(tmp_path)] == ["6", "8"]


def _weights(step: int):
    return jax.tree.map(lambda leaf: leaf * step, small_model.weights())


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    """A workdir whose best step is not its latest."""
    workdir = tmp_path_factory.mktemp("best")
    config = small_model.imported("weighted")
    for step in (7, 9, 11):
        small_model.save(workdir, config, tree=_weights(step), step=step)
    with manager.Checkpoints(workdir / "checkpoints") as saved:
        for step, value in ((7, 0.2), (9, 0.4), (11, 0.3)):
            saved.record("val/mAP", step, value)
    return workdir


def _kernel(tree) -> np.ndarray:
    return np.asarray(tree["params"]["head"]["kernel"])


def test_readers_take_the_best_and_say_so(three_steps, caplog):
    caplog.set_level("INFO")
    best, latest = (_kernel(_weights(step)) for step in (9, 11))
    model = load(three_steps)
    np.testing.assert_array_equal(_kernel({"params": model.params}), best)
    assert caplog.text.count("using the best checkpoint, step 9 (val/mAP 0.4000)") == 1
    assert "; the latest is step 11" in caplog.text and "(step 9)" in model.source
    caplog.clear()
    chosen = load(three_steps, step=11)
    np.testing.assert_array_equal(_kernel({"params": chosen.params}), latest)
    explicit = load(three_steps / "checkpoints/11")
    np.testing.assert_array_equal(_kernel({"params": explicit.params}), latest)
    assert "using the best" not in caplog.text
    with pytest.raises(FileNotFoundError, match=r"has no step 8; it has \[7, 9, 11\]"):
        load(three_steps, step=8)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for path in (three_steps, three_steps / "checkpoints"):
        assert saved_model.read(path, sharding=place).step == 9
        np.testing.assert_array_equal(_kernel(manager.load(path)), best)
    state = small_model.weights()
    abstract = _abstract(_state(0).replace(**state, opt_state=None, class_counts=None))
    np.testing.assert_array_equal(
        _kernel(manager.restore_weights(three_steps, abstract)), best
    )  # as init_from does
    with manager.Checkpoints(three_steps / "checkpoints") as saved:
        assert saved.newest() == 11  # from which the training itself resumes


def test_a_best_step_that_is_gone_gives_way_to_the_next(three_steps, tmp_path, caplog):
    workdir = shutil.copytree(three_steps, tmp_path / "w")
    damage.file_instead(workdir / "checkpoints/9")
    with pytest.raises(manager.DamagedCheckpointError, match="step 9 of"):
        load(workdir)
    with manager.Checkpoints(workdir / "checkpoints", keep_latest=1) as saved:
        assert "Moved to 9.damaged" in caplog.text  # as every start of a training does
        assert saved.best_step(saved.steps) == 11
    assert load(workdir).source.endswith("(step 11)")
    shutil.rmtree(workdir / "checkpoints/11")
    assert load(workdir).source.endswith("(step 7)")


def test_a_damaged_record_leaves_the_latest(three_steps, tmp_path, caplog):
    workdir = shutil.copytree(three_steps, tmp_path / "w")
    file = workdir / "checkpoints" / best_record.FILE
    file.write_text(file.read_text().replace("0.4", "0.1"))
    assert load(workdir).source.endswith("(step 11)")
    assert "best.json is damaged: it does not match its checksum" in caplog.text
    with manager.Checkpoints(workdir / "checkpoints") as saved:
        assert saved.evaluations is None
    assert file.with_name("best.json.damaged").exists() and not file.exists()
