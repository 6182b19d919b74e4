# SPDX-License-Identifier: BSD-3-Clause
import functools
import os
import signal
import traceback

import pytest

from mlimages_jax.engines.engine import PartLostError
from mlimages_jax.engines.options import open_engine
from tests.engines import jobs
from tests.support import ray_nodes

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """Three nodes on this machine; the first one, of this process, does no work."""
    with ray_nodes.cluster(nodes=2) as cluster:
        yield cluster


def test_parts_of_killed_workers_and_lost_nodes_are_done_again(cluster, tmp_path):
    lost = cluster.add_node(num_cpus=2)

    def parts():
        yield from range(6)
        started = dict(jobs.wait_for_attempts(tmp_path, count=6))
        os.kill(started[2], signal.SIGKILL)
        cluster.remove_node(lost, allow_graceful=False)
        # Those that wait end now: on the cores that are left nothing else could begin.
        (tmp_path / "go").touch()

    work = functools.partial(jobs.wait_for_go, tmp_path)
    with open_engine("ray") as engine:
        done = [part for part, _ in engine.map_unordered(work, parts())]
    assert sorted(done) == list(range(6))
    again = [part for part, _ in jobs.attempts(tmp_path)]
    assert sorted(set(again)) == list(range(6)) and 2 in again


def test_the_part_of_a_worker_that_was_told_to_end_is_done_again(cluster, tmp_path):
    work = functools.partial(jobs.end_at_first_attempt, tmp_path)
    with open_engine("ray", workers=1) as engine:
        assert list(engine.map_unordered(work, [1])) == [(1, 1)]


def test_relative_paths_are_those_of_the_command(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_engine("ray", workers=1) as engine:
        assert list(engine.map_unordered(os.path.realpath, ["a"])) == [("a", f"{tmp_path}/a")]


def test_a_part_that_kills_its_workers_is_named(cluster):
    with open_engine("ray", workers=2) as engine, pytest.raises(PartLostError) as caught:
        list(engine.map_unordered(jobs.die_at_two, range(5)))
    assert str(caught.value).startswith("2: 3 workers died while working on this")


def test_an_exception_keeps_its_type_and_traceback_and_names_the_part(cluster):
    with open_engine("ray") as engine, pytest.raises(FileNotFoundError) as caught:
        list(engine.map_unordered(jobs.fail_at_three, range(5)))
    assert caught.value.filename == "three.jpg"
    text = "".join(traceback.format_exception(caught.value))
    assert "in fail_at_three" in text and "while working on 3" in text


def test_closing_early_ends_the_parts_in_flight(cluster, tmp_path):
    import psutil

    with open_engine("ray", workers=3) as engine:
        results = engine.map_unordered(functools.partial(jobs.wait_unless_zero, tmp_path), range(9))
        assert next(results) == (0, 0)
        started = dict(jobs.wait_for_attempts(tmp_path, count=3))
        del started[0]
        workers = [psutil.Process(pid) for pid in started.values()]
        results.close()
        assert not psutil.wait_procs(workers, timeout=60)[1]
