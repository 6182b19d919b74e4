# SPDX-License-Identifier: BSD-3-Clause
"""The task of configs/evaluate.py on checkpoints of small runs, against computations by hand."""

import json
import shutil
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.checkpoints import best_record, manager
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import transforms
from mlimages_jax.data.records import parse_record
from mlimages_jax.evaluation import evaluate, evaluate_task, which_checkpoints
from mlimages_jax.settings import build, restart
from mlimages_jax.step.state import TrainState
from mlimages_jax.training import train
from tests.support import damage, imagenet_shaped, small_model, two_processes
from tests.support.small_run import ROOT, load_config, small_config, small_finetuning
from tfds_builders import shapes

pytestmark = pytest.mark.usefixtures("no_figures")

TWO_STAGES = {"model.stage_sizes": (1, 1), "model.stage_widths": (16, 32)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return imagenet_shaped.build(tmp_path_factory.mktemp("imagenet"), None)


@pytest.fixture(scope="module")
def run(built, no_figures, tmp_path_factory):
    """A run of six steps on the five classes, with averages, saved at 2, 4 and 6."""
    workdir = tmp_path_factory.mktemp("run")
    changes = {"optimizer.ema_decay": 0.9, "total_steps": 6, "evaluation.sizes": (32,)}
    changes |= TWO_STAGES
    train.train(small_finetuning(built, "scratch", **changes), workdir)
    return workdir


def _config(checkpoint, folder, **changes):
    values = {
        "checkpoint": str(checkpoint), "data.folder": str(folder), "evaluation.sizes": (32,),
        "evaluation.views": ("central",), "evaluation.batch_size": 8, "input.num_threads": 2,
    }  # fmt: skip
    return load_config("evaluate", **values | changes)


def _last(workdir, name):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    values = [row for row in rows if any(key.startswith(f"{name}/") for key in row)][-1]
    return {key.removeprefix(f"{name}/"): value for key, value in values.items() if "/" in key}


def _images(folder):
    """Records of the validation split and their images, decoded by OpenCV, RGB."""
    records = [parse_record(data) for data in DataSet.open(folder).records("val")]
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    images = [cv2.imdecode(np.frombuffer(r.jpeg, np.uint8), flags)[..., ::-1] for r in records]
    return records, images


def _logits(model, weights, images, size):
    arrays = np.stack([transforms.central_view(image, size) for image in images])
    return np.asarray(jax.jit(model.apply)(weights, arrays)[0], np.float64)


def _fractions(logits, valid):
    """Top-1 and top-5 by sorting; `valid` is a set of classes an image, empty ones left out."""
    hits = []
    for row, classes in zip(logits, valid, strict=True):
        best = np.argsort(-row, kind="stable")[:5].tolist()
        if classes:
            hits.append((best[0] in classes, bool(classes & set(best))))
    return np.mean(hits, axis=0)


@pytest.mark.slow
def test_all_checkpoints_in_several_views_and_only_once(built, run, tmp_path, monkeypatch, capsys):
    changes = {"which": "all", "evaluation.sizes": (32, 40)}
    changes["evaluation.views"] = ("central", "ten_crop")
    rows = evaluate_task.evaluate(_config(run, built, **changes), tmp_path)
    assert [row["step"] for row in rows] == [2] * 4 + [4] * 4 + [6] * 4
    assert [(row["protocol"], row["size"]) for row in rows[:4]] == [
        (protocol, size) for protocol in ("central", "ten_crop") for size in (32, 40)
    ]
    ours = rows[-4]
    for name, value in _last(run, "val_averaged").items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-5, err_msg=name)
    shown = capsys.readouterr().out
    assert "published results are not" in shown
    assert (tmp_path / "results.txt").read_text().strip() == shown.strip()
    for name in ("metrics.json", "per_class.tsv", "confusion.tsv", "reliability.png"):
        assert (tmp_path / "6" / "val_ten_crop_40" / name).exists()
    saved = json.loads((tmp_path / "6" / "val_central_32" / "metrics.json").read_text())
    assert saved["loss"] == ours["loss"]

    def refuse(*_):
        raise AssertionError("evaluated again")

    monkeypatch.setattr(evaluate.Evaluation, "run", refuse)
    again = evaluate_task.evaluate(_config(run, built, **changes), tmp_path)
    assert again == rows
    with pytest.raises(AssertionError, match="evaluated again"):
        evaluate_task.evaluate(_config(run, built, ema=False), tmp_path)


