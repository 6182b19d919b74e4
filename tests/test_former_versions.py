# SPDX-License-Identifier: BSD-3-Clause
"""What version 0.1.0 wrote is still used: a data set, a checkpoint and an export of features.

`tests/support/former/0.1.0.tar.gz` holds a run of 4 steps on 24 drawn images, made by commit
782068b, the features of its 8 validation images, its logits for random images, and the losses of
the 6 steps that the same commit reached when it resumed the run.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import mlimages_jax as mli
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.features.export import export_task
from mlimages_jax.features.export.feature_files import open_features
from mlimages_jax.training import train
from tests.support.small_run import load_config, small_config

ARCHIVE = Path(__file__).parent / "support/former/0.1.0.tar.gz"


@pytest.fixture
def former(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def _data(former):
    return former / "data/shapes/24_8_24px_seed0/1.0.0"


def test_a_data_set_is_read(former):
    data = DataSet.open(_data(former))
    assert (len(data.records("train")), len(data.records("val"))) == (24, 8)
    assert data.orientation == "stored"  # what all sets of that version are


def test_a_checkpoint_gives_the_same_logits(former):
    model = mli.load(former / "run")
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    expected = np.load(former / "logits.npy")
    np.testing.assert_allclose(model.logits(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_run_resumes_with_the_same_losses(former):
    expected = {int(step): loss for step, loss in json.loads(_read(former / "losses.json")).items()}
    changes = {
        "total_steps": 6, "checkpoint.every": 2, "log_every": 1, "evaluate_every": 4,
        "image_size": 16, "model.stage_widths": (8, 16), "model.stem_width": 4,
    }  # fmt: skip
    train.train(small_config(_data(former), **changes), former / "run")
    lines = map(json.loads, _read(former / "run/metrics.jsonl").splitlines())
    losses = {line["step"]: line["training/loss"] for line in lines if "training/loss" in line}
    assert losses == pytest.approx(expected, rel=1e-6)


def test_an_export_is_read_and_resumed(former):
    folder = former / "export"
    features = open_features(folder)
    assert features.array[:].shape == (8, 16) and np.isfinite(features.array[:]).all()
    before = features.array[:]
    manifest = json.loads(_read(folder / "features.json"))
    (folder / "features.json").write_text(json.dumps(manifest | {"complete": False}))
    for path in (folder / "parts").iterdir():
        path.unlink()
    config = load_config("export_features", **{
        "checkpoint": manifest["checkpoint"]["folder"].replace("/any/former", str(former)),
        "input": str(_data(former)), "split": "val", "batch_size": 8, "view.size": 224,
        "view.protocol": "short_side",
    })  # fmt: skip
    manifest["checkpoint"]["folder"] = config.checkpoint
    (folder / "features.json").write_text(json.dumps(manifest | {"complete": False}))
    export_task.export(config, folder)
    np.testing.assert_allclose(open_features(folder).array[:], before, rtol=1e-5, atol=1e-6)


def _read(path):
    return path.read_text()
