# SPDX-License-Identifier: BSD-3-Clause
"""Batches of images that arrive one by one: which sizes, when, and what becomes of errors."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from mlimages_jax.serving.batcher import Batcher, batch_sizes, best_size

LIKE_A_CPU = {size: size / 10 for size in (1, 2, 4, 8)}
LIKE_AN_ACCELERATOR = dict.fromkeys((1, 2, 4, 8), 0.1)


class Doubler:
    """Doubles numbers; holds a batch until it is let go."""

    def __init__(self):
        self.sizes = []
        self.error = None
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, images):
        self.sizes.append(len(images))
        self.entered.release()
        assert self.go.acquire(timeout=60)
        if self.error:
            raise self.error
        return {"double": 2 * images}


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def batcher(doubler):
    """One with an image on the device: all that follow wait for the next batch."""
    observed = []
    batcher = Batcher(
        doubler,
        seconds=LIKE_AN_ACCELERATOR,
        delay=0.0,
        observe=lambda images, size, seconds: observed.append((images, size)),
    )
    batcher.observed = observed
    batcher.first = batcher.submit(np.float32(100))
    assert doubler.entered.acquire(timeout=60)
    yield batcher
    doubler.go.release(100)
    batcher.close()


def _values(results):
    return [float(result.result(60)["double"]) for result in results]


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])]
)
def test_sizes_are_powers_of_two_and_the_largest(largest, sizes):
    assert batch_sizes(largest) == sizes


@pytest.mark.parametrize(
    ("waiting", "cpu", "accelerator"), [(1, 1, 8), (3, 2, 8), (5, 4, 8), (7, 4, 8), (20, 8, 8)]
)
def test_the_size_is_that_with_most_images_per_second(waiting, cpu, accelerator):
    assert best_size(waiting, LIKE_A_CPU) == cpu
    assert best_size(waiting, LIKE_AN_ACCELERATOR) == accelerator


def test_images_that_arrive_during_a_batch_share_the_next_one(batcher, doubler):
    results = [batcher.submit(np.float32(number)) for number in range(5)]
    doubler.go.release(2)
    assert _values([batcher.first, *results]) == [200, 0, 2, 4, 6, 8]
    assert batcher.observed == [(1, 1), (5, 8)] and doubler.sizes == [1, 8]


def test_what_does_not_fit_waits_for_another_batch_in_order(batcher, doubler):
    results = [batcher.submit(np.float32(number)) for number in range(11)]
    doubler.go.release(3)
    assert _values(results) == [2 * number for number in range(11)]
    assert [images for images, _ in batcher.observed] == [1, 8, 3]


def test_an_error_belongs_to_its_batch_only(batcher, doubler):
    doubler.error = MemoryError("of the device")
    doubler.go.release(1)
    with pytest.raises(MemoryError, match="of the device"):
        batcher.first.result(60)
    second = batcher.submit(np.float32(1))
    assert doubler.entered.acquire(timeout=60)
    doubler.error = None
    doubler.go.release(1)
    assert _values([second]) == [2]


def test_cancelled_images_are_left_out(batcher, doubler):
    given_up, wanted = batcher.submit(np.float32(1)), batcher.submit(np.float32(2))
    assert given_up.cancel()
    doubler.go.release(2)
    assert _values([wanted]) == [4]
    with pytest.raises(CancelledError):
        given_up.result(60)
    assert [images for images, _ in batcher.observed] == [1, 1]


def test_closing_runs_what_waits_and_takes_no_more(batcher, doubler):
    results = [batcher.submit(np.float32(number)) for number in range(3)]
    doubler.go.release(10)
    batcher.close()
    assert [result.done() for result in results] == [True] * 3
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(np.float32(0))


def test_a_full_batch_does_not_wait_for_the_delay_and_closing_ends_it():
    doubler = Doubler()
    doubler.go.release(100)
    batcher = Batcher(doubler, seconds=LIKE_AN_ACCELERATOR, delay=3600)
    results = [batcher.submit(np.float32(number)) for number in range(8)]
    assert _values(results) == [2 * number for number in range(8)]
    assert doubler.sizes == [8]  # the first image waited for the others
    assert doubler.entered.acquire(timeout=60)
    alone = batcher.submit(np.float32(9))
    assert not doubler.entered.acquire(timeout=0.3)
    batcher.close()
    assert _values([alone]) == [18]


def test_a_single_image_is_run_after_the_delay():
    doubler = Doubler()
    doubler.go.release(100)
    batcher = Batcher(doubler, seconds=LIKE_A_CPU, delay=0.01)
    assert _values([batcher.submit(np.float32(3))]) == [6]
    assert doubler.sizes == [1] and batcher.images_per_second == pytest.approx(10)
    batcher.close()
