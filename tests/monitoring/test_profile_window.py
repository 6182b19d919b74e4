# SPDX-License-Identifier: BSD-3-Clause
import jax
import pytest
from etils import epath

from mlimages_jax.monitoring import profile_window
from mlimages_jax.monitoring.profile_window import ProfileWindow


@pytest.fixture
def calls(monkeypatch):
    """What the profiler is told, in order."""
    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: told.append(("start", folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append(("stop",)))
    return told


def _run(window, first, last):
    for step in range(first, last + 1):
        window.before(step)
        window.after(step, ())
    window.close()


@pytest.mark.parametrize(
    ("first", "last", "traced"), [(1, 9, True), (4, 9, True), (1, 4, True), (6, 9, False)]
)
def test_a_window_is_traced_once(calls, tmp_path, first, last, traced):
    """Also where a run resumes or stops within it; after it nothing is."""
    _run(ProfileWindow(epath.Path(tmp_path), (3, 5)), first, last)
    assert calls == ([("start", str(tmp_path)), ("stop",)] if traced else [])


def test_no_window_traces_nothing(calls, tmp_path):
    _run(ProfileWindow(epath.Path(tmp_path), ()), 1, 3)
    assert not calls


def test_a_trace_in_a_bucket_is_copied_there(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(profile_window, "is_remote", lambda _: True)
    caplog.set_level("INFO")
    window = ProfileWindow(epath.Path(tmp_path / "profile"), (1, 1))
    window.before(1)
    window.after(1, jax.jit(lambda x: x + 1)(1.0))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert f"--logdir={tmp_path / 'profile'}" in caplog.text