def _counted(monkeypatch):
    """How often a set is gone through, from here on."""
    passes, whole = [], evaluate.Evaluation.run
    monkeypatch.setattr(
        evaluate.Evaluation, "run", lambda self, *a, **k: passes.append(1) or whole(self, *a, **k)
    )
    return passes


@pytest.mark.slow
def test_another_setting_or_other_weights_never_give_the_old_numbers(
    built, run, tmp_path, monkeypatch
):
    passes = _counted(monkeypatch)
    copy = shutil.copytree(run, tmp_path / "run")
    labels = tmp_path / "real.json"
    labels.write_text(json.dumps([[n % 5] for n in range(1, 21)]))
    changes = [
        {}, {"evaluation.threshold": 0.5}, {"ema": False}, {"dtype": "bfloat16"},
        {"loss": "sigmoid"}, {"data.real_labels": str(labels)},
    ]  # fmt: skip
    out = tmp_path / "evaluation"
    for number, change in enumerate(changes):
        for _ in range(2):  # the second time it is known
            evaluate_task.evaluate(_config(copy, built, **change), out)
        assert len(passes) == number + 1, change
    evaluate_task.evaluate(_config(copy, built, **{"evaluation.batch_size": 16}), out)
    labels.write_text(json.dumps([[n % 4] for n in range(1, 21)]))  # the file was written anew
    evaluate_task.evaluate(_config(copy, built, **changes[-1]), out)
    assert len(passes) == len(changes) + 2  # the batch size decides nothing, but came in between
    shutil.rmtree(copy)  # trained anew, at the same path, to the same step
    again = {"total_steps": 6, "evaluation.sizes": (32,), "seed": 5} | TWO_STAGES
    train.train(small_finetuning(built, "scratch", **again), copy)
    before = len(passes)
    evaluate_task.evaluate(_config(copy, built), out)
    assert len(passes) == before + 1
    moved = shutil.copytree(built, tmp_path / "moved" / "1.0.0")
    evaluate_task.evaluate(_config(copy, moved), out)  # the same set elsewhere
    assert len(passes) == before + 1


def test_tables_of_one_evaluation_are_never_told_as_those_of_another(built, run, tmp_path):
    """What lies in the folder of a view is of the last evaluation; an older one is done again."""
    out = tmp_path / "evaluation"
    for ema in (True, False, True):
        (row,) = evaluate_task.evaluate(_config(run, built, ema=ema), out)
        saved = json.loads((out / "6" / "val_central_32" / "metrics.json").read_text())
        assert saved["loss"] == row["loss"]


def test_weights_before_averaging(built, run, tmp_path):
    (row,) = evaluate_task.evaluate(_config(run, built, ema=False), tmp_path)
    assert row["step"] == 6
    np.testing.assert_allclose(row["loss"], _last(run, "val")["loss"], rtol=1e-5)
    assert abs(row["loss"] - _last(run, "val_averaged")["loss"]) > 1e-4


def _save_imported(folder, weights, config=None):
    """A checkpoint as an import from another program may leave it, without configuration."""
    state = TrainState(jnp.int32(7), weights["params"], weights["batch_stats"], None, None)
    with manager.Checkpoints(folder) as saved:
        saved.save(state, step=7, config=config or {})


@pytest.mark.slow
def test_an_import_equals_top_k_by_hand(built, tmp_path):
    """A checkpoint without configuration: the network is known by its weights."""
    weights = small_model.weights()
    _save_imported(tmp_path / "imported", weights)
    config = _config(tmp_path / "imported", built, loss="softmax")
    (row,) = evaluate_task.evaluate(config, tmp_path / "evaluation")
    records, images = _images(built)
    logits = _logits(small_model.SMALL, weights, images, 32)
    top1, top5 = _fractions(logits, [set(record.labels.tolist()) for record in records])
    assert (row["top1"], row["top5"], row["examples"]) == (top1, top5, 20)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    true = [int(record.labels[0]) for record in records]
    np.testing.assert_allclose(row["loss"], -log_p[np.arange(20), true].mean(), rtol=1e-4)


