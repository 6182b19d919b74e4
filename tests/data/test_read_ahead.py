# SPDX-License-Identifier: BSD-3-Clause
"""Worker processes: the batches of threads, whatever happens to workers or to their parent."""

import ast
import collections
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mlimages_jax.data import pipeline, read_ahead
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images.views import EvaluationView, TrainingView
from tests.support import record_files, worker_processes

LENGTHS = (6, 5, 7)
DAMAGED = 8
STREAMS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of three files with a record that cannot be read."""
    folder = record_files.write_set(tmp_path_factory.mktemp("sets") / "grey", LENGTHS)
    (path,) = folder.glob("*array_record-00001-of-*")
    path.write_bytes(path.read_bytes().replace(f"{DAMAGED}.jpg".encode(), b"9.jpg"))
    return folder


def training(folder, bad=None, *, size=24, max_labels=1, prefetch=2, **arguments):
    streams = DataSet.open(folder).streams("train", count=STREAMS, served=range(STREAMS))
    return pipeline.training_batches(
        streams, TrainingView(size), batch_size=6, num_streams=STREAMS, max_labels=max_labels,
        seed=3, bad_images=bad, prefetch=prefetch, **arguments,
    )  # fmt: skip


def evaluation(folder, bad=None, **arguments):
    return pipeline.evaluation_batches(
        DataSet.open(folder).records("train"), EvaluationView(24, "central"), batch_size=4,
        max_labels=1, bad_images=bad, **arguments,
    )  # fmt: skip


def check_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def settled(size):
    """Waits until workers make no more arrays of this many bytes; returns how many there are."""
    counts = [-1]
    while len(counts) < 20 or len(set(counts[-20:])) > 1:
        time.sleep(0.05)
        counts.append(0)
        for path in Path("/dev/shm").glob("psm_*"):
            with contextlib.suppress(FileNotFoundError):
                counts[-1] += path.stat().st_size == size
    return counts[-1]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("batches", [training, evaluation])
def test_workers_make_the_batches_of_threads(folder, tmp_path, batches, num_workers):
    listed, made = [], []
    for count in 0, num_workers:
        bad = pipeline.BadImages(tmp_path / f"{count}.tsv")
        made.append(list(itertools.islice(batches(folder, bad, num_workers=count), 7)))
        listed.append((tmp_path / f"{count}.tsv").read_text())
    check_equal(*made)
    assert listed[0] == listed[1] and listed[0].count("damaged_record") == 1
    assert not all(batch["mask"].all() for batch in made[1])


@pytest.mark.slow
def test_workers_go_on_at_any_step_and_end_with_their_batches(folder):
    batches = training(folder, num_workers=2, start_step=50)
    check_equal(itertools.islice(batches, 3), itertools.islice(training(folder, start_step=50), 3))
    assert len(worker_processes.started_by()) == 2
    batches.close()
    assert not worker_processes.started_by()


@pytest.mark.slow
def test_the_limit_of_bad_images_holds_over_workers(folder):
    batches = training(folder, pipeline.BadImages(limit=0), num_workers=2)
    with pytest.raises(pipeline.TooManyBadImagesError, match="limit 0"):
        collections.deque(batches, maxlen=0)
    assert not worker_processes.started_by()


@pytest.mark.slow
def test_signals_to_the_whole_job_leave_workers_at_work_and_a_killed_one_is_told(folder):
    batches, expected = training(folder, num_workers=2), training(folder)
    check_equal(itertools.islice(batches, 2), itertools.islice(expected, 2))
    for one in worker_processes.started_by():
        one.send_signal(signal.SIGTERM)
        one.send_signal(signal.SIGINT)
    check_equal(itertools.islice(batches, 20), itertools.islice(expected, 20))
    worker_processes.started_by()[0].kill()
    with pytest.raises(RuntimeError, match="exit code -9"):
        collections.deque(batches, maxlen=0)
    assert not worker_processes.started_by()


@pytest.mark.slow
def test_the_shared_memory_that_is_looked_for_suffices(folder, monkeypatch):
    """A worker that finds none left is ended by a signal, minutes into a training."""
    needed = []
    monkeypatch.setattr(read_ahead, "_check_shared_memory", needed.append)
    batches = training(folder, num_workers=2, size=37)
    in_use = list(itertools.islice(batches, 4))
    size = in_use[0]["image"].nbytes
    assert settled(size) * size <= needed[0]
    batches.close()


KILLING = """
import sys
from tests.data.test_read_ahead import settled, training
from tests.support import worker_processes
if __name__ == "__main__":
    batches = training(sys.argv[1], num_workers=2, size=38, max_labels=2500)
    settled(next(batches)["image"].nbytes)
    worker_processes.started_by()[0].kill()
    try:
        for _ in batches:
            pass
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_while_nobody_takes_its_batches_is_told(folder, tmp_path):
    """It was amid a message with the labels of a batch, for the rest of which training waited."""
    with running(folder, tmp_path, KILLING) as program:
        try:
            told = program.communicate(timeout=300)[0].decode()
        finally:
            program.kill()
    assert "exit code -9" in told


