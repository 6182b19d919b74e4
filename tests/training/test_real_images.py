# SPDX-License-Identifier: BSD-3-Clause
"""The product on the published files: the network, loss and pipeline of pretraining, one step."""

import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.distributed import sharding
from mlimages_jax.settings import build
from mlimages_jax.step import augment
from mlimages_jax.training import train
from tests.support.small_run import load_config
from tfds_builders import ml_images


@pytest.fixture(scope="module")
def photographs(tencent_dir, tmp_path_factory):
    """The four published photographs with the labels of the first four published rows."""
    folder = tmp_path_factory.mktemp("manual")
    (folder / "images").mkdir()
    name = "dictionary_and_semantic_hierarchy.txt"
    shutil.copyfile(tencent_dir / name, folder / name)
    rows = (tencent_dir / "train_im_list_tiny.txt").read_text().splitlines()[:4]
    for split in ("train", "val"):
        lines = [f"im_{i}.jpg\t" + row.split("\t", 1)[1] for i, row in enumerate(rows)]
        (folder / f"{split}_image_list.txt").write_text("\n".join(lines) + "\n")
    for i in range(4):
        shutil.copyfile(tencent_dir / "images" / f"im_{i}.jpg", folder / "images" / f"im_{i}.jpg")
    return ml_images.build(folder, tmp_path_factory.mktemp("data"), allow_shared=True)


def _numpy_loss(logits, targets, selected):
    """The released loss of a first step from its description, in float64 and with loops."""
    total = 0.0
    for j in range(logits.shape[1]):
        y, x = targets[:, j].astype(np.float64), logits[:, j].astype(np.float64)
        if any(y >= np.float32(0.7)):
            weight = max(0.01, -np.log10((0.01 + 1) / 10))
        elif selected[j]:
            weight = -np.log10((8 + 1) / 10)
        else:
            continue
        for yi, xi in zip(y, x, strict=True):
            if yi >= 0:
                cross_entropy = 12 * yi * np.log1p(np.exp(-xi)) + (1 - yi) * np.log1p(np.exp(xi))
                total += weight * cross_entropy / len(y)
    return total


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_step_of_pretraining_on_photographs(photographs, tmp_path, monkeypatch, dtype):
    mesh = sharding.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda: mesh)
    config = load_config(
        "pretrain",
        "released",
        **{
            "data.folder": str(photographs),
            "batch_size": 4,
            "group_size": 4,
            "total_steps": 1,
            "evaluation.batch_size": 4,
            "model.dtype": dtype,
        },
    )
    state = train.train(config, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params)))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    data = DataSet.open(photographs)
    (batch,) = itertools.islice(
        pipeline.training_batches(
            [data.records("train")],
            build.training_view(config, image_size=224),
            batch_size=4,
            max_labels=data.max_labels,
            seed=0,
        ),
        1,
    )
    assert batch["mask"].all()
    targets = np.zeros((4, 11_166), np.float32)
    for row, labels, confidences in zip(
        targets, batch["labels"], batch["confidences"], strict=True
    ):
        inside = labels < 11_166
        row[labels[inside]] = confidences[inside]
    model = build.model(config, num_classes=11_166)
    start = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    augment_key, loss_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    images = augment.pretrain_augment(augment_key, batch["image"])
    (logits, _), _ = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable="batch_stats"))(
        start, images
    )
    selected = np.asarray(jax.random.uniform(loss_key, (1, 11_166)) <= 0.1)[0]
    expected = _numpy_loss(np.asarray(logits), targets, selected)
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(rows[0]["training/loss"], expected, rtol=tolerance)
