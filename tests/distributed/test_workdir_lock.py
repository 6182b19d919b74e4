# SPDX-License-Identifier: BSD-3-Clause
"""One program a workdir: on a disk, and in an imitation of a bucket."""

import errno
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mlimages_jax.distributed import object_lock, workdir_lock
from mlimages_jax.distributed.process_identity import Owner
from mlimages_jax.distributed.workdir_lock import WorkdirInUseError, held
from tests.support import object_storage
from tests.support.small_run import ROOT

HOLD = """
import sys, time
from mlimages_jax.distributed import object_lock, workdir_lock
object_lock.BEAT_SECONDS, object_lock.TAKEOVER_SECONDS = 0.3, 3
object_lock._POLL_SECONDS = 0.1
with workdir_lock.held(sys.argv[1], task="train"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _hold(place, *, seconds=60, environment=None):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place), str(seconds)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip


@pytest.fixture
def holder():
    """Starts processes that hold a place, and ends them."""
    started = []

    def start(place, **settings):
        started.append(_hold(place, **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_one_is_told_who_was_first(holder, tmp_path):
    first = holder(tmp_path / "w")
    assert first.stdout.readline() == "held\n"
    with pytest.raises(WorkdirInUseError) as told, held(tmp_path / "w", task="evaluate"):
        pass
    said = str(told.value)
    assert f"{tmp_path / 'w'} is in use by process {first.pid} on " in said
    assert "task train, since 20" in said
    assert "\n" not in said


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holder_holds_nothing(holder, tmp_path, kind):
    first = holder(tmp_path / "w")
    assert first.stdout.readline() == "held\n"
    first.send_signal(kind)
    first.wait()
    with held(tmp_path / "w", task="train"):
        assert (tmp_path / "w" / workdir_lock.NAME).exists()
    assert not (tmp_path / "w" / workdir_lock.NAME).exists()


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_children_do_not_hold_it_for_a_dead_parent(tmp_path, way):
    """As readers of images, which outlive a parent that was killed."""
    script = f"""
import multiprocessing, time
from mlimages_jax.distributed import workdir_lock
if __name__ == "__main__":
    context = multiprocessing.get_context({way!r})
    with workdir_lock.held({str(tmp_path)!r}, task="train"):
        child = context.Process(target=time.sleep, args=(60,))
        child.start()
        print(child.pid, flush=True)
        time.sleep(60)
"""
    path = tmp_path / "parent.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, text=True, env=environment
    )
    child = int(parent.stdout.readline())
    try:
        time.sleep(0.5)  # until a spawned child is past its start
        parent.kill()
        parent.wait()
        os.kill(child, 0)  # it lives
        with held(tmp_path, task="train"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_a_task_within_a_task_holds_it_once_and_others_do_not(tmp_path):
    refused = []

    def other():
        try:
            with held(tmp_path, task="train"):
                pass
        except WorkdirInUseError as error:
            refused.append(error)

    with held(tmp_path, task="quickstart"):
        with held(tmp_path, task="train"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / workdir_lock.NAME).exists()
    assert len(refused) == 1
    with held(tmp_path, task="train"):
        pass


def test_a_disk_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workdir_lock.fcntl, "flock", none)
    with held(tmp_path, task="train"):
        pass


def test_an_owner_is_known_dead_beside_us_only():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    child.start()
    ours = Owner.this("train")
    assert not ours.is_known_dead()
    born = ours._replace(born="1")  # another process of the same number
    assert born.is_known_dead()
    assert not born._replace(machine="another").is_known_dead()
    child.join()
    assert ours._replace(pid=child.pid, born="5").is_known_dead()
    assert Owner.read(ours.text()) == ours
    assert Owner.read(b'{"half": ') is None


needs_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None, reason="gcsfs is not installed (the extra gcs)"
)
W = "gs://bucket/run"


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "bucket").mkdir()
    with object_storage.serve(tmp_path / "bucket") as storage:
        yield storage


def _lock_file(storage):
    return storage.folder / "run" / workdir_lock.NAME


@needs_gcsfs
@pytest.mark.slow
def test_in_a_bucket_a_living_holder_is_respected_and_a_dead_one_replaced(storage, holder):
    environment = storage.environment()
    first = holder(W, environment=environment)
    assert first.stdout.readline() == "held\n", first.stderr.read()
    refused = _hold(W, environment=environment)
    _, said = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert f"{W} is in use by process {first.pid} on " in said
    first.kill()
    first.wait()
    begin = time.monotonic()
    second = holder(W, seconds=0.5, environment=environment)  # this machine knows that it is dead
    assert second.stdout.readline() == "held\n"
    assert "is dead; taking the lock over" in second.communicate(timeout=60)[1]
    assert time.monotonic() - begin < 60
    assert not _lock_file(storage).exists()


@needs_gcsfs
@pytest.mark.slow
def test_in_a_bucket_a_silent_holder_of_another_machine_is_replaced(storage, holder):
    gone = Owner.this("train")._replace(host="gone", machine="another", token="another")
    _lock_file(storage).parent.mkdir()
    _lock_file(storage).write_text(gone.text())
    begin = time.monotonic()
    process = holder(W, seconds=0.5, environment=storage.environment())
    assert process.stdout.readline() == "held\n"
    assert time.monotonic() - begin > 3
    said = process.communicate(timeout=60)[1]
    assert "on gone (task train" in said


@pytest.mark.slow
@needs_gcsfs
def test_in_a_bucket_who_was_replaced_ends(storage, holder):
    process = holder(W, environment=storage.environment())
    assert process.stdout.readline() == "held\n"
    other = Owner.this("train")._replace(host="other", token="other")
    with storage.lock:
        _lock_file(storage).write_text(other.text())
    assert process.wait(60) == object_lock.LOST_EXIT_CODE
    assert "was taken over by process" in process.stderr.read()
    assert json.loads(_lock_file(storage).read_text())["token"] == "other"
