# SPDX-License-Identifier: BSD-3-Clause
import io
import logging as std_logging
import sys
import threading

import jax.numpy as jnp
import pytest
from absl import logging

from mlimages_jax.monitoring import step_bar
from mlimages_jax.monitoring.goodput import CATEGORIES, Goodput
from mlimages_jax.monitoring.step_bar import StepBar


class _Terminal(io.StringIO):
    """A terminal that keeps what was written to it, and tells of every write."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        written = super().write(text)
        self.written.set()
        return written

    def drawn(self, count=1):
        """Waits for so many redraws and returns the latest bar."""
        for _ in range(count):
            self.written.clear()
            assert self.written.wait(20)
        return self.last()

    def last(self):
        return [one for one in self.getvalue().split("\r") if one.strip()][-1]


def _terminal(monkeypatch):
    """Called in the test: between set-up and test pytest restores its own standard error."""
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def _bar(goodput=None, *, active=True):
    return StepBar(total_steps=10, goodput=goodput or Goodput(None), active=active)


def test_steps_loss_and_rate_are_shown_on_a_terminal(monkeypatch):
    terminal, goodput = _terminal(monkeypatch), Goodput(None)
    with goodput.phase("step"), _bar(goodput) as bar:
        bar.resume(4)
        bar.update(loss=None, batch_size=8)
        bar.update(loss=jnp.float32(0.25), batch_size=8)
        bar._redraw(bar._bar)
        assert "training" in terminal.last()
    last = terminal.last()
    assert "6/10" in last and "loss=0.2500" in last


def test_at_the_end_it_says_how_the_training_ended(monkeypatch):
    """Its clock is back where it was before the training: starting."""
    terminal, goodput = _terminal(monkeypatch), Goodput(None)
    with _bar(goodput) as bar, goodput.phase("step"):
        bar.update(loss=None, batch_size=8)
    assert terminal.last().startswith("done:")
    with pytest.raises(ValueError, match="x"), _bar(goodput):
        raise ValueError("x")
    assert terminal.last().startswith("stopped:")


def test_the_steps_of_an_earlier_run_do_not_count_in_the_rate(monkeypatch):
    """As where the step is compiled already, and training begins before the first redraw."""
    clock = [1000.0]
    _terminal(monkeypatch)
    with _bar() as bar:
        bar._bar._time = lambda: clock[0]
        bar._bar.start_t = bar._bar.last_print_t = clock[0]
        bar.resume(6)
        clock[0] += 2
        bar.update(loss=None, batch_size=8)
        assert bar._bar.format_dict["rate"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("category", "shown"),
    [("compile", "compiling"), ("evaluation", "evaluating"), ("save", "saving")],
)
def test_it_moves_without_a_step_and_says_what_is_being_done(monkeypatch, category, shown):
    monkeypatch.setattr(step_bar, "_EVERY", 0.01)
    terminal, goodput = _terminal(monkeypatch), Goodput(None)
    with _bar(goodput), goodput.phase(category):
        assert shown in terminal.drawn(8)


def test_the_rate_is_that_of_steps_alone(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(step_bar.time, "time", lambda: clock[0])
    terminal, goodput = _terminal(monkeypatch), Goodput(None)
    with _bar(goodput) as bar:
        bar._bar._time = lambda: clock[0]
        bar._bar.start_t = bar._bar.last_print_t = clock[0]
        for _ in range(2):
            clock[0] += 500
            with goodput.phase("evaluation"):
                bar._redraw(bar._bar)
            with goodput.phase("step"):
                for _ in range(4):
                    clock[0] += 2
                    bar.update(loss=None, batch_size=8)
        bar.update(loss=None, batch_size=8)
        assert bar._bar.format_dict["rate"] == pytest.approx(0.5, rel=0.2)
    assert "images/s=4" in terminal.last()


def test_every_category_of_the_clock_has_a_word():
    # `input` is moved from the steps' time and is never a phase of its own.
    assert {*CATEGORIES} - {*step_bar._SHOWN} == {"input"}


def test_log_lines_get_a_line_of_their_own(monkeypatch):
    terminal = _terminal(monkeypatch)
    with _bar() as bar:
        bar.update(loss=None, batch_size=8)
        handler = logging.get_absl_handler()
        record = std_logging.LogRecord("x", std_logging.INFO, "x", 1, "line", (), None)
        assert handler.filter(record)
        assert terminal.getvalue().endswith("\r")  # the bar is gone from its line
    assert not [one for one in handler.filters if getattr(one, "__self__", None) is bar]


def test_there_is_none_in_a_log_or_on_other_processes(monkeypatch):
    terminal = _terminal(monkeypatch)
    with _bar(active=False) as bar:
        bar.resume(3)
        bar.update(loss=None, batch_size=8)
    assert terminal.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with _bar() as bar:
        bar.update(loss=None, batch_size=8)
    assert sys.stderr.getvalue() == ""


def test_an_error_leaves_no_thread_behind(monkeypatch):
    _terminal(monkeypatch)
    with pytest.raises(ValueError, match="x"), _bar() as bar:
        raise ValueError("x")
    assert not bar._thread.is_alive()