def test_real_labels_are_the_truth(built, run, tmp_path):
    """Valid classes by the number in a name; an image without any is left out."""
    records, images = _images(built)
    numbers = [int(record.name[-13:-5]) for record in records]
    valid = {n: {n % 5, 2 * n % 5} if n % 4 else set() for n in range(1, 21)}
    path = tmp_path / "real.json"
    path.write_text(json.dumps([sorted(valid[n]) for n in range(1, 21)]))
    config = _config(run, built, **{"data.real_labels": str(path)})
    (row,) = evaluate_task.evaluate(config, tmp_path / "evaluation")
    weights = manager.load_weights(run, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    model = build.model(small_finetuning(built, "scratch", **TWO_STAGES), num_classes=5)
    logits = _logits(model, jax.device_get(weights), images, 32)
    top1, top5 = _fractions(logits, [valid[n] for n in numbers])
    assert (row["top1"], row["top5"], row["examples"]) == (top1, top5, 15)
    assert "loss" not in row

    path.write_text(json.dumps([[0]] * 19))
    with pytest.raises(build.ConfigError, match=r"real.json has 19 entries but the split has 20"):
        evaluate_task.evaluate(config, tmp_path / "other")


@pytest.mark.slow
def test_many_labels_an_image_have_their_own_metrics(tmp_path):
    folder = shapes.build(tmp_path / "data", num_train=32, num_val=20, size=48)
    network = {"model.stage_sizes": (1,), "model.stage_widths": (16,)}
    train.train(small_config(folder, total_steps=1, **network), tmp_path / "run")
    changes = {"evaluation.views": ("whole",)}
    config = _config(tmp_path / "run", folder, **changes)
    (row,) = evaluate_task.evaluate(config, tmp_path / "evaluation")
    for name, value in _last(tmp_path / "run", "val").items():
        np.testing.assert_allclose(row[name], value, rtol=1e-5, err_msg=name)
    assert 0 <= row["calibration_error"] <= 1
    assert (tmp_path / "evaluation" / "1" / "val_whole_32" / "reliability.png").exists()
    with pytest.raises(build.ConfigError, match=r"has 40 classes but .* has 5"):
        built = imagenet_shaped.build(tmp_path, None)
        evaluate_task.evaluate(_config(tmp_path / "run", built), tmp_path / "other")


def test_new_checkpoints_are_evaluated_until_the_last(built, run, tmp_path, monkeypatch):
    """Two that come late, while it waits; the run's last step ends it."""
    waits = []
    late = manager.find(run)
    monkeypatch.setattr(manager, "find", lambda _: late[: len(waits)])
    monkeypatch.setattr(which_checkpoints.time, "sleep", waits.append)
    rows = evaluate_task.evaluate(_config(run, built, which="new"), tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert waits == [30.0] * 3


def test_the_best_is_the_one_that_the_training_recorded(built, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    config = _config(copy, built, which="best")
    with pytest.raises(FileNotFoundError, match="does not say which checkpoint is the best: train"):
        list(which_checkpoints.checkpoints_to_evaluate(config))
    found = best_record.BestRecord("val/loss").with_value(2, 0.5).with_value(4, 0.3)
    best_record.write(copy / "checkpoints", found.with_value(6, 0.4))
    assert [folder.name for folder in which_checkpoints.checkpoints_to_evaluate(config)] == ["4"]
    (latest,) = which_checkpoints.checkpoints_to_evaluate(_config(copy, built))
    assert latest.name == "6"


@pytest.mark.slow
def test_waiting_ends(built, run, tmp_path, monkeypatch):
    folders = manager.find(run)[:2]
    monkeypatch.setattr(manager, "find", lambda _: folders)
    changes = {"which": "new", "wait_minutes": 0.01, "poll_seconds": 0.1}
    rows = evaluate_task.evaluate(_config(run, built, **changes), tmp_path)
    assert [row["step"] for row in rows] == [2, 4]


def test_the_others_are_evaluated_when_a_checkpoint_is_damaged(built, run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    damage.zero(damage.largest(copy / "checkpoints/4"))
    config = _config(copy, built, which="all")
    with pytest.raises(DamagedCheckpointError, match=r"not all .* step 4 of .* is damaged: "):
        evaluate_task.evaluate(config, tmp_path / "e")
    rows = [json.loads(line) for line in (tmp_path / "e/results.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 6]
    for table in (capsys.readouterr().out, (tmp_path / "e/results.txt").read_text()):
        assert "not evaluated: step 4 of" in table
    damage.empty(copy / "checkpoints/6")
    with pytest.raises(DamagedCheckpointError, match=r"step 6 of .* its folder is empty"):
        evaluate_task.evaluate(_config(copy, built), tmp_path / "latest")


@pytest.mark.slow
def test_a_step_that_the_training_deletes_meanwhile_is_passed_over(
    built, run, tmp_path, monkeypatch
):
    copy = shutil.copytree(run, tmp_path / "run")
    folders, found = manager.find(copy), manager.find

    def find(path):  # what is deleted was seen just before
        return folders if path == str(copy) else found(path)

    monkeypatch.setattr(manager, "find", find)
    shutil.rmtree(copy / "checkpoints/2")
    run_one = evaluate.Evaluation.run

    def run_and_delete(self, weights):  # while the last but one is evaluated
        shutil.rmtree(copy / "checkpoints/4", ignore_errors=True)
        return run_one(self, weights)

    monkeypatch.setattr(evaluate.Evaluation, "run", run_and_delete)
    for which in ("new", "all"):
        rows = evaluate_task.evaluate(_config(copy, built, which=which), tmp_path / which)
        assert [row["step"] for row in rows] == ([4, 6] if which == "new" else [6])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"which": "bets"},
            build.ConfigError,
            "none of latest, best, all, new; did you mean 'best'",
        ),
        ({"loss": "hinge"}, build.ConfigError, "loss='hinge' is none of"),
        ({"dtype": "int8"}, build.ConfigError, "dtype='int8' is none of float32"),
        ({"data.split": "test"}, ValueError, "no split 'test'"),
        ({"evaluation.batch_size": 9}, build.ConfigError, "batch_size=9 is not divisible by 8"),
        ({"evaluation.sizes": (0,)}, build.ConfigError, r"evaluation.sizes=\(0,\) has 0"),
    ],
)
def test_what_cannot_be_evaluated_is_named(built, run, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        evaluate_task.evaluate(_config(run, built, **changes), tmp_path)


@pytest.mark.parametrize("which", ["latest", "all", "new"])
def test_a_checkpoint_that_is_not_there(built, tmp_path, which):
    config = _config(tmp_path / "nowhere", built, which=which, wait_minutes=0.0)
    with pytest.raises(FileNotFoundError, match="nowhere contains no checkpoint"):
        evaluate_task.evaluate(config, tmp_path / "e")


def test_an_import_without_loss_and_classes_in_another_order(built, run, tmp_path):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    _save_imported(tmp_path / "checkpoints", manager.load_weights(run, place))
    with pytest.raises(build.ConfigError, match="does not say with which loss"):
        evaluate_task.evaluate(_config(tmp_path, built), tmp_path / "e")
    lines = (built / "dictionary.txt").read_text().replace("n00000002", "n00000009")
    (tmp_path / "dictionary.txt").write_text(lines)
    with pytest.raises(build.ConfigError, match="different classes or another order"):
        evaluate_task.evaluate(_config(tmp_path, built, loss="softmax"), tmp_path / "e")


@pytest.mark.slow
def test_classes_without_ids_are_compared_by_their_number(built, run, tmp_path, caplog):
    """An import with a list of words: class0, class1, ... are no WordNet ids."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    _save_imported(tmp_path / "checkpoints", manager.load_weights(run, place))
    (tmp_path / "dictionary.txt").write_text("".join(f"{i}\tword\tof\n" for i in range(5)))
    config = _config(tmp_path, built, loss="softmax")
    (row,) = evaluate_task.evaluate(config, tmp_path / "e")
    (direct,) = evaluate_task.evaluate(_config(run, built), tmp_path / "f")
    assert row["top1"] == direct["top1"]
    assert "by number only: both lists have 5" in caplog.text
    (tmp_path / "dictionary.txt").write_text("".join(f"{i}\tword\tof\n" for i in range(4)))
    with pytest.raises(build.ConfigError, match="different classes or another order"):
        evaluate_task.evaluate(config, tmp_path / "e")


@pytest.mark.slow
def test_sizes_and_views_are_those_of_the_checkpoint(built, run, tmp_path):
    """224 and 299 pixels were taken for every network."""
    left = {"evaluation.sizes": (), "evaluation.views": ()}
    (row,) = evaluate_task.evaluate(_config(run, built, **left), tmp_path / "e")
    assert (row["size"], row["protocol"]) == (32, "central")
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights = manager.load_weights(run, place)
    known = {"image_size": 24, "resize": [[1, 32, 8]], "loss": {"name": "softmax"}}
    for config, sizes in ((known, [32, 32]), (known | {"resize": [[99, 32, 8]]}, [24, 24])):
        folder = tmp_path / f"of_{sizes[0]}"
        _save_imported(folder / "checkpoints", weights, config)
        rows = evaluate_task.evaluate(_config(folder, built, **left), folder / "e")
        assert [row["size"] for row in rows] == sizes
        assert [row["protocol"] for row in rows] == ["central", "short_side"]
    _save_imported(tmp_path / "o/checkpoints", weights, {"loss": {"name": "softmax"}})
    with pytest.raises(build.ConfigError, match=r"at which size .*evaluation\.sizes="):
        evaluate_task.evaluate(_config(tmp_path / "o", built, **left), tmp_path / "o/e")
    weighted = _config(run, built, loss="weighted", **left)
    (row,) = evaluate_task.evaluate(weighted, tmp_path / "w")  # 12, as `load` takes it
    assert "mAP" in row and '"positive_weight": 12.0' in row["loss_settings"]


@pytest.mark.slow
def test_the_command_prints_the_table(built, run, tmp_path):
    command = [
        sys.executable, "-m", "mlimages_jax.main", "--config=configs/evaluate.py",
        f"--workdir={tmp_path}", f"--config.checkpoint={run}", f"--config.data.folder={built}",
        "--config.evaluation.views=('central', 'short_side')",
        "--config.evaluation.batch_size=8",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[:4] == ["step", "split", "size", "view"]
    assert "short_side" in done.stdout
    failed = subprocess.run(
        [*command, "--config.checkpoint=nowhere"],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: checkpoint='nowhere': this path does not exist")
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_two_processes_find_the_same_numbers(built, run, tmp_path):
    """20 images in global batches of 16: the last one is half empty, on both of them."""
    changes = {"evaluation.batch_size": 16, "evaluation.views": ("central", "short_side")}
    config = _config(run, built, **changes)
    alone = evaluate_task.evaluate(config, tmp_path / "alone")
    (tmp_path / "config.json").write_text(json.dumps(restart.values(config)))
    two_processes.run(f"""
import json
from mlimages_jax import settings
from mlimages_jax.evaluation import evaluate_task
config = settings.parse(json.load(open({str(tmp_path / "config.json")!r})))
rows = evaluate_task.evaluate(config, {str(tmp_path / "both")!r})
assert jax.process_count() == 2 and jax.device_count() == 4
json.dump(rows, open({str(tmp_path)!r} + f"/rows{{jax.process_index()}}.json", "w"))
""")
    for number in range(2):
        rows = json.loads((tmp_path / f"rows{number}.json").read_text())
        for ours, theirs in zip(rows, alone, strict=True):
            for name in ("top1", "top5", "examples", "step", "size", "protocol"):
                assert ours[name] == theirs[name], name
            for name in ("loss", "calibration_error"):
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)
    both = (tmp_path / "both" / "results.jsonl").read_text()
    assert len(both.splitlines()) == 2, "one process writes"
