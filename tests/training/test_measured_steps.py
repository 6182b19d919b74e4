# SPDX-License-Identifier: BSD-3-Clause
import json

import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.monitoring.goodput import Goodput
from mlimages_jax.training.measured_steps import MeasuredSteps
from tests.support.small_run import small_config

METRICS = {"loss": 2.0, "learning_rate": 0.1, "gradient_norm": 1.0, "images": 8.0}


@pytest.fixture
def measured(tmp_path):
    config = small_config("here", total_steps=3, log_every=1)
    with MeasuredSteps(config, tmp_path, Goodput(None), start=0) as measured:
        yield measured


def _run(measured, function, number=1):
    batches = iter([{"mask": jnp.ones(8)}])
    return measured.run(function, jnp.zeros(()), batches, step=number, batch_size=8)


def _metrics(**changes):
    return {name: jnp.asarray(value) for name, value in (METRICS | changes).items()}


def test_a_step_gets_its_batch_and_is_logged(measured, tmp_path):
    metrics = _metrics()
    state = _run(measured, lambda state, batch: (state + batch["mask"].sum(), metrics))
    assert state == 8
    measured.progress.flush()
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (line["step"], line["training/loss"]) == (1, 2.0)


def test_arrays_of_the_host_are_refused(measured):
    metrics, host = _metrics(), np.ones(())
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        _run(measured, lambda state, _: (state + host, metrics))


def test_without_a_batch_nothing_is_run(measured):
    with pytest.raises(StopIteration):
        measured.run(None, jnp.zeros(()), iter([]), step=1, batch_size=8)
