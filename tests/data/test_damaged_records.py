# SPDX-License-Identifier: BSD-3-Clause
"""Records that a disk has damaged: named, counted, without effect on the order of the others."""

import os
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from mlimages_jax.data import pipeline
from mlimages_jax.data import records as records_module
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.header import BadImage
from mlimages_jax.data.images.views import EvaluationView, TrainingView
from mlimages_jax.data.records import DamagedRecordError, DataSetError, Records, record_at
from mlimages_jax.inference.images_of_set import ImagesOfSet
from tests.support import record_files

LENGTHS = (6, 5, 7)
DAMAGED = 8  # the third of the second file
NAME = "record 2 of grey-train.array_record-00001-of-00003"


@pytest.fixture
def whole(tmp_path):
    return record_files.write_set(tmp_path / "grey", LENGTHS)


@pytest.fixture
def damaged(whole):
    _damage(whole)
    return whole


def _file(folder, number):
    return folder / f"grey-train.array_record-{number:05d}-of-{len(LENGTHS):05d}"


def _damage(folder):
    path = _file(folder, 1)
    path.write_bytes(path.read_bytes().replace(f"{DAMAGED}.jpg".encode(), b"9.jpg"))


def _training(folder, bad=None, *, num_streams=1, num_threads=1, batches=6):
    streams = DataSet.open(folder).streams("train", count=num_streams, served=range(num_streams))
    made = pipeline.training_batches(
        streams, TrainingView(24), batch_size=6, num_streams=num_streams, max_labels=1, seed=3,
        bad_images=bad, num_threads=num_threads, prefetch=2,
    )  # fmt: skip
    return [next(made) for _ in range(batches)]


def test_the_error_names_file_record_and_what_to_do(damaged):
    records = DataSet.open(damaged).records("train")
    with pytest.raises(DamagedRecordError) as error:
        records[DAMAGED]
    assert str(error.value).startswith(f"{NAME} is damaged: Corrupted ")
    assert str(error.value).endswith(f"mlimages data check {damaged} lists all damaged records")
    names = [record_at(records, i).name for i in range(len(records)) if i != DAMAGED]
    assert names == [f"{i}.jpg" for i in range(sum(LENGTHS)) if i != DAMAGED]


