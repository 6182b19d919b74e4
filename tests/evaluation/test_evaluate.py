# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import views
from mlimages_jax.data.records import parse_record
from mlimages_jax.distributed import sharding
from mlimages_jax.evaluation import evaluate
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.single_label import SingleLabelMetrics
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.step import losses
from tfds_builders import shapes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = shapes.build(tmp_path_factory.mktemp("data"), num_train=16, num_val=21, size=32)
    return DataSet.open(folder)


def _evaluation(data: DataSet, devices: int, batch_size: int) -> evaluate.Evaluation:
    return evaluate.Evaluation(
        model=ResNet(data.num_classes, stage_sizes=(1,), stage_widths=(16,), stem_width=8),
        loss=losses.plain_sigmoid_cross_entropy,
        records=data.records("val"),
        view=views.EvaluationView(32, "whole"),
        metrics=evaluate.empty_metrics(
            21, Hierarchy.from_file(data.class_list).paths(), single_label=False, threshold=0.7
        ),
        batch_size=batch_size,
        max_labels=data.max_labels,
        mesh=sharding.make_mesh(jax.devices()[:devices]),
    )


@functools.cache
def _weights(model: ResNet) -> evaluate.Weights:
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    params = variables["params"]
    head = {**params["head"], "kernel": 5 * params["head"]["kernel"]}
    return {"params": {**params, "head": head}, "batch_stats": variables["batch_stats"]}


@pytest.mark.slow
def test_an_evaluation_equals_one_by_hand_on_any_batch_and_devices(drawn):
    results = {}
    for devices, batch_size in ((1, 21), (4, 8), (2, 16)):
        evaluation = _evaluation(drawn, devices, batch_size)
        weights = _weights(evaluation.model)
        results[devices], metrics = evaluation.run(weights)
    for name, value in results[1].items():
        np.testing.assert_allclose([r[name] for r in results.values()], value, rtol=1e-5)

    records = [parse_record(data) for data in evaluation.records]
    images = np.stack([evaluation.view(record.jpeg) for record in records])
    targets = np.zeros((21, drawn.num_classes), np.float32)
    for row, record in zip(targets, records, strict=True):
        row[record.labels] = record.confidences
    logits, _ = jax.jit(evaluation.model.apply)(weights, images / 127.5 - 1)
    logits = np.asarray(logits, np.float64)
    elements = np.log1p(np.exp(logits)) - targets * logits
    expected = (elements * (targets >= 0)).sum(1).mean()
    np.testing.assert_allclose(results[1]["loss"], expected, rtol=1e-4)
    judged = (targets == 0) | (targets >= np.float32(0.7))
    per_class = [
        average_precision_score(targets[judged[:, j], j] > 0, logits[judged[:, j], j])
        for j in range(drawn.num_classes)
        if (targets[judged[:, j], j] > 0).any()
    ]
    np.testing.assert_allclose(results[1]["mAP"], np.mean(per_class), atol=1e-6)
    assert results[1]["examples"] == 21
    np.testing.assert_allclose(np.nanmean(metrics.per_class_ap()), results[1]["mAP"])


def test_where_missing_labels_are_unknown_only_listed_labels_are_judged(drawn):
    """The drawn images list what they show and nothing else, so no class has a negative."""
    evaluation = dataclasses.replace(_evaluation(drawn, 2, 16), missing_labels=-1.0)
    weights = _weights(evaluation.model)
    values, _ = evaluation.run(weights)

    total = 0.0
    for outputs, start in zip(
        evaluation.outputs(weights, evaluation.records), (0, 16), strict=True
    ):
        logits = np.asarray(outputs["logits"], np.float64)
        for row, data in zip(logits, list(evaluation.records)[start:], strict=False):
            record = parse_record(data)
            for class_, y in zip(record.labels, record.confidences, strict=True):
                if y != -1:
                    p = 1 / (1 + np.exp(-row[class_]))
                    total -= y * np.log(p) + (1 - y) * np.log(1 - p)
    np.testing.assert_allclose(values["loss"], total / 21, rtol=1e-4)
    assert values["mAP"] == 1


@pytest.mark.parametrize(
    ("entry", "missing_labels"), [({}, 0), ({"unlisted": 0}, 0), ({"unlisted": -1}, -1)]
)
def test_the_metadata_say_what_a_missing_label_is(drawn, tmp_path, entry, missing_labels):
    _with_metadata(drawn, tmp_path, entry)
    assert DataSet.open(tmp_path).missing_labels == missing_labels


@pytest.mark.parametrize("value", [1, "unknown", None])
def test_metadata_that_say_something_else_about_missing_labels_are_refused(drawn, tmp_path, value):
    _with_metadata(drawn, tmp_path, {"unlisted": value})
    with pytest.raises(ValueError, match=r"metadata.json: unlisted=.* is neither 0 .* nor -1"):
        DataSet.open(tmp_path)


def _with_metadata(data: DataSet, folder: Path, entry: dict) -> None:
    """Copies what `DataSet.open` reads, with this entry about missing labels."""
    for name in ("dataset_info.json", "dictionary.txt"):
        (folder / name).write_text((data.folder / name).read_text())
    metadata = json.loads((data.folder / "metadata.json").read_text())
    metadata.pop("unlisted", None)
    (folder / "metadata.json").write_text(json.dumps(metadata | entry))


def test_a_split_that_does_not_exist_is_named(drawn):
    with pytest.raises(ValueError, match=r"no split 'test'; it has \['train', 'val'\]"):
        drawn.records("test")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            [[0.0, 0.6], [0.0, -1.0]],
            "positive class, which needs .* at least evaluation.threshold=0.7",
        ),
        ([[0.0, 0.0]], "none of 1 images has a positive class"),
        ([[-1.0, -1.0]], "no image has a class that is known to be present or absent"),
        ([[0.0, 0.7]], None),
    ],
)
def test_a_missing_mean_average_precision_is_explained(targets, message):
    metrics = MultiLabelMetrics(2, threshold=0.7)
    metrics.update(np.zeros((len(targets), 2)), np.array(targets))
    told = evaluate.why_no_map(metrics.compute(), metrics)
    assert (told is None) if message is None else re.search(message, told)
    assert evaluate.why_no_map({"top1": 0.5}, SingleLabelMetrics(2)) is None
