# SPDX-License-Identifier: BSD-3-Clause
"""The order `streams`, from files to batches."""

import itertools
import time

import numpy as np
import pytest

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import views
from mlimages_jax.data.order import ProcessRows
from mlimages_jax.data.records import DataSetError
from mlimages_jax.data.streams import assign, num_files
from tests.support import record_files

BATCH, STREAMS = 8, 4
LENGTHS = (3, 3, 2, 2, 3, 2, 2, 2)  # of the files: 19 records, in streams of 5, 5, 5 and 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return record_files.write_set(tmp_path_factory.mktemp("set"), LENGTHS)


def _batches(folder, count, *, process_index=0, process_count=1, wrap=lambda records: records, **k):
    process = {"process_index": process_index, "process_count": process_count}
    arguments = {"batch_size": BATCH, "num_streams": STREAMS, "seed": 5, "num_threads": 2} | k
    num_streams = arguments["num_streams"]
    served = ProcessRows(
        batch_size=arguments["batch_size"], num_streams=num_streams, **process
    ).streams
    streams = DataSet.open(folder).streams("train", count=num_streams, served=served)
    batches = pipeline.training_batches(
        [wrap(records) for records in streams],
        views.TrainingView(16),
        max_labels=1,
        **process,
        **arguments,
    )
    return list(itertools.islice(batches, count))


def _stack(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _labels(batches, stream):
    """What a stream has shown, in order."""
    size = BATCH // STREAMS
    rows = slice(stream * size, (stream + 1) * size)
    return [int(label) for batch in batches for label in batch["labels"][rows, 0]]


def _assert_equal(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        for name in other:
            np.testing.assert_array_equal(mine[name], other[name])


def test_files_go_to_the_shortest_stream_from_the_longest_on():
    """The three of 3 begin, two of 2 make the fourth stream, the rest go to the first three."""
    assert assign(LENGTHS, STREAMS) == [[0, 5], [1, 6], [4, 7], [2, 3]]
    assert assign([*LENGTHS, 1], STREAMS) == [[0, 5], [1, 6], [4, 7], [2, 3, 8]]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_no_stream_is_longer_than_another_by_more_than_a_file(count):
    lengths = np.random.default_rng(0).integers(1, 500, 64).tolist()
    parts = assign(lengths, count)
    assert sorted(itertools.chain(*parts)) == list(range(64))
    totals = [sum(lengths[file] for file in part) for part in parts]
    assert max(totals) - min(totals) <= max(lengths)


def test_equal_files_in_a_multiple_of_the_streams_make_equal_streams(caplog):
    assert assign([10] * 12, 4) == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert "seen" not in caplog.text
    assign([10] * 6, 4)
    assert "seen 2.00 times as often" in caplog.text
    assert "--num-shards=4" in caplog.text


def test_every_group_shows_each_image_of_its_files_once_an_epoch(folder):
    batches = _batches(folder, 12)
    starts = [0, *itertools.accumulate(LENGTHS)]
    for stream, files in enumerate(assign(LENGTHS, STREAMS)):
        own = [label for file in files for label in range(starts[file], starts[file + 1])]
        shown = _labels(batches, stream)
        epochs = [shown[i : i + len(own)] for i in range(0, len(shown), len(own))]
        for epoch in epochs[:-1]:  # each stream has its own epochs
            assert sorted(epoch) == own, stream
        assert set(epochs[-1]) <= set(own)
        assert len(set(map(tuple, epochs[:-1]))) > 1, "every epoch is shuffled anew"


def test_streams_are_shuffled_differently(tmp_path):
    folder = record_files.write_set(tmp_path, (50,) * 4)
    batches = _batches(folder, 25)
    orders = [[label - 50 * stream for label in _labels(batches, stream)] for stream in range(4)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    other = _batches(folder, 25, seed=6)
    assert all(_labels(other, stream) != _labels(batches, stream) for stream in range(4))


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_share_the_global_batch(folder, processes):
    """With 8 every two of them share a stream."""
    parts = [
        _batches(folder, 7, process_index=i, process_count=processes, num_threads=1 + i)
        for i in range(processes)
    ]
    together = [_stack([part[step] for part in parts]) for step in range(7)]
    _assert_equal(together, _batches(folder, 7))


def test_one_stream_is_the_global_order(folder):
    records = DataSet.open(folder).records("train")
    batches = pipeline.training_batches(
        [records], views.TrainingView(16), batch_size=BATCH, max_labels=1, seed=5
    )
    _assert_equal(_batches(folder, 4, num_streams=1), itertools.islice(batches, 4))


def test_training_goes_on_at_any_step(folder):
    whole = _batches(folder, 9)
    _assert_equal(_batches(folder, 4, start_step=5), whole[5:])
    (far,) = _batches(folder, 1, start_step=10**9)  # one by one this would take days
    assert far["mask"].all()


def test_a_new_image_size_goes_on_where_the_last_one_stopped(folder):
    """`first_image` is what stages before have taken, of a batch of the same size."""
    later = _batches(folder, 3, first_image=2 * BATCH, start_step=1)
    _assert_equal(later, _batches(folder, 6)[3:])
    with pytest.raises(ValueError, match="first_image=6 is not divisible by 4 streams"):
        _batches(folder, 1, first_image=6)


class Slow:
    """Records that come late, each by another time."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        time.sleep(0.002 * (index % 3))
        return self.records[index]


@pytest.mark.parametrize("num_streams", [1, STREAMS])
def test_late_records_change_nothing(folder, num_streams):
    late = _batches(folder, 6, wrap=Slow, num_streams=num_streams, num_threads=4)
    _assert_equal(late, _batches(folder, 6, num_streams=num_streams))


def test_a_process_touches_the_files_of_its_streams_only(tmp_path):
    """The others are not even there."""
    folder = record_files.write_set(tmp_path, LENGTHS)
    expected = _batches(folder, 12, process_index=1, process_count=2)
    own = {file for stream in assign(LENGTHS, STREAMS)[2:] for file in stream}
    for number, path in enumerate(record_files.files_of(folder)):
        if number not in own:
            path.unlink()
    _assert_equal(_batches(folder, 12, process_index=1, process_count=2), expected)
    with pytest.raises(DataSetError, match=r"train.array_record-00000-of-00008 is missing, and 3"):
        _batches(folder, 1, process_index=0, process_count=2)


def test_too_few_files_say_how_to_build_more(folder):
    message = r"8 files of 'train', too few for 16 streams .*--num-shards=16 .*order=global"
    with pytest.raises(DataSetError, match=message):
        _batches(folder, 1, batch_size=16, num_streams=16)


def test_a_wrong_number_of_streams_is_refused(folder):
    (records,) = DataSet.open(folder).streams("train", count=STREAMS, served=[0])
    with pytest.raises(ValueError, match=r"got 1 streams for range\(0, 4\) of 4"):
        pipeline.training_batches(
            [records], views.TrainingView(16), batch_size=8, num_streams=4, max_labels=1, seed=0
        )


@pytest.mark.parametrize(
    ("rows", "streams", "files"),
    [(17_609_752, 128, 4_352), (1_281_167, 8, 320), (100, 128, 128), (4_096, 1, 1), (4_097, 1, 2)],
)
def test_how_many_files_a_set_should_have(rows, streams, files):
    assert num_files(rows, streams) == files
    assert files % streams == 0 and rows <= files * 4_096