@pytest.mark.parametrize("name", ["metadata.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 9, b"\xff\xfe", b"[]", b"{}", b"3", None])
def test_damaged_metadata_are_named(whole, name, content):
    """They ended in a traceback and "please report it"."""
    path = whole / name
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(
        DataSetError, match=f"{name} is damaged .* build the data set again"
    ) as told:
        DataSet.open(whole).shards()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("num_streams", [1, 3])
@pytest.mark.parametrize("num_threads", [1, 4])
def test_a_damaged_record_is_a_row_outside_the_mask_and_moves_no_other(
    tmp_path, num_streams, num_threads
):
    folder = record_files.write_set(tmp_path / "grey", LENGTHS)
    before = _training(folder, num_streams=num_streams)
    _damage(folder)
    bad = pipeline.BadImages(tmp_path / "bad_images.tsv", limit=1)
    after = _training(folder, bad, num_streams=num_streams, num_threads=num_threads)
    met = 0
    for ours, theirs in zip(after, before, strict=True):
        hit = theirs["labels"][:, 0] == DAMAGED
        met += hit.sum()
        assert not ours["mask"][hit].any() and not ours["image"][hit].any()
        for name in theirs:
            np.testing.assert_array_equal(ours[name][~hit], theirs[name][~hit])
    assert met >= 1
    (line,) = (tmp_path / "bad_images.tsv").read_text().splitlines()
    assert line.startswith(f"{NAME}\tdamaged_record\t{NAME} is damaged: ")


def test_damaged_records_count_against_the_limit(damaged):
    with pytest.raises(pipeline.TooManyBadImagesError, match=r"mlimages data check"):
        _training(damaged, pipeline.BadImages(limit=0))


@pytest.mark.parametrize("left", [0, 70_000, 2**16])
def test_of_a_truncated_file_every_record_is_damaged(whole, left):
    """At a multiple of 64 KB what is left reads as records without a byte."""
    path = _file(whole, 1)
    path.write_bytes(path.read_bytes()[:left])
    bad = pipeline.BadImages()
    view = EvaluationView(24, "central")
    records = DataSet.open(whole).records("train")
    (batch,) = pipeline.evaluation_batches(
        records, view, batch_size=len(records), max_labels=1, bad_images=bad
    )
    assert np.flatnonzero(~batch["mask"]).tolist() == list(range(6, 11))
    assert len(bad.names) == 5


def test_a_record_of_something_else_is_damaged_too(tmp_path):
    with pytest.raises(DamagedRecordError, match="record 1 is damaged: it cannot be parsed"):
        record_at([record_files.record("a", b"", {}), b"\x07\x07\x07"], 1)
    with pytest.raises(DamagedRecordError, match="it cannot be parsed"):
        record_at([b""], 0)


def test_it_is_one_bad_row_where_a_set_is_tagged(damaged):
    images = ImagesOfSet(DataSet.open(damaged), "train")
    assert images.names[DAMAGED] == NAME and images.labels(DAMAGED) == ""
    with pytest.raises(BadImage, match=f"{NAME} is damaged") as error:
        images.read(DAMAGED)
    assert error.value.reason == "damaged_record"
    assert images.names[DAMAGED + 1] == f"{DAMAGED + 1}.jpg"


def test_what_passes_is_not_called_damage(whole):
    records = DataSet.open(whole).records("train")

    class Unreachable(list):
        def __getitem__(self, index):
            raise RuntimeError("UNAVAILABLE: the bucket does not answer")

    records._source = Unreachable(range(5))
    with pytest.raises(RuntimeError, match="UNAVAILABLE"):
        records[0]


@pytest.fixture
def numbered(tmp_path):
    """Opens a file of records 0000, 0001 and so on, of which some have a damaged byte."""

    def opened(count, damaged=()):
        path = tmp_path / "numbers"
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for number in range(count):
            writer.write(b"%04d" % number)
        writer.close()
        data = path.read_bytes()
        for number in damaged:
            data = data.replace(b"%04d" % number, b"....")
        path.write_bytes(data)
        return Records([str(path)])

    return opened


def test_records_read_together_are_those_read_one_by_one(numbered):
    damaged = {0, 63, 64, 100, 199}
    records = numbered(200, damaged)
    blocks = list(records.blocks(range(200)))
    assert [len(block) for block in blocks] == [64, 64, 64, 8]
    found = [data for block in blocks for data in records.read(block)]
    for number, data in enumerate(found):
        if number in damaged:
            assert isinstance(data, DamagedRecordError)
            assert str(data).startswith(f"record {number} of numbers is damaged: ")
        else:
            assert data == b"%04d" % number
    assert records.read([150, 3]) == [b"0150", b"0003"]


def test_an_empty_file_has_no_blocks(numbered):
    assert list(numbered(0).blocks(range(0))) == []


def test_few_or_large_records_are_read_in_smaller_blocks(numbered, monkeypatch):
    """Each thread has one, and a block has to be in memory, also one of photographs of 20 MB."""
    records = numbered(100)
    lengths = [len(block) for block in records.blocks(range(3, 43), threads=8)]
    assert lengths == [5] * 8
    assert [list(block) for block in records.blocks([7, 9], threads=8)] == [[7], [9]]
    size = Path(records.paths[0]).stat().st_size
    monkeypatch.setattr(records_module, "_BYTES_AT_ONCE", size // 10)
    assert {len(block) for block in records.blocks(range(100))} <= {9, 10, 1}
    monkeypatch.setattr(records_module, "_BYTES_AT_ONCE", 1)
    assert [len(block) for block in records.blocks(range(5))] == [1] * 5


def test_a_path_that_is_not_utf_8_is_told(whole):
    moved = whole.rename(whole.with_name(os.fsdecode(b"\xff")))
    with pytest.raises(DataSetError, match=r"udcff': .* need a path in UTF-8: rename the folder"):
        DataSet.open(moved)
