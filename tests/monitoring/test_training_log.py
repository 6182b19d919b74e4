# SPDX-License-Identifier: BSD-3-Clause
import json

import jax.numpy as jnp
import pytest

from mlimages_jax.monitoring import training_log
from mlimages_jax.monitoring.metrics_writer import MetricsWriter


def _metrics(loss: float, images: float = 4.0):
    values = {"loss": loss, "learning_rate": 0.1, "gradient_norm": 1.0, "images": images}
    return {name: jnp.float32(value) for name, value in values.items()}


def _rows(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def reporter(tmp_path):
    writer = MetricsWriter(tmp_path, start_step=0)
    return training_log.Progress(writer, total_steps=7, every=2)


def test_a_period_is_reported_when_the_next_one_ends(reporter, tmp_path):
    for step in range(1, 4):
        reporter.add(step, _metrics(step), batch_size=4, seconds_waited=0.0)
    assert _rows(tmp_path) == []
    reporter.add(4, _metrics(4), batch_size=4, seconds_waited=0.0)
    (row,) = _rows(tmp_path)
    assert row["step"] == 2
    assert row["training/loss"] == 1.5
    for step in range(5, 8):
        reporter.add(step, _metrics(step), batch_size=4, seconds_waited=0.0)
    reporter.flush()
    assert [(row["step"], row["training/loss"]) for row in _rows(tmp_path)] == [
        (2, 1.5), (4, 3.5), (6, 5.5), (7, 7.0),
    ]  # fmt: skip


def test_waiting_and_rate_leave_pauses_out(reporter, tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(training_log.time, "perf_counter", lambda: clock[0])
    reporter = training_log.Progress(MetricsWriter(tmp_path, start_step=0), total_steps=2, every=2)
    clock[0] += 1
    reporter.add(1, _metrics(1, images=3.0), batch_size=4, seconds_waited=0.25)
    with reporter.pause():
        clock[0] += 50
    clock[0] += 1
    reporter.add(2, _metrics(1), batch_size=4, seconds_waited=0.5)
    reporter.flush()
    (row,) = _rows(tmp_path)
    assert row["training/input_wait"] == 0.25  # half a second of two
    assert row["training/images_per_second"] == 4
    assert row["training/bad_images_per_step"] == 0.5


class _UnderWay:
    """A scalar that the device has not made yet; to wait for it takes three seconds."""

    def __init__(self, clock: list[float]):
        self.clock, self.waits = clock, 0

    def block_until_ready(self):
        self.clock[0] += 3 if not self.waits else 0
        self.waits += 1
        return self


def test_a_pause_begins_when_the_steps_under_way_are_done(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(training_log.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(training_log.jax, "device_get", lambda rows: rows)
    reporter = training_log.Progress(MetricsWriter(tmp_path, start_step=0), total_steps=1, every=2)
    clock[0] += 1
    loss = _UnderWay(clock)
    reporter._under_way.append(loss)
    with reporter.pause():
        clock[0] += 50
    reporter.add(1, _metrics(1), batch_size=4, seconds_waited=0.0)
    reporter.flush()
    (row,) = _rows(tmp_path)
    assert row["training/images_per_second"] == 1  # four in one second and three


def test_the_host_waits_for_the_device_only_when_it_is_far_ahead(reporter):
    clock = [0.0]
    losses = [_UnderWay(clock) for _ in range(training_log.STEPS_AHEAD + 2)]
    for step, loss in enumerate(losses):
        reporter.add(2 * step + 1, {"loss": loss}, batch_size=4, seconds_waited=0.0)
    assert [loss.waits for loss in losses] == [1, 1] + [0] * training_log.STEPS_AHEAD


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_found_also_in_an_open_period(reporter, value):
    reporter.add(1, _metrics(value), batch_size=4, seconds_waited=0.0)
    with pytest.raises(training_log.NonFiniteError, match=f"loss {value}"):
        reporter.flush()


def test_what_json_cannot_say_is_null(tmp_path):
    writer = MetricsWriter(tmp_path, start_step=0)
    writer.write(3, {"a": float("nan"), "b@5": 0.5})
    writer.close()
    assert _rows(tmp_path) == [{"step": 3, "a": None, "b@5": 0.5}]
