# SPDX-License-Identifier: BSD-3-Clause
"""Without checkpoints on disk; test_evaluate_task.py does the same with those of a training."""

import pytest
from etils import epath

from mlimages_jax.evaluation import which_checkpoints
from mlimages_jax.evaluation.which_checkpoints import checkpoints_to_evaluate
from tests.support.small_run import load_config

FOLDERS = [epath.Path(f"/w/checkpoints/{step}") for step in (2, 4, 10)]


@pytest.fixture
def found(monkeypatch):
    """The steps that exist, of a training that ends at step 10."""
    steps = list(FOLDERS)
    monkeypatch.setattr(which_checkpoints.manager, "find", lambda _: list(steps))
    monkeypatch.setattr(which_checkpoints.manager, "config_of", lambda _: {"total_steps": 10})
    monkeypatch.setattr(which_checkpoints.step_folders, "resolve_quietly", lambda _: steps[-1])
    return steps


def _chosen(which):
    return checkpoints_to_evaluate(load_config("evaluate", checkpoint="/w", which=which))


def test_the_latest_or_all(found):
    assert list(_chosen("latest")) == FOLDERS[-1:]
    assert list(_chosen("all")) == FOLDERS


def test_new_ones_come_once_each_in_the_order_of_steps(found, monkeypatch):
    late = [found.pop(), found.pop()]

    def sleep(seconds):
        assert seconds == 30
        found.append(late.pop())

    monkeypatch.setattr(which_checkpoints.time, "sleep", sleep)
    assert list(_chosen("new")) == FOLDERS
    assert not late


def test_the_wait_begins_again_with_every_checkpoint(found, monkeypatch, caplog):
    caplog.set_level("WARNING")
    del found[1:]
    hours = []

    def sleep(_):
        hours.append(1)
        found[1:] = FOLDERS[1:2]  # the second one comes after an hour, the last one never

    monkeypatch.setattr(which_checkpoints.time, "monotonic", lambda: 3_600 * len(hours))
    monkeypatch.setattr(which_checkpoints.time, "sleep", sleep)
    assert list(_chosen("new")) == FOLDERS[:2]
    assert len(hours) == 3, "two hours after the second one"
    assert "no new checkpoint in /w for 120 minutes: done" in caplog.text
