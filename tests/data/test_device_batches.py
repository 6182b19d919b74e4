# SPDX-License-Identifier: BSD-3-Clause
import jax
import numpy as np
import pytest

from mlimages_jax.data import device_batches
from mlimages_jax.data.device_batches import DeviceBatches, one_behind
from mlimages_jax.distributed import sharding


@pytest.fixture
def mesh():
    return sharding.make_mesh(jax.devices()[:4])


def _batches(count):
    for number in range(count):
        yield {"image": np.full((4, 6, 6, 3), number, np.uint8), "mask": np.ones(4, bool)}


def test_batches_are_put_on_the_devices_and_end(mesh):
    on_devices = list(DeviceBatches(_batches(3), mesh))
    assert [int(batch["image"][0, 0, 0, 0]) for batch in on_devices] == [0, 1, 2]
    assert on_devices[0]["image"].sharding == sharding.by_example(mesh)
    assert on_devices[0]["image"].addressable_shards[0].data.shape == (1, 6, 6, 3)


class Clock:
    """Stands still unless somebody lets time pass."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_only_the_time_until_the_next_batch_counts_as_waiting(mesh, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(device_batches, "time", clock)

    def late():
        for batch, seconds in zip(_batches(4), (5.0, 0.0, 2.0, 0.25), strict=True):
            clock.now += seconds
            yield batch

    batches = DeviceBatches(late(), mesh)
    waited = []
    for _ in batches:
        clock.now += 100.0  # a step
        waited.append(batches.seconds_waited)
    assert waited == [5.0, 7.0, 7.25, 7.25], "a batch ahead is waited for before it is used"


@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_next_output_is_requested_before_one_is_used(count):
    requested = []

    def outputs():
        for number in range(count):
            requested.append(number)
            yield number

    ahead = [(number, len(requested)) for number in one_behind(outputs())]
    assert ahead == [(number, min(number + 2, count)) for number in range(count)]
