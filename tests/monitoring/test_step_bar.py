# SPDX-License-Identifier: BSD-3-Clause
import io
import logging as std_logging
import sys

import jax.numpy as jnp
from absl import logging

from mlimages_jax.monitoring.step_bar import StepBar


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _terminal(monkeypatch):
    """Called in the test: between set-up and test pytest restores its own standard error."""
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_steps_loss_and_rate_are_shown_on_a_terminal(monkeypatch):
    terminal = _terminal(monkeypatch)
    bar = StepBar(total_steps=10, done=4, active=True)
    bar.update(loss=None, batch_size=8)
    bar.update(loss=jnp.float32(0.25), batch_size=8)
    bar.close()
    last = terminal.getvalue().strip().splitlines()[-1]
    assert "training" in last and "6/10" in last and "loss=0.2500" in last


def test_log_lines_get_a_line_of_their_own(monkeypatch):
    terminal = _terminal(monkeypatch)
    bar = StepBar(total_steps=10, done=0, active=True)
    bar.update(loss=None, batch_size=8)
    handler = logging.get_absl_handler()
    record = std_logging.LogRecord("x", std_logging.INFO, "x", 1, "line", (), None)
    assert handler.filter(record)
    assert terminal.getvalue().endswith("\r")  # the bar is gone from its line
    bar.close()
    assert not [one for one in handler.filters if getattr(one, "__self__", None) is bar]


def test_there_is_none_in_a_log_or_on_other_processes(monkeypatch):
    terminal = _terminal(monkeypatch)
    StepBar(total_steps=10, done=0, active=False).update(loss=None, batch_size=8)
    assert terminal.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    StepBar(total_steps=10, done=0, active=True).update(loss=None, batch_size=8)
    assert sys.stderr.getvalue() == ""
