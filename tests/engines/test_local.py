# SPDX-License-Identifier: BSD-3-Clause
import functools
import itertools
import os
import signal
import subprocess
import sys
import traceback

import numpy as np
import psutil
import pytest

from mlimages_jax.engines import dispatch, local
from mlimages_jax.engines.engine import PartLostError
from mlimages_jax.engines.options import open_engine
from tests.engines import jobs

DRIVER = """
import functools, sys
from mlimages_jax.engines.local import LocalProcesses
from tests.engines import jobs
work = functools.partial(jobs.wait_unless_zero, sys.argv[1])
list(LocalProcesses(2).map_unordered(work, [1, 2]))
"""


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_every_part_is_done_once_in_the_processes_asked_for(workers):
    with open_engine("local", workers=workers) as engine:
        parts = [np.array([number]) for number in range(20)]  # not hashable
        done = list(engine.map_unordered(jobs.square, parts))
    assert sorted((int(part[0]), int(result[0])) for part, (result, _) in done) == [
        (number, number * number) for number in range(20)
    ]
    assert (os.getpid() in {pid for _, (_, pid) in done}) == (not workers)


def test_parts_are_taken_as_workers_become_free():
    taken = itertools.count()
    with open_engine("local", workers=2) as engine:
        results = engine.map_unordered(jobs.square, taken)  # no end
        for _ in itertools.islice(results, 50):
            pass
        results.close()
    assert next(taken) < 50 + 2 * 2 + 1


def test_the_part_of_a_killed_worker_is_done_again_and_no_other(tmp_path):
    def parts():
        yield from (1, 2, 3)
        started = dict(jobs.wait_for_attempts(tmp_path, count=3))
        os.kill(started[2], signal.SIGKILL)

    work = functools.partial(jobs.wait_for_second_attempt, tmp_path)
    with open_engine("local", workers=4) as engine:
        done = [part for part, _ in engine.map_unordered(work, parts())]
    assert sorted(done) == [1, 2, 3]
    assert sorted(part for part, _ in jobs.attempts(tmp_path)) == [1, 2, 2, 3]


def test_the_part_of_a_worker_that_was_told_to_end_is_done_again(tmp_path):
    work = functools.partial(jobs.end_at_first_attempt, tmp_path)
    with open_engine("local", workers=1) as engine:
        assert list(engine.map_unordered(work, [1])) == [(1, 1)]


@pytest.mark.slow
def test_a_part_that_kills_its_workers_is_named():
    with open_engine("local", workers=2) as engine, pytest.raises(PartLostError) as caught:
        list(engine.map_unordered(jobs.die_at_two, range(5)))
    assert str(caught.value).startswith("2: 3 workers died while working on this")
    assert "run the same command to resume" in str(caught.value)


class DyingWorkers:
    """Workers that die after some seconds each, on a clock of their own; the last one does not."""

    def __init__(self, monkeypatch, seconds):
        self._seconds, self._now, self.tasks = iter(seconds), 0.0, 0
        monkeypatch.setattr(dispatch.time, "monotonic", lambda: self._now)

    def capacity(self):
        return 1

    def submit(self, part):
        self.tasks += 1
        return self.tasks

    def wait(self, tasks):
        return list(tasks)

    def result(self, task):
        lived = next(self._seconds, None)
        if lived is None:
            return "done"
        self._now += lived
        raise dispatch.WorkerDiedError("killed")


@pytest.mark.parametrize(
    ("seconds", "lost"),
    [
        ([1, 1], None),
        ([1, 1, 1], 3),
        ([1, 1, 3600, 1, 1], None),  # in between a worker was at it for an hour
        ([1, 3600, 1, 1, 1], 5),
        ([3600] * 29, None),
        ([3600] * 30, 30),
    ],
)
def test_a_part_may_lose_many_workers_late_but_few_early(monkeypatch, seconds, lost):
    workers = DyingWorkers(monkeypatch, seconds)
    if lost is None:
        assert list(dispatch.dispatch(workers, ["part"])) == [("part", "done")]
        assert workers.tasks == len(seconds) + 1
    else:
        with pytest.raises(PartLostError, match=f"part: {lost} workers died"):
            list(dispatch.dispatch(workers, ["part"]))
        assert workers.tasks == lost


@pytest.mark.parametrize("workers", [None, 2])
def test_an_exception_keeps_its_type_and_traceback_and_names_the_part(workers):
    with open_engine("local", workers=workers) as engine, pytest.raises(OSError) as caught:
        list(engine.map_unordered(jobs.fail_at_three, range(5)))
    assert caught.value.filename == "three.jpg"
    text = "".join(traceback.format_exception(caught.value))
    assert "in fail_at_three" in text and "while working on 3" in text


@pytest.mark.slow
def test_an_exception_that_cannot_be_sent_is_no_death():
    with (
        open_engine("local", workers=1) as engine,
        pytest.raises(RuntimeError, match="ReasonedError: message 5") as raised,
    ):
        list(engine.map_unordered(jobs.fail_with_reason, [5]))
    assert "in fail_with_reason" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_workers_end_with_their_driver(how, tmp_path):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, os.fspath(tmp_path)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell starts programs in the background with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        started = jobs.wait_for_attempts(tmp_path, count=2)
        workers = [psutil.Process(pid) for _, pid in started]
        if how == signal.SIGINT:  # a terminal sends it to all
            os.killpg(driver.pid, how)
        else:
            driver.send_signal(how)
        _, errors = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert errors.count("Traceback") == (how == signal.SIGINT)


def test_a_stopped_worker_is_killed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_GRACE", 0.2)
    work = functools.partial(jobs.wait_unless_zero, os.fspath(tmp_path))
    with open_engine("local", workers=2) as engine:
        results = engine.map_unordered(work, [1, 0, 0])
        assert next(results)[0] == 0
        stopped = {
            psutil.Process(pid) for part, pid in jobs.wait_for_attempts(tmp_path, count=2) if part
        }
        for worker in stopped:
            worker.send_signal(signal.SIGSTOP)
        results.close()
    assert stopped and not any(worker.is_running() for worker in stopped)


def test_unknown_engines_and_numbers_are_refused():
    for name, workers in ("spark", None), ("local", -1):
        with pytest.raises(ValueError, match=r"spark|-1"), open_engine(name, workers=workers):
            pass
