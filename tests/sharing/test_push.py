# SPDX-License-Identifier: BSD-3-Clause
"""Models pushed to a Hub that runs on this machine, and loaded again."""

import json

import numpy as np
import pytest
import yaml
from etils import epath

import mlimages_jax as mli
from mlimages_jax.checkpoints.hub import HubError
from mlimages_jax.sharing import SharingError, run_record
from mlimages_jax.sharing.push import push
from tests.support import hub_server, small_model

NAME = "someone/five-classes"
CONFIG = small_model.imported("weighted") | {
    "data": {"folder": "/home/me/data/hands/1.0.0", "train_split": "train"},
    "init_from": "/home/me/workdirs/before",
    "optimizer": {"name": "adamw"},
    "batch_size": 64,
}
TABLE = """\
class\tid\taverage_precision\tap_low\tap_high\ttrain_positives\tname
0\tn0\t0.9000\t0.8000\t0.9500\t500\tanimal
3\tn3\t0.7000\t0.6500\t0.7500\t101\tvehicle
1\tn1\t0.5000\t0.3000\t0.7000\t20\tdog, domestic dog
2\tn2\t\t\t\t3\tpoodle
4\tn4\t0.1000\t0.0000\t0.4000\t19\tcar
"""
METRICS = {"loss": 1.25, "mAP": 0.55, "calibration_error": 0.02, "examples": 200}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with the files that a training leaves beside it."""
    folder = small_model.save(tmp_path_factory.mktemp("push") / "w", CONFIG)
    named = {f"val/{name}": value for name, value in METRICS.items()}
    rows = [
        {"step": 7, "training/loss": 3.0},
        {"step": 3, "val/loss": 9.0, "val/examples": 200},
        {"step": 7, **named},
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "per_class.tsv").write_text(TABLE)
    command = (
        "mlimages train --config=tagger --workdir=/home/me/w --data='/home/me/data/hands/1.0.0'"
    )
    (folder / "commands.jsonl").write_text(json.dumps({"command": command}) + "\n")
    (folder / "model.onnx").write_bytes(b"a graph")
    return folder


@pytest.fixture
def logged_in(local_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    return local_hub


def test_a_pushed_model_tags_the_same_to_the_bit(logged_in, trained, capsys, tmp_path):
    push(str(trained), NAME, license="cc-by-4.0", output=tmp_path / "files")
    commit = logged_in.resolve(NAME, "main")
    assert f'mlimages_jax.load("hf://{NAME}@{commit}")' in capsys.readouterr().out
    files = logged_in.commits[NAME][commit]
    assert files.keys() == {
        ".gitattributes", "README.md", "config.json", "model.onnx", "model.safetensors",
        "per_class.tsv",
    }  # fmt: skip
    ours, theirs = mli.load(trained), mli.load(f"hf://{NAME}@{commit}")
    image = np.random.default_rng(1).integers(0, 256, (45, 33, 3), np.uint8)
    np.testing.assert_array_equal(ours.logits(image), theirs.logits(image))
    assert ours.tag(image, top_k=None) == theirs.tag(image, top_k=None)
    assert (ours.view, ours.loss, ours.positive_weight) == (
        theirs.view, theirs.loss, theirs.positive_weight,
    )  # fmt: skip
    for name, content in files.items():
        assert b"/home/me" not in content, f"{name} has a path of the machine"
    sent = len(logged_in.blobs)
    push(str(trained), NAME, license="cc-by-4.0", output=tmp_path / "files")
    puts = [path for method, path in logged_in.requests if method == "PUT"]
    assert len(puts) == sent, "the same model is the same file, which the Hub has already"


def test_the_card_says_what_the_run_says(local_hub, trained, tmp_path, capsys):
    push(str(trained), NAME, license="cc-by-4.0", output=tmp_path, dry_run=True)
    assert "nothing was sent" in capsys.readouterr().out
    assert not local_hub.requests
    card = (tmp_path / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.55
    for line in (
        "5 classes, images of 32 x 32 pixels",
        "On `val` of `hands/1.0.0`, 200 images.",
        "| mAP over classes | 0.5500 | 0.4375 to 0.7000 |",
        "| more than 100 | 2 | 0.8000 | 0.7250 to 0.8500 |",
        "| 20 to 100 | 1 | 0.5000 | 0.3000 to 0.7000 |",
        "| fewer than 20 | 1 | 0.1000 | 0.0000 to 0.4000 |",
        "from the weights of `before`",
        "| optimizer | adamw |",
        "mlimages train --config=tagger --workdir=w --data=hands/1.0.0",
        "* 1 of 5 classes have no result, for lack of images.",
        "* For 2 classes the interval of the average precision is wider than 0.2",
        'model = mli.load("hf://someone/five-classes")',
    ):
        assert line in card, line


def test_no_licence_and_no_evaluation_are_said(local_hub, tmp_path, capsys):
    workdir = small_model.save(tmp_path / "w", small_model.imported("softmax"), class_list="")
    push(str(workdir), NAME, dry_run=True)
    assert "no licence was given (--license)" in capsys.readouterr().out
    card = (workdir / "hub" / "README.md").read_text()
    assert "license" not in yaml.safe_load(card.split("---")[1])
    for line in (
        "None was given by whoever shared this model",
        "This step was not evaluated",
        "does not say on what it was trained",
        "The command was not recorded",
    ):
        assert line in card, line


def test_the_table_of_another_step_is_left_out(trained):
    record = run_record.read(epath.Path(trained), step=3)
    assert record.metrics == {"loss": 9.0, "examples": 200}
    assert not record.classes


def test_a_card_of_your_own_is_taken(local_hub, trained, tmp_path):
    (tmp_path / "card.md").write_text("mine\n")
    push(str(trained), NAME, card=tmp_path / "card.md", output=tmp_path / "files", dry_run=True)
    assert (tmp_path / "files" / "README.md").read_text() == "mine\n"


def test_what_hinders_is_said_in_one_line(local_hub, trained, tmp_path, monkeypatch):
    with pytest.raises(SharingError, match=r"nobody is logged in: run `hf auth login`"):
        push(str(trained), NAME, output=tmp_path)
    with pytest.raises(HubError, match="an address of the Hub is"):
        push(str(trained), "no-owner", output=tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="log in") as caught:
        push(str(trained), NAME, output=tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    local_hub.lies_about_digest = True
    with pytest.raises(SharingError, match="reports another SHA-256"):
        push(str(trained), NAME, output=tmp_path)


def test_a_private_repository_is_created_private(logged_in, trained, tmp_path):
    push(str(trained), NAME, private=True, output=tmp_path)
    assert logged_in.private == {NAME}


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/home/me/data/birds/1.0.0", "birds/1.0.0"),
        ("/home/me/w", "w"),
        ("~/w", "w"),
        ("gs://bucket/me/w", "w"),
        ("data/birds", "data/birds"),
        ("hf://user/name@main", "hf://user/name@main"),
        ("adamw", "adamw"),
        ({"a": ["/x/y", 1, None]}, {"a": ["y", 1, None]}),
    ],
)
def test_paths_of_the_machine_are_cut(text, public):
    assert run_record.public(text) == public
