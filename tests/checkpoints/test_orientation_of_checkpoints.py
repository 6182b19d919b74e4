# SPDX-License-Identifier: BSD-3-Clause
"""Tagging, export and evaluation treat orientation as the checkpoint was trained."""

import json

import numpy as np
import pytest

from mlimages_jax.checkpoints import saved_model
from mlimages_jax.evaluation import evaluate_task
from mlimages_jax.features.export import export_task
from mlimages_jax.features.export.feature_files import open_features
from mlimages_jax.inference import pretrained, tag_task
from tests.support import five_classes, image_files, small_model
from tests.support.small_run import load_config
from tfds_builders import ml_images

pytestmark = pytest.mark.usefixtures("no_figures")

TRAINED = {"exif": {"orientation": "exif"}, "stored": {"orientation": "stored"}, "unknown": {}}


@pytest.fixture(scope="module", params=TRAINED)
def checkpoint(request, tmp_path_factory):
    """How it was trained, and its workdir."""
    config = small_model.imported("sigmoid") | TRAINED[request.param]
    return request.param, small_model.save(tmp_path_factory.mktemp(request.param), config)


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
    """Images whose EXIF data say that they lie on their side."""
    folder = tmp_path_factory.mktemp("images") / "mine"
    (folder / "images").mkdir(parents=True)
    (folder / "dictionary.txt").write_text(five_classes.CLASS_LIST)
    rows = []
    for number in range(4):
        name = f"{number}.jpg"
        (folder / "images" / name).write_bytes(image_files.exif_jpeg(5 + number))
        rows.append(f"{name}\t{number}:1\n")
    (folder / "val_image_list.txt").write_text("".join(rows))
    return folder


@pytest.mark.parametrize(
    ("trained", "chosen", "built", "expected"),
    [
        ("exif", None, False, True), ("exif", None, True, True), ("exif", False, False, False),
        ("exif", False, True, False), ("stored", None, False, False), ("stored", None, True, False),
        ("stored", True, False, True), (None, None, False, True), (None, None, True, False),
        (None, False, False, False),
    ],
)  # fmt: skip
def test_who_decides(trained, chosen, built, expected):
    config = {"orientation": trained} if trained else {}
    assert saved_model.turns_upright(config, chosen, built=built) is expected


def test_a_loaded_model(checkpoint):
    trained, workdir = checkpoint
    assert pretrained.load(workdir).view.exif_orientation == (trained != "stored")
    for chosen in (True, False):
        model = pretrained.load(workdir, exif_orientation=chosen)
        assert model.view.exif_orientation == chosen


def _config(task, workdir, path, **values):
    return load_config(task, checkpoint=str(workdir), input=str(path), batch_size=8, **values)


def test_classify_and_export(checkpoint, manual_dir, tmp_path):
    trained, workdir = checkpoint
    images = manual_dir / "images"
    model = pretrained.load(workdir, exif_orientation=trained != "stored")
    expected = [tags[0].score for tags in model.tag([images / f"{i}.jpg" for i in range(4)])]
    output = tmp_path / "tags.jsonl"
    tag_task.classify(_config("classify", workdir, images, output=str(output)), tmp_path)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["tags"][0]["score"] for row in rows] == pytest.approx(expected, abs=1e-5)

    values = {"view.size": 32, "format": "npy"}
    export_task.export(_config("export_features", workdir, images, **values), tmp_path / "f")
    crops = np.stack([model.crop(images / f"{i}.jpg") for i in range(4)])
    features = np.asarray(open_features(tmp_path / "f").array)
    np.testing.assert_allclose(features, model.features(crops), atol=1e-5)


@pytest.mark.slow
def test_evaluation_of_sets_of_either_kind(checkpoint, manual_dir, tmp_path):
    """A checkpoint of upright images sees them upright also in a set that stores them lying."""
    trained, workdir = checkpoint
    losses = {}
    for orientation in ("exif", "stored"):
        built = ml_images.build(manual_dir, tmp_path, orientation=orientation, short_side=None)
        for chosen in (None, True, False) if trained == "unknown" else (None,):
            views = {"evaluation.sizes": (32,), "evaluation.views": ("short_side",)}
            config = load_config(
                "evaluate",
                checkpoint=str(workdir),
                exif_orientation=chosen,
                **{"data.folder": str(built), "evaluation.batch_size": 8, **views},
            )
            (row,) = evaluate_task.evaluate(config, tmp_path / f"{orientation} results")
            losses[orientation, chosen] = row["loss"]
            upright = chosen if chosen is not None else trained == "exif"
            assert row["orientation"] == ("exif" if upright else "stored")
    same = losses["exif", None] == pytest.approx(losses["stored", None], rel=1e-3)
    assert same == (trained == "exif")
    if trained == "unknown":
        assert losses["stored", None] == losses["stored", False]
        assert losses["exif", None] == losses["exif", True] == losses["exif", False]
        assert losses["exif", None] == pytest.approx(losses["stored", True], rel=1e-3)
