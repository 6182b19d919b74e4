# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from mlimages_jax.data import NO_LABEL, pipeline
from mlimages_jax.data.device_batches import DeviceBatches
from mlimages_jax.data.images import views
from mlimages_jax.distributed import sharding
from tests.support import bucket
from tests.support.record_files import image, record

SIZE, MAX_LABELS = 16, 3


@pytest.fixture(scope="module")
def records() -> list[bytes]:
    """Ten grey images; image i has the grey value 20 i and the label i."""
    return [record(f"{i}.jpg", image(20 * i), {i: 1.0}) for i in range(10)]


def _batches(records, count, **kwargs):
    view = views.TrainingView(SIZE)
    arguments = {"batch_size": 4, "max_labels": MAX_LABELS, "seed": 5, "num_threads": 2} | kwargs
    return list(itertools.islice(pipeline.training_batches([records], view, **arguments), count))


def _stack(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_an_epoch_holds_every_image_once_with_its_labels(records):
    rows = _stack(_batches(records, 5))
    shown = rows["labels"][:, 0]
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert list(shown[:10]) != list(shown[10:]), "every epoch is shuffled anew"
    np.testing.assert_allclose(rows["image"].mean((1, 2, 3)), 20 * shown, atol=1)
    assert (rows["labels"][:, 1:] == NO_LABEL).all()
    assert rows["mask"].all()


def test_training_goes_on_at_any_step(records):
    whole = _batches(records, 6)
    for later in (_batches(records, 2, start_step=4), _batches(records, 2, start_step=4)):
        for ours, theirs in zip(later, whole[4:], strict=True):
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    (far,) = _batches(records, 1, start_step=10**9)
    assert far["image"].shape == (4, SIZE, SIZE, 3)


@pytest.mark.parametrize("threads", [1, 8])
def test_threads_do_not_change_the_batches(records, threads):
    ours, theirs = _batches(records, 4), _batches(records, 4, num_threads=threads)
    assert all(np.array_equal(_stack(ours)[name], _stack(theirs)[name]) for name in ours[0])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_global_batch(records, processes):
    parts = [
        _batches(records, 3, process_index=i, process_count=processes) for i in range(processes)
    ]
    for step, expected in enumerate(_batches(records, 3)):
        together = _stack([part[step] for part in parts])
        assert all(np.array_equal(together[name], expected[name]) for name in expected)


def test_a_batch_that_processes_do_not_divide_is_refused(records):
    with pytest.raises(ValueError, match="batch_size=4 is not divisible by 3 processes"):
        _batches(records, 1, process_count=3)
    with pytest.raises(ValueError, match="no records"):
        _batches([], 1)


def test_a_broken_image_is_masked_listed_once_and_limited(records, tmp_path):
    broken = [*records, record("broken.jpg", image(9)[:-30], {1: 1.0})]
    bad = pipeline.BadImages(tmp_path / "bad.tsv", limit=1)
    rows = _stack(_batches(broken, 11, bad_images=bad))
    assert (~rows["mask"]).sum() == 4
    assert not rows["image"][~rows["mask"]].any()
    assert (rows["labels"][~rows["mask"]] == NO_LABEL).all()
    (line,) = (tmp_path / "bad.tsv").read_text().splitlines()
    assert line.startswith("broken.jpg\ttruncated\t")
    two = [*broken, record("empty.jpg", b"", {1: 1.0})]
    with pytest.raises(pipeline.TooManyBadImagesError, match=r"2 images.*limit 1"):
        _batches(two, 6, bad_images=bad)


@pytest.mark.parametrize(("count", "name"), [(1, "bad.tsv"), (4, "bad_2.tsv")])
def test_processes_do_not_list_into_one_object(tmp_path, monkeypatch, count, name):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(jax, "process_index", lambda: count // 2)
    with bucket.in_folder(tmp_path) as place:
        bad = pipeline.BadImages(place / "run/bad.tsv")
        bad.add(pipeline.Problem("a.jpg", "empty", "no bytes"))
        bad.add(pipeline.Problem("b.jpg", "empty", "no bytes"))
    assert [file.name for file in (tmp_path / "run").iterdir()] == [name]
    lines = (tmp_path / "run" / name).read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["a.jpg", "b.jpg"]


def test_more_labels_than_promised_are_an_error():
    full = record("full.jpg", image(9), dict.fromkeys(range(4), 1.0))
    with pytest.raises(
        ValueError, match=r"full.jpg has 4 labels, but metadata.json promises at most 3"
    ):
        _batches([full], 1)


def test_evaluation_sees_every_image_once_in_order_and_fills_up(records):
    for processes in (1, 2):
        parts = [
            list(
                pipeline.evaluation_batches(
                    records,
                    views.EvaluationView(SIZE, "whole"),
                    batch_size=4,
                    max_labels=MAX_LABELS,
                    process_index=i,
                    process_count=processes,
                )
            )
            for i in range(processes)
        ]
        assert [len(part) for part in parts] == [3] * processes
        rows = _stack([part[step] for step in range(3) for part in parts])
        assert rows["mask"].tolist() == [True] * 10 + [False] * 2
        assert rows["labels"][:10, 0].tolist() == list(range(10))


@pytest.mark.parametrize("processes", [1, 2])
def test_another_batch_size_goes_on_where_the_last_one_stopped(records, processes):
    """Two batches of 4, then batches of 2 from image 8 on: the same images, the same crops."""
    whole = _stack(_batches(records, 3, batch_size=4))
    parts = [
        _batches(records, 2, batch_size=2, first_image=8, process_index=i, process_count=processes)
        for i in range(processes)
    ]
    rows = _stack([part[step] for step in range(2) for part in parts])
    for name in ("image", "labels"):
        np.testing.assert_array_equal(rows[name], whole[name][8:])


def test_an_evaluation_may_have_other_labels_and_ten_views(records):
    def relabel(record):
        return dataclasses.replace(record, labels=record.labels + 1)

    (batch,) = pipeline.evaluation_batches(
        records, views.EvaluationView(14, "ten_crop"), batch_size=16, max_labels=MAX_LABELS,
        relabel=relabel,
    )  # fmt: skip
    assert batch["image"].shape == (16, 10, 14, 14, 3)
    assert batch["labels"][:10, 0].tolist() == list(range(1, 11))


def test_the_shapes_of_a_batch_are_known_before_it(records):
    mesh = sharding.make_mesh(jax.devices()[:4])
    expected = pipeline.abstract_batch(SIZE, batch_size=4, max_labels=MAX_LABELS, mesh=mesh)
    batches = iter(_batches(records, 3, batch_size=4))
    (batch, *_) = DeviceBatches(batches, mesh)
    for name, value in expected.items():
        assert (value.shape, value.dtype) == (batch[name].shape, batch[name].dtype), name
        assert value.sharding == batch[name].sharding
