# SPDX-License-Identifier: BSD-3-Clause
"""Thresholds of a tiny run: found, written, and used by everything that tags."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest

import mlimages_jax
from mlimages_jax.checkpoints.weights_digest import weights_digest
from mlimages_jax.cli import front
from mlimages_jax.convert import safetensors_file, to_torch
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record
from mlimages_jax.evaluation import evaluate_task, thresholds_task
from mlimages_jax.evaluation.evaluate import Evaluation
from mlimages_jax.inference import tag_task
from mlimages_jax.inference.tagging import ThresholdError
from mlimages_jax.labels import class_thresholds
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.thresholds import Objective, find_thresholds
from mlimages_jax.settings import ConfigError
from tests.support import small_model
from tests.support.small_run import load_config
from tfds_builders import shapes

SPLIT = "val"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return DataSet.open(shapes.build(folder, num_train=8, num_val=60, size=48))


def _saved(workdir, data, *, loss="weighted", seed=0):
    """A checkpoint of an untrained network that names its data set."""
    model = small_model.SMALL.clone(num_classes=data.num_classes)
    config = small_model.imported(loss)
    config |= {"data": {"folder": str(data.folder)}, "evaluation": {"splits": [SPLIT]}}
    tree = small_model.weights(model, seed=seed)
    text = data.class_list.read_text()
    return small_model.save(workdir, config, tree=tree, class_list=text)


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """A workdir with thresholds, and what its evaluation returned."""
    workdir = _saved(tmp_path_factory.mktemp("run"), data)
    passes, whole = [], Evaluation.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "run", lambda *a, **k: passes.append(whole(*a, **k)) or passes[0])
        _find(workdir, tmp_path_factory.mktemp("thresholds"))
    return workdir, passes[0]


@pytest.fixture(scope="module")
def workdir(evaluated):
    return evaluated[0]


def _find(checkpoint, workdir, **changes):
    values = {"checkpoint": str(checkpoint), "batch_size": 16, "input.num_threads": 2}
    return thresholds_task.find(load_config("thresholds", **values | changes), workdir)


def _records(data):
    return [parse_record(one) for one in data.records(SPLIT)]


def test_the_file_has_what_plain_code_finds(data, workdir):
    model = mlimages_jax.load(workdir, thresholds="none")
    records = _records(data)
    scores = np.concatenate([model.logits(record.jpeg) for record in records])
    targets = np.zeros_like(scores)
    for row, record in zip(targets, records, strict=True):
        row[record.labels] = record.confidences
    metrics = MultiLabelMetrics(data.num_classes, positive_weight=12.0)
    metrics.update(scores, targets)
    expected = find_thresholds(metrics, Objective())
    found = class_thresholds.read(workdir / "thresholds.tsv")
    np.testing.assert_allclose(found.values, expected.probabilities, rtol=1e-3)
    text = (workdir / "thresholds.tsv").read_text()
    about = dict(line.removeprefix("# ").split("\t") for line in text.splitlines()[:11])
    weights = {"params": model.params, "batch_stats": model.batch_stats}
    assert about == {
        "mlimages thresholds": "1", "optimised": "maximum F1", "kappa": "10",
        "threshold of all classes together": about["threshold of all classes together"],
        "data": str(data.folder), "split": SPLIT, "images": "60", "step": "7",
        "view": "short_side 32", "weights": weights_digest(weights), "positive weight": "12",
    }  # fmt: skip
    header, *rows = (line.split("\t") for line in text.splitlines()[11:])
    assert header[:5] == ["class", "id", "threshold", "own threshold", "positives"]
    assert header[5:] == ["precision", "recall", "F1", "name"]
    assert [int(row[4]) for row in rows] == expected.positives.tolist()
    tags = model.probabilities_of(scores) >= found.values.astype(np.float32)
    right = (tags & (targets >= 0.7)).sum(axis=0)
    for row, hits, all_tags in zip(rows, right, tags.sum(axis=0), strict=True):
        if all_tags:
            assert float(row[5]) == pytest.approx(hits / all_tags, abs=0.02)


def test_lines_that_were_sorted_are_the_same_thresholds(workdir):
    """As by a spreadsheet: a file of tags is extended by new images all the same."""
    model = mlimages_jax.load(workdir)
    found = model.thresholds
    turned = dataclasses.replace(found, ids=found.ids[::-1], values=found.values[::-1])
    config = load_config("classify", checkpoint=str(workdir), input="photos")
    one, other = (
        tag_task._about(config, dataclasses.replace(model, thresholds=thresholds), view=model.view)
        for thresholds in (found, turned)
    )
    assert one == other
    changed = dataclasses.replace(found, values=found.values / 2)
    model = dataclasses.replace(model, thresholds=changed)
    assert tag_task._about(config, model, view=model.view) != one


def test_tags_reach_them_without_being_asked(data, workdir, caplog):
    caplog.set_level(logging.INFO)
    model = mlimages_jax.load(workdir)
    (said,) = [m for m in caplog.messages if "thresholds" in m]
    assert said.startswith(f"tags must reach the thresholds of {workdir}/thresholds.tsv (maximum")
    assert "thresholds=none turns them off" in said and "thresholds.tsv" in repr(model)
    image = _records(data)[0].jpeg
    (scores,) = model.probabilities(image)
    limits = model.thresholds.values.astype(np.float32)
    assert 0 < (scores >= limits).sum() < len(scores)

    def tagged(**rules):
        return {tag.index for tag in model.tag(image, None, **rules)[0]}

    every = set(range(len(scores)))
    assert tagged() == set(np.flatnonzero(scores >= limits))
    assert tagged(thresholds=workdir / "thresholds.tsv") == tagged()
    assert tagged(thresholds="none") == every
    assert tagged(threshold=0.2) == set(np.flatnonzero(scores >= np.float32(0.2)))
    plain = mlimages_jax.load(workdir, thresholds="none")
    assert plain.thresholds is None and "thresholds" not in repr(plain)
    assert {tag.index for tag in plain.tag(image, None)[0]} == every


def test_the_task_of_tagging_uses_them(data, workdir, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = mlimages_jax.load(workdir)
    path = tmp_path / "images"
    path.mkdir()
    for number, record in enumerate(_records(data)[:4]):
        (path / f"{number}.jpg").write_bytes(record.jpeg)

    def tag(name, **changes):
        output = tmp_path / f"{name}.jsonl"
        values = {"checkpoint": str(workdir), "input": str(path), "output": str(output)}
        values |= {"batch_size": 8, "num_threads": 1}
        tag_task.classify(load_config("classify", **values | changes), tmp_path / "w")
        return [json.loads(line)["tags"] for line in output.read_text().splitlines()]

    # How many tags an image gets follows from whether thresholds decide.
    for name, most, changes in (("own", None, {}), ("none", 5, {"thresholds": "none"})):
        caplog.clear()
        rows = tag(name, **changes)
        for number, row in enumerate(rows):
            (tags,) = model.tag(path / f"{number}.jpg", most, **changes)
            assert [found["index"] for found in row] == [found.index for found in tags]
        assert (max(map(len, rows)) > 5) == (name == "own")
        assert any("must reach the thresholds" in m for m in caplog.messages) == (name == "own")
    assert all(len(row) <= 5 for row in tag("five", top_k=5))  # as the default was
    with pytest.raises(ConfigError, match=r"made with other values.*top_k: 5 before, 0 now"):
        tag("five")


@pytest.mark.slow
def test_those_of_another_model_are_not_used(data, workdir, tmp_path, caplog):
    other = _saved(tmp_path / "other", data, seed=3)
    shutil.copy(workdir / "thresholds.tsv", other)
    model = mlimages_jax.load(other)
    assert model.thresholds is None
    assert any("NOT USED" in m and "other weights" in m for m in caplog.messages)
    image = _records(data)[0].jpeg
    with pytest.raises(ThresholdError, match=r"was found for other weights.*find those of this"):
        model.tag(image, thresholds=other / "thresholds.tsv")
    values = {"checkpoint": str(other), "input": str(workdir), "output": str(tmp_path / "t.csv")}
    (tmp_path / "one.jpg").write_bytes(image)
    values |= {"input": str(tmp_path / "one.jpg"), "thresholds": str(workdir / "thresholds.tsv")}
    with pytest.raises(ConfigError, match="was found for other weights"):
        tag_task.classify(load_config("classify", **values), tmp_path / "w")
    # Another loss gives other probabilities of the same weights.
    shutil.copytree(workdir, tmp_path / "copy")
    assert mlimages_jax.load(tmp_path / "copy", loss="sigmoid").thresholds is None
    assert mlimages_jax.load(tmp_path / "copy", loss="softmax").thresholds is None
    for text in ("n0\thalf\n", ""):
        (tmp_path / "copy" / "thresholds.tsv").write_text(text)
        with pytest.raises(ThresholdError, match=r"copy/thresholds.tsv:1: the first line"):
            mlimages_jax.load(tmp_path / "copy")


def test_exports_have_them(data, workdir, tmp_path):
    expected = mlimages_jax.load(workdir).thresholds.values
    file = tmp_path / "one.safetensors"
    safetensors_file.to_safetensors(checkpoint=str(workdir), output=file)
    np.testing.assert_array_equal(mlimages_jax.load(file).thresholds.values, expected)
    safetensors_file.from_safetensors(checkpoint=file, output=str(tmp_path / "back"))
    np.testing.assert_array_equal(mlimages_jax.load(tmp_path / "back").thresholds.values, expected)
    to_torch.to_torch(checkpoint=str(workdir), output=tmp_path / "torch")
    told = json.loads((tmp_path / "torch" / "config.json").read_text())
    np.testing.assert_array_equal(told["thresholds"], expected)
    (tmp_path / "back" / "thresholds.tsv").unlink()
    to_torch.to_torch(checkpoint=str(tmp_path / "back"), output=tmp_path / "without")
    told = json.loads((tmp_path / "without" / "config.json").read_text())
    assert told["thresholds"] is None


def test_an_evaluation_shows_classes_at_these_thresholds(
    data, evaluated, tmp_path, monkeypatch, caplog
):
    workdir, (values, metrics) = evaluated
    monkeypatch.setattr(Evaluation, "run", lambda *_: (dict(values), metrics))
    caplog.set_level(logging.INFO)
    config = load_config(
        "evaluate",
        **{"checkpoint": str(workdir), "data.folder": str(data.folder), "data.split": SPLIT},
        **{"evaluation.views": ("short_side",), "evaluation.batch_size": 16},
    )
    (row,) = evaluate_task.evaluate(config, tmp_path)
    folder = tmp_path / "7" / f"{SPLIT}_short_side_32"
    saved = json.loads((folder / "metrics.json").read_text())
    assert saved["mAP_tail"] == row["mAP_tail"] and saved["mAP_depth_1"] == row["mAP_depth_1"]
    header, *lines = (line.split("\t") for line in (folder / "per_class.tsv").open())
    rows = {line[1]: dict(zip(header, line, strict=True)) for line in lines}
    found = class_thresholds.read(workdir / "thresholds.tsv")
    for wordnet_id, value in zip(found.ids, found.values, strict=True):
        assert float(rows[wordnet_id]["threshold"]) == pytest.approx(value, rel=1e-5)
    train = [parse_record(one) for one in data.records("train")]
    positive = [one.labels[one.confidences >= np.float32(0.7)].tolist() for one in train]
    for index, one in enumerate(rows[wordnet_id] for wordnet_id in found.ids):
        assert int(one["train_positives"]) == sum(index in labels for labels in positive)
    assert any("mAP (classes) by positives in training: tail" in m for m in caplog.messages)
    assert any(f"{workdir}/thresholds.tsv (maximum F1, {SPLIT})" in m for m in caplog.messages)
    assert evaluate_task.evaluate(config, tmp_path) == [row]


def test_a_recall_asked_for_and_another_file(evaluated, tmp_path, monkeypatch):
    workdir, result = evaluated
    monkeypatch.setattr(Evaluation, "run", lambda *_: result)
    changes = {"thresholds.objective": "recall", "thresholds.wanted": 1.0, "thresholds.kappa": 0.0}
    path = tmp_path / "new" / "all.tsv"
    assert _find(workdir, tmp_path, **changes, output=str(path)) == path
    rows = path.read_text().splitlines()
    assert rows[1] == "# optimised\trecall of at least 1"
    assert rows[2] == f"# classes below this recall\t0 of {len(rows) - 13}"
    has = [row.split("\t") for row in rows[13:] if int(row.split("\t")[4])]
    assert has and all(float(row[6]) == 1 for row in has)


def test_classes_below_the_precision_asked_for_are_counted(
    evaluated, tmp_path, monkeypatch, caplog
):
    workdir, result = evaluated
    monkeypatch.setattr(Evaluation, "run", lambda *_: result)
    changes = {"thresholds.objective": "precision", "thresholds.wanted": 1.0}
    _find(workdir, tmp_path, **changes, output=str(tmp_path / "precise.tsv"))
    rows = (tmp_path / "precise.tsv").read_text().splitlines()
    below = sum(float(row.split("\t")[5] or 1) < 1 for row in rows[13:])
    assert below and rows[2] == f"# classes below this precision\t{below} of {len(rows) - 13}"
    told = f"{below} of {len(rows) - 13} classes have a precision below 1 on these images"
    assert any(message.startswith(told) for message in caplog.messages)


def test_what_cannot_be_done_is_said(data, workdir, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="one class per image, the most probable one"):
        _find(workdir, tmp_path, loss="softmax")
    empty = MultiLabelMetrics(data.num_classes)
    monkeypatch.setattr(Evaluation, "run", lambda *_: ({}, empty))
    with pytest.raises(ConfigError, match=r"1\.0\.0, val: no image has a positive class"):
        _find(workdir, tmp_path)
    monkeypatch.setattr(thresholds_task.manager, "config_of", lambda _: {})
    with pytest.raises(ConfigError, match=r"does not say on which data set .* give --data"):
        _find(workdir, tmp_path)
    moved = {"data": {"folder": "nowhere/set"}}
    monkeypatch.setattr(thresholds_task.manager, "config_of", lambda _: moved)
    with pytest.raises(ConfigError, match="set of the training, nowhere/set, is not available"):
        _find(workdir, tmp_path)
    with pytest.raises(SystemExit, match="--precision and --recall: give one"):
        front.main(["thresholds", "W", "--precision=0.9", "--recall=0.9"])