PROGRAM = """
import itertools, sys
from tests.data.test_read_ahead import settled, training
if __name__ == "__main__":
    size = int(sys.argv[2])
    batches = training(sys.argv[1], num_workers=2, size=size)
    print([batch["labels"].tolist() for batch in itertools.islice(batches, 3)], flush=True)
    sys.stdin.read()
    batches.close()
    assert settled(6 * size * size * 3) == 0  # a thread of Grain's removes them
"""


@contextlib.contextmanager
def running(folder, tmp_path, text=PROGRAM, size=128):
    """A program; `PROGRAM` prints the labels of three batches, and waits for its input's end.

    Images of 128 pixels are large enough for shared memory; another size tells programs apart.
    """
    program = tmp_path / "program.py"
    program.write_text(text)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, program, folder, str(size)], cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield process


@pytest.mark.slow
def test_signals_while_workers_start_do_not_end_them(folder, tmp_path):
    """A worker that was importing died of them, and the training with it."""
    ended = threading.Event()
    with running(folder, tmp_path, size=127) as program:

        def send() -> None:
            while not ended.wait(0.02):
                for one in worker_processes.started_by(program.pid):
                    one.send_signal(signal.SIGINT)
                    one.send_signal(signal.SIGTERM)

        sender = threading.Thread(target=send)
        sender.start()
        shown = program.stdout.readline()
        ended.set()
        sender.join()
        errors = program.communicate(b"")[1].decode()
    batches = itertools.islice(training(folder), 3)
    assert ast.literal_eval(shown.decode()) == [batch["labels"].tolist() for batch in batches]
    assert program.returncode == 0 and "leaked" not in errors, errors


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(folder, tmp_path):
    with running(folder, tmp_path) as program:
        program.stdout.readline()
        started = worker_processes.started_by(program.pid)
        assert len(started) == 2
        program.kill()
        end = time.monotonic() + 60
        while any(one.is_running() for one in started):
            assert time.monotonic() < end, "workers are left"
            time.sleep(0.05)


def test_too_little_shared_memory_is_told_before_workers_start(folder, tmp_path, monkeypatch):
    free = collections.namedtuple("Usage", "free")(5_000)
    monkeypatch.setattr(read_ahead.shutil, "disk_usage", lambda _: free)
    batch = 6 * 240 * 240 * 3
    needed = f"{batch * (2 * 3 * 2 + 4) / 1e6:,.0f} MB of shared memory"
    with pytest.raises(read_ahead.SharedMemoryError, match=needed):
        training(folder, num_workers=3, size=240)
    monkeypatch.setattr(read_ahead, "SHARED_MEMORY", tmp_path / "absent")
    monkeypatch.undo()
    training(folder, num_workers=3, prefetch=0)  # at least one each
    assert not worker_processes.started_by()
