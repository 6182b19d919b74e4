# SPDX-License-Identifier: BSD-3-Clause
import itertools

import pytest

from mlimages_jax.data.order import ProcessRows, seed_of


def _first(rows: ProcessRows, count: int) -> list[tuple[int, int]]:
    """(stream of the job, position) of the first rows."""
    return [
        (rows.streams[place], position)
        for place, position in itertools.islice(map(rows.__getitem__, itertools.count()), count)
    ]


def test_one_stream_gives_its_images_in_turn():
    rows = ProcessRows(batch_size=4)
    assert rows.streams == range(1)
    assert _first(rows, 6) == [(0, i) for i in range(6)]


def test_every_group_of_rows_has_its_stream():
    """Batches of 6 from 3 streams: two rows of each, then the next two of each."""
    assert _first(ProcessRows(batch_size=6, num_streams=3), 8) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1),
        (0, 2), (0, 3),
    ]  # fmt: skip


def test_a_process_has_the_streams_of_its_rows():
    rows = ProcessRows(batch_size=8, num_streams=4, process_index=1, process_count=2)
    assert rows.in_batch == range(4, 8)
    assert rows.streams == range(2, 4)
    assert _first(rows, 6) == [(2, 0), (2, 1), (3, 0), (3, 1), (2, 2), (2, 3)]


def test_processes_may_share_a_stream():
    """Groups of 4 on 4 processes of 3 rows: the second has the end of one and half of the next."""
    rows = ProcessRows(batch_size=12, num_streams=3, process_index=1, process_count=4)
    assert rows.streams == range(2)
    assert _first(rows, 6) == [(0, 3), (1, 0), (1, 1), (0, 7), (1, 4), (1, 5)]


def test_images_taken_before_are_passed_in_all_streams_alike():
    rows = ProcessRows(batch_size=6, num_streams=3, first_image=12)
    assert _first(rows, 4) == [(0, 4), (0, 5), (1, 4), (1, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"process_count": 3}, "batch_size=8 is not divisible by 3 processes"),
        ({"num_streams": 3}, "batch_size=8 is not divisible by 3 streams"),
        ({"num_streams": 4, "first_image": 6}, "first_image=6 is not divisible by 4 streams"),
    ],
)
def test_numbers_that_do_not_go_together_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProcessRows(batch_size=8, **arguments)


def test_seeds_of_streams_are_not_those_of_the_next_training():
    seeds = {seed_of(stream, seed) for stream in range(128) for seed in range(8)}
    assert len(seeds) == 128 * 8
    assert seed_of(0, 5) == 5
    assert 0 <= seed_of(100_000, 2**32 - 1) < 2**32
