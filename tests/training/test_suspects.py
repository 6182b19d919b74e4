# SPDX-License-Identifier: BSD-3-Clause
import dataclasses

import numpy as np
import pytest
from PIL import Image

from mlimages_jax.checkpoints import manager
from mlimages_jax.data import NO_LABEL
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.folds import Fold
from mlimages_jax.data.records import record_at
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.settings import ConfigError
from mlimages_jax.training import suspects, train
from tests.support.small_run import load_config
from tests.training.test_tagger import SMALL
from tfds_builders import shapes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A built data set of 48 + 8 drawn images."""
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=48, num_val=8, size=32)


def _config(folder, **changes):
    values = {"task": "suspects", "folds": 2, "total_steps": 2, "data.folder": str(folder)}
    return load_config("tagger", **{**SMALL, **values, **changes})


@pytest.mark.slow
def test_every_image_is_judged_by_the_training_without_it(drawn, tmp_path, monkeypatch, capsys):
    judged = []

    class Finder(suspects.SuspectFinder):
        def add(self, positions, probabilities, targets):
            judged.append((positions, probabilities, targets))
            super().add(positions, probabilities, targets)

    monkeypatch.setattr(suspects, "SuspectFinder", Finder)
    suspects.find_suspects(_config(drawn), tmp_path)
    positions = np.concatenate([one for one, _, _ in judged])
    assert sorted(positions.tolist()) == list(range(48))
    data = DataSet.open(drawn)
    first = np.flatnonzero(Fold(0, 2).mask(48)).tolist()
    assert positions[: len(first)].tolist() == first
    for number in range(2):
        assert manager.config_of(tmp_path / f"fold_{number}")["data"]["fold"] == [number, 2]
    for place, _, targets in judged:  # of the images themselves
        for position, row in zip(place.tolist(), targets, strict=True):
            record = record_at(data.records("train"), position)
            np.testing.assert_allclose(row[record.labels], record.confidences)
    for problem in ("wrong", "missing"):
        header, *rows = (tmp_path / f"{problem}_labels.tsv").read_text().splitlines()
        assert header.startswith("image\tclass\tid\tname\tprobability")
        if rows:
            assert Image.open(tmp_path / f"{problem}_labels.png").width > 100
    assert "wrong_labels.tsv" in capsys.readouterr().out


@pytest.mark.slow
def test_folds_trained_in_processes_find_the_same(drawn, tmp_path):
    tables = []
    for workers in (0, 2):
        workdir = tmp_path / str(workers)
        suspects.find_suspects(_config(drawn, workers=workers), workdir)
        tables.append([
            (workdir / f"{problem}_labels.tsv").read_text() for problem in ("wrong", "missing")
        ])  # fmt: skip
    assert tables[0] == tables[1] and tables[0][0].count("\n") > 1


def test_a_training_without_a_fold_sees_none_of_it(drawn, tmp_path):
    config = dataclasses.replace(_config(drawn), task="train")
    seen = []
    data = DataSet.open(drawn)
    inputs = train.training_inputs(
        _trained(config, (1, 3)), data, suspects.sharding.make_mesh(), tmp_path
    )
    stage = suspects.build.stages(_trained(config, (1, 3)))[0]
    batches = inputs(stage, start_step=0)
    for _ in range(4):  # two epochs of 32 images
        seen.append(np.asarray(next(batches)["labels"]))
    labels = {tuple(sorted(set(row.tolist()) - {NO_LABEL})) for row in np.concatenate(seen)}
    kept_out = np.flatnonzero(Fold(1, 3).mask(48)).tolist()
    others = [i for i in range(48) if i not in kept_out]
    records = data.records("train")

    def of(places):
        return {tuple(sorted(record_at(records, i).labels.tolist())) for i in places}

    assert labels == of(others)
    assert of(kept_out) - of(others), "the test cannot tell"


def _trained(config, fold):
    from mlimages_jax.training.tagger import _with

    chosen = {
        "loss.name": "sigmoid", "model.dtype": "float32", "accumulate": 1, "crop.area": (0.7, 1.0),
        "augmentation.hue": 0.2, "augmentation.rand_augment": 0, "optimizer.ema_decay": 0.0,
    }  # fmt: skip
    return _with(dataclasses.replace(config, data=dataclasses.replace(config.data, fold=fold)),
                 chosen)  # fmt: skip


@pytest.mark.parametrize("best", [{}, {"checkpoint.best": "val/mAP"}])
def test_an_early_end_is_refused_before_anything_is_trained(drawn, best):
    changes = {"early_stopping.patience": 2, **best}
    with pytest.raises(ConfigError, match=r"patience=2: the trainings without a fold are not eval"):
        _config(drawn, **changes)


@pytest.mark.parametrize("single", [False, True])
def test_sheets_say_given_where_labels_are_doubted(drawn, tmp_path, monkeypatch, single):
    legends = {}

    def save_grid(path, images, *, legend, **_):
        legends[path.stem] = [text for text, _, _ in legend.lines()]

    monkeypatch.setattr(suspects, "save_grid", save_grid)
    data = DataSet.open(drawn)
    found = [suspects.Suspect(0, 1, 0.9, (2, 0.8) if single else None)]
    rows = data.records("train"), Hierarchy.from_file(data.class_list)
    for problem in ("wrong",) if single else ("wrong", "missing"):
        suspects._write_sheet(tmp_path, problem, found, *rows)
    if single:
        assert legends == {
            "wrong_labels": ["\N{BALLOT X} predicted instead", "? given, not predicted"]
        }
    else:
        assert legends == {
            "wrong_labels": ["? given, not predicted"],
            "missing_labels": ["\N{BALLOT X} predicted, not given"],
        }


@pytest.mark.parametrize("fold", [(3, 3), (0, 1), (0,), (-1, 3)])
def test_impossible_folds_are_refused(drawn, fold):
    with pytest.raises(ConfigError, match=r"data\.fold"):
        load_config("quickstart", **{"data.folder": str(drawn), "data.fold": fold})
