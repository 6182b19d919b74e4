# SPDX-License-Identifier: BSD-3-Clause
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mlimages_jax import evaluate, losses, sharding
from mlimages_jax.data import pipeline
from mlimages_jax.data.sources import DataSet, parse_record
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.state import TrainState
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
        view=pipeline.EvaluationView(32, "whole"),
        batch_size=batch_size,
        max_labels=data.max_labels,
        paths=Hierarchy.from_file(data.dictionary).paths(),
        mesh=sharding.make_mesh(jax.devices()[:devices]),
        threshold=0.7,
    )


def _state(model: ResNet) -> TrainState:
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    params = variables["params"]
    head = {**params["head"], "kernel": 5 * params["head"]["kernel"]}
    return TrainState(jnp.int32(0), {**params, "head": head}, variables["batch_stats"], None, None)


def test_an_evaluation_equals_one_by_hand_on_any_batch_and_devices(drawn):
    results = {}
    for devices, batch_size in ((1, 21), (4, 8), (2, 16)):
        evaluation = _evaluation(drawn, devices, batch_size)
        state = _state(evaluation.model)
        results[devices], metrics = evaluation.run(state)
    for name, value in results[1].items():
        np.testing.assert_allclose([r[name] for r in results.values()], value, rtol=1e-5)

    records = [parse_record(data) for data in evaluation.records]
    images = np.stack([evaluation.view(record.jpeg) for record in records])
    targets = np.zeros((21, drawn.num_classes), np.float32)
    for row, record in zip(targets, records, strict=True):
        row[record.labels] = record.confidences
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = evaluation.model.apply(variables, images / 127.5 - 1)
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


def test_rows_of_a_sharded_array_come_in_order():
    mesh = sharding.make_mesh()
    array = jax.device_put(np.arange(16), sharding.by_example(mesh))
    np.testing.assert_array_equal(evaluate.local_rows(array), np.arange(16))


def test_a_split_that_does_not_exist_is_named(drawn):
    with pytest.raises(ValueError, match=r"no split 'test'; it has \['train', 'val'\]"):
        drawn.records("test")
