# SPDX-License-Identifier: BSD-3-Clause
import threading
import time

import jax.numpy as jnp
import pytest

from mlimages_jax.monitoring import input_wait
from mlimages_jax.monitoring.input_wait import InputWait


class Result:
    """Of a step that ends when the test says so."""

    def __init__(self):
        self.there = threading.Event()

    def block_until_ready(self):
        assert self.there.wait(30)


class Clock:
    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(input_wait, "time", clock)
    return clock


@pytest.fixture
def waiting(clock):
    waiting = InputWait()
    yield waiting
    waiting.close()


def _end(waiting, result):
    """Ends the step and waits until the thread has seen it."""
    result.there.set()
    limit = time.monotonic() + 30
    while waiting._last.ended is None:
        assert time.monotonic() < limit
        time.sleep(0.001)


def _late(clock, seconds):
    clock.now += seconds
    yield "batch"


def test_before_the_first_step_all_waiting_counts(waiting, clock):
    clock.now += 3  # compiling, say
    assert waiting.next(_late(clock, 5)) == "batch"
    assert waiting.seconds == 5


def test_waiting_during_a_step_does_not_count(waiting, clock):
    result = Result()
    waiting.dispatched(result)
    waiting.next(_late(clock, 5))
    assert waiting.seconds == 0
    _end(waiting, result)


def test_only_what_comes_after_the_step_counts(waiting, clock):
    result = Result()
    waiting.dispatched(result)

    def batches():
        clock.now += 50
        _end(waiting, result)
        clock.now += 10
        yield "batch"

    waiting.next(batches())
    assert waiting.seconds == 10
    clock.now += 7  # something else than input
    waiting.next(_late(clock, 2))
    assert waiting.seconds == 12


def test_of_several_steps_under_way_the_last_decides(waiting, clock):
    first, second = Result(), Result()
    waiting.dispatched(first)
    waiting.dispatched(second)

    def batches():
        first.there.set()
        clock.now += 10
        yield "batch"

    waiting.next(batches())
    assert waiting.seconds == 0
    _end(waiting, second)


def test_real_arrays_and_the_end_of_the_thread():
    before = threading.active_count()
    waiting = InputWait()
    waiting.dispatched(jnp.float32(1) + 1)
    waiting.close()
    limit = time.monotonic() + 30
    while threading.active_count() > before:
        assert time.monotonic() < limit
        time.sleep(0.001)
    with pytest.raises(StopIteration):
        waiting.next(iter(()))
