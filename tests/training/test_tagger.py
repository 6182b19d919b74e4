# SPDX-License-Identifier: BSD-3-Clause
import json
import re
from unittest import mock

import pytest
from absl import logging as absl_logging
from PIL import Image

from mlimages_jax.checkpoints import manager
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.settings import flatten
from mlimages_jax.training import tagger
from tests.support import labelled_set
from tests.support.small_run import load_config
from tfds_builders import shapes

SMALL = {
    "image_size": 32,
    "batch_size": 16,
    "group_size": 8,
    "model.stage_sizes": (1,),
    "model.stage_widths": (16,),
    "model.stem_width": 8,
    "model.stem_kernel": 3,
    "evaluation.batch_size": 16,
    "evaluate_every": 0.5,
    "checkpoint.every": 0.5,
    "input.num_threads": 2,
}

CHOSEN = {
    "total_steps": 10, "loss.name": "sigmoid", "model.dtype": "float32", "accumulate": 1,
    "crop.area": [0.7, 1.0], "augmentation.hue": 0.2, "augmentation.rand_augment": 0,
    "optimizer.ema_decay": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A built data set of 64 + 16 drawn images."""
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=64, num_val=16, size=32)


def _config(folder, **changes):
    return load_config("tagger", **{**SMALL, "data.folder": str(folder), **changes})


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    tagger.tagger(_config(drawn, epochs=1), workdir)
    return workdir


def test_what_was_chosen_is_trained_and_written_down(trained):
    chosen = json.loads((trained / "recipe.json").read_text())
    assert chosen["total_steps"] == 4 and chosen["accumulate"] == 1
    assert chosen["loss.name"] == "asymmetric" and chosen["model.dtype"] == "float32"
    assert chosen["crop.area"] == [0.7, 1.0] and chosen["augmentation.rand_augment"] == 0
    assert chosen["augmentation.hue"] == 0, "the names of the drawn classes are colours"
    config = manager.config_of(trained)
    assert config["task"] == "train" and config["total_steps"] == 4
    assert config["augmentation"]["hue"] == 0
    assert config["loss"]["name"] == "asymmetric" and config["optimizer"]["name"] == "adamw"
    assert config["checkpoint"]["best"] == "val/mAP"
    assert manager.latest_step(trained / "checkpoints") == 4


def test_a_restart_trains_what_the_first_start_chose(trained, drawn, capsys):
    before = (trained / "recipe.json").read_bytes()
    tagger.tagger(_config(drawn, epochs=50, minutes=9), trained)
    assert (trained / "recipe.json").read_bytes() == before
    assert manager.latest_step(trained / "checkpoints") == 4
    assert f"mlimages tag FOLDER --checkpoint={trained}" in capsys.readouterr().out


def _restarted(workdir, chosen, **changes):
    """The settings of a restart of a run that chose these."""
    (workdir / "recipe.json").write_text(json.dumps(chosen))
    begun = mock.patch.object(tagger.recipe_file, "_has_begun", lambda workdir: True)
    with begun:
        return tagger.as_training(_config("x", **changes), workdir, begin=0)


def test_a_run_of_before_its_augmentation_was_chosen_keeps_it(tmp_path):
    older = {name: value for name, value in CHOSEN.items() if name != "augmentation.rand_augment"}
    config = _restarted(tmp_path, older)
    assert config.crop.area == (0.7, 1.0) and config.augmentation.rand_augment == 0
    older.pop("augmentation.hue")
    assert _restarted(tmp_path, older).augmentation.hue == 0.2
    oldest = {name: value for name, value in older.items() if name != "crop.area"}
    config = _restarted(tmp_path, oldest)
    assert config.crop.area == (0.25, 1.0) and config.augmentation.rand_augment == 0


@pytest.mark.parametrize("given", [0, 3])
def test_a_number_of_operations_that_is_given_is_not_chosen(tmp_path, given):
    chosen = CHOSEN | {"augmentation.rand_augment": 2}
    assert _restarted(tmp_path, chosen).augmentation.rand_augment == 2
    config = _restarted(tmp_path, chosen, **{"augmentation.rand_augment": given})
    assert config.augmentation.rand_augment == given


def test_what_is_switched_off_stays_off(tmp_path):
    chosen = CHOSEN | {"optimizer.ema_decay": 0.9}
    config = _restarted(tmp_path, chosen)
    assert config.optimizer.ema_decay == 0.9 and config.checkpoint.best == "val_averaged/mAP"
    off = {"optimizer.ema_decay": 0.0, "checkpoint.best": ""}
    config = _restarted(tmp_path, chosen, **off)
    assert config.optimizer.ema_decay == 0.0 and config.checkpoint.best == ""


@pytest.mark.parametrize(
    ("changes", "best"),
    [
        ({"evaluation.splits": ()}, ""),
        ({"loss.name": "softmax"}, "val/top1"),
        ({"evaluation.splits": ("test",)}, "test/mAP"),
    ],
)
def test_a_restart_may_evaluate_something_else(tmp_path, changes, best):
    """As the errors of a first start advise; the choice of 0.1.0 was in the file."""
    chosen = CHOSEN | {"optimizer.ema_decay": 0.0, "checkpoint.best": "val/mAP"}
    assert _restarted(tmp_path, chosen, **changes).checkpoint.best == best


def test_a_start_before_the_first_checkpoint_chooses_anew(drawn, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(CHOSEN | {"image_size": 64}))
    config = tagger.as_training(_config(drawn, epochs=2), tmp_path, begin=0)
    assert config.total_steps == 8 and config.image_size == 32
    assert json.loads((tmp_path / "recipe.json").read_text())["total_steps"] == 8


def test_what_is_given_is_in_the_file_too(drawn, tmp_path):
    given = {"crop.area": (0.3, 0.9), "augmentation.rand_augment": 4, "optimizer.ema_decay": 0.5}
    config = tagger.as_training(_config(drawn, epochs=1, **given), tmp_path, begin=0)
    assert flatten(config).items() >= given.items()
    chosen = json.loads((tmp_path / "recipe.json").read_text())
    assert chosen.items() >= (given | {"crop.area": [0.3, 0.9]}).items()


def test_a_warm_up_may_be_longer_than_a_usual_run(drawn, tmp_path):
    given = {"schedule.cosine.warmup_steps": 1_500, "epochs": 500}
    assert tagger.as_training(_config(drawn, **given), tmp_path, begin=0).total_steps == 2_000


@pytest.mark.parametrize(
    ("name", "changes", "steps"), [("tagger", {"data.fold": (0, 2)}, 20), ("suspects", {}, 27)]
)
def test_epochs_are_those_of_the_images_that_are_trained_on(drawn, tmp_path, name, changes, steps):
    """32 of 64 images are 2 batches, 43 are 2.7."""
    config = load_config("tagger", **SMALL, **changes,
                         **{"task": name, "data.folder": str(drawn), "epochs": 10})  # fmt: skip
    assert tagger.as_training(config, tmp_path, begin=0).total_steps == steps


@pytest.mark.parametrize(
    ("rows", "loss"),
    [([{0: 1.0}, {1: 1.0}], "softmax"), ([{0: 1.0}, {1: 1.0}, {}], "asymmetric")],
)
def test_images_without_a_label_need_another_loss_than_softmax(tmp_path, rows, loss):
    folder = labelled_set.write(tmp_path / "data", rows, classes="ab", max_labels=1).folder
    config = _config(folder, epochs=1, **{"evaluation.splits": ()})
    assert tagger.as_training(config, tmp_path, begin=0).loss.name == loss


def test_compiling_is_all_that_compile_only_does(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(tagger, "train", lambda *_, **__: None)
    monkeypatch.setattr(tagger, "_find_thresholds", None)
    tagger.tagger(_config(drawn, compile_only=True), tmp_path)


def test_the_curves_are_drawn(trained):
    assert Image.open(trained / "curves.png").width > 500


def test_thresholds_are_found_at_the_end(trained):
    table = (trained / "thresholds.tsv").read_text()
    assert "# optimised\tmaximum F1" in table and "# step\t4" in table


def test_thresholds_of_these_weights_stay_as_they_were_made(trained, monkeypatch):
    """By `mlimages thresholds --precision=0.9`, or in an editor, as the guide says."""
    config, file = tagger._with(_config("x"), CHOSEN), trained / "thresholds.tsv"
    found = file.read_bytes()
    monkeypatch.setattr(tagger.thresholds_task, "find", None)
    file.write_bytes(edited := found.replace(b"# step\t4", b"# step\t4\n# note\tmine"))
    assert tagger._find_thresholds(config, trained) and file.read_bytes() == edited
    monkeypatch.undo()
    searched = []
    monkeypatch.setattr(tagger.thresholds_task, "find", lambda *of: searched.append(of))
    for other in (re.sub(rb"# weights\t.", b"# weights\tx", found), b"", b"\xff"):
        file.write_bytes(other)
        assert tagger._find_thresholds(config, trained)
    file.unlink()
    assert tagger._find_thresholds(config, trained) and len(searched) == 4
    file.write_bytes(found)


def test_thresholds_are_found_on_what_this_start_evaluates(trained, monkeypatch):
    """And not on what the best weights were saved with: it may be gone, or too much at a time."""
    searches = []
    monkeypatch.setattr(tagger.own_thresholds, "are_in", lambda workdir: False)
    monkeypatch.setattr(tagger.thresholds_task, "find", lambda one, _: searches.append(one))
    given = {
        "data.folder": "moved", "data.copy_to": "near", "evaluation.splits": ("test", "val"),
        "evaluation.threshold": 0.5, "evaluation.batch_size": 24, "input.num_workers": 3,
    }  # fmt: skip
    assert tagger._find_thresholds(tagger._with(_config("x", **given), CHOSEN), trained)
    found = flatten(searches[0])
    assert found["checkpoint"] == str(trained) and found["data.split"] == "test"
    assert found["data.folder"] == "moved" and found["data.copy_to"] == "near"
    assert found["label_confidence"] == 0.5 and found["batch_size"] == 24
    assert found["input.num_threads"] == 2 and found["input.num_workers"] == 3
    nothing = tagger._with(_config("x", **{"evaluation.splits": ()}), CHOSEN)
    assert not tagger._find_thresholds(nothing, trained) and len(searches) == 1


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize(
    ("changes", "evaluated", "may_have"),
    [({}, True, True), ({"evaluation.splits": ()}, False, True),
     ({"loss.name": "softmax"}, True, False)],
)  # fmt: skip
def test_what_is_told_at_the_end_was_made_by_this_start(
    tmp_path, monkeypatch, changes, evaluated, may_have, found
):
    told = []
    config = tagger._with(_config("x", **changes), CHOSEN)
    monkeypatch.setattr(tagger, "as_training", lambda *_, **__: config)
    monkeypatch.setattr(tagger, "train", lambda *_, **__: None)
    monkeypatch.setattr(tagger, "_find_thresholds", lambda *_: found)
    monkeypatch.setattr(tagger.what_next, "tell", lambda *_, **how: told.append(how))
    tagger.tagger(_config("x"), tmp_path)
    assert told == [{"evaluated": evaluated, "thresholds": may_have and found}]


def test_a_training_without_labels_in_val_ends_without_thresholds(trained, monkeypatch):
    lines = []
    monkeypatch.setattr(tagger.own_thresholds, "are_in", lambda workdir: False)
    monkeypatch.setattr(absl_logging, "warning", lambda text, *values: lines.append(text % values))
    config = tagger.ConfigError("no image of val has a label")

    def find(*arguments):
        raise config

    monkeypatch.setattr(tagger.thresholds_task, "find", find)
    assert not tagger._find_thresholds(tagger._with(_config("x"), CHOSEN), trained)
    assert lines == [
        "no thresholds were found, so tagging shows the best tags: no image of val has a label"
    ]


# 57 s of 60, less 6 s since the start and 4 s of compilation. Evaluating raw and EMA weights on 16
# images takes as long as training on 16, half a second; the report and the search for thresholds at
# the end take half of it each.
@pytest.mark.parametrize(
    ("every", "steps"),
    [(0.5, (47 - 3 * 0.5) / 0.5), (8, (47 - 2 * 0.5) / (0.5 + 0.5 / 8)), (0, 46 / 0.5)],
)
def test_minutes_set_the_steps_by_the_measured_speed(drawn, tmp_path, monkeypatch, every, steps):
    told = []
    monkeypatch.setattr(tagger, "measure_speed", lambda *arguments: tagger.Speed(4.0, 0.5))
    monkeypatch.setattr(tagger.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(tagger, "train", lambda config, *_, **__: told.append(config))
    monkeypatch.setattr(tagger, "_find_thresholds", lambda *arguments: None)
    tagger.tagger(_config(drawn, minutes=1, evaluate_every=every), tmp_path, started=94.0)
    assert told[0].total_steps == int(steps)


@pytest.mark.slow
def test_the_speed_is_measured_on_real_steps(drawn, tmp_path):
    config = tagger._with(_config(drawn), CHOSEN)
    assert 0 < tagger.measure_speed(config, DataSet.open(drawn), tmp_path).step < 10
    assert not (tmp_path / "checkpoints").exists()


def test_the_memory_of_a_device_decides_the_parts(drawn):
    config = tagger._with(_config(drawn, batch_size=64), CHOSEN)
    data = DataSet.open(drawn)

    class Device:
        def __init__(self, limit):
            self.limit = limit

        def memory_stats(self):
            return self.limit and {"bytes_limit": self.limit}

    whole = tagger._parts_that_fit(config, data, Device(10**9))
    assert whole == tagger._parts_that_fit(config, data, Device(None)) == 1
    with pytest.raises(tagger.ConfigError, match="batches of 64 images do not fit into 0 GB"):
        tagger._parts_that_fit(config, data, Device(10**4))
