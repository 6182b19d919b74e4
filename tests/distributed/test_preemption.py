# SPDX-License-Identifier: BSD-3-Clause
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mlimages_jax.checkpoints import manager
from mlimages_jax.distributed import preemption
from tests.support.many_processes import Job, training
from tests.support.small_run import ROOT

LONG = {"total_steps": 3_000, "schedule.cosine.total_steps": 3_000, "checkpoint.every": 10_000}


@pytest.fixture(autouse=True)
def without_nohup():
    """Tests may run under nohup, whose ignored SIGHUP programs inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def watched(monkeypatch):
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    monkeypatch.setattr(preemption, "_received", [])
    preemption.watch()
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_noticed_and_end_nothing(watched, kind):
    preemption.check()
    for _ in range(3):
        signal.raise_signal(kind)
    assert preemption.received()
    with pytest.raises(preemption.Preempted) as stopped:
        preemption.check()
    assert not stopped.value.agreed


def test_a_second_interrupt_ends_at_once(watched):
    signal.raise_signal(signal.SIGINT)
    assert preemption.received()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_under_nohup_a_lost_terminal_is_no_reason_to_end(watched):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    preemption.watch()
    signal.raise_signal(signal.SIGHUP)
    assert not preemption.received()


LOST = """
import os, pty, sys, time
pid, terminal = pty.fork()
if pid:  # the side of ssh
    seen = b""
    while b"watching" not in seen:
        seen += os.read(terminal, 1_024)
    os.close(terminal)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
from mlimages_jax.distributed import preemption
preemption.watch()
print("watching", flush=True)
while not preemption.received():
    time.sleep(0.01)
for _ in range(3):
    print("to nobody", flush=True)
    print("to nobody", file=sys.stderr, flush=True)
sys.exit(preemption.EXIT_CODE)
"""


def test_output_to_a_terminal_that_is_gone_does_not_end_the_program():
    """As after a lost ssh: the terminal hangs up, then every write to it fails."""
    done = subprocess.run([sys.executable, "-c", LOST], cwd=ROOT, timeout=120)
    assert done.returncode == preemption.EXIT_CODE


@pytest.mark.slow
def test_a_lost_ssh_saves_and_ends_as_sigterm_does(drawn, tmp_path):
    with Job(tmp_path / "logs", training(tmp_path / "w", drawn, **LONG)) as job:
        job.until("step 10/", seconds=300)
        job.send(0, signal.SIGHUP)
        assert job.wait() == [preemption.EXIT_CODE], job.output()
    assert manager.latest_step(tmp_path / "w" / "checkpoints") >= 10


def until_it_listens(process: subprocess.Popen, *, seconds: float = 60) -> None:
    """Waits until a program has its own handler of SIGTERM: before, any signal just ends it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = Path(f"/proc/{process.pid}/status").read_text()
        (caught,) = re.findall(r"SigCgt:\s*(\w+)", status)
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.02)
    raise AssertionError(f"no handler of SIGTERM after {seconds} s")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_in_every_phase_costs_no_step(drawn, tmp_path):
    """Ten signals each time, and the same command again, to the bits of an uninterrupted run."""
    changes = {**LONG, "total_steps": 90, "schedule.cosine.total_steps": 90, "evaluate_every": 9}
    changes["checkpoint.every"] = 20
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with Job(tmp_path / "logs", training(whole, drawn, **changes)) as job:
        assert job.wait() == [0]
    moments = [
        "", "classes, up to", "compiled the step", "steps 1 to", "step 27  val", "step 90/",
    ]  # fmt: skip
    command = training(stopped, drawn, **changes)
    for moment in moments:
        with Job(tmp_path / "logs", command) as job:
            until_it_listens(job.processes[0])
            if f"{moment} " != "steps 1 to " or not (stopped / "metrics.jsonl").exists():
                job.until(moment)
            for _ in range(10):
                job.send(0, signal.SIGTERM)
            codes = job.wait()
            assert codes == [preemption.EXIT_CODE] or moment == "step 90/", job.output()
    with Job(tmp_path / "logs", command) as job:
        assert job.wait() == [0]
    ours, theirs = manager.load(stopped), manager.load(whole)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert "val/mAP" in (stopped / "metrics.jsonl").read_text().splitlines()[-1]


@pytest.mark.slow
def test_a_disk_without_room_is_named_and_harms_no_checkpoint(drawn, tmp_path):
    workdir = tmp_path / "w"
    with Job(tmp_path / "logs", training(workdir, drawn, total_steps=4)) as job:
        assert job.wait() == [0]
    small = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))"
    with Job(tmp_path / "logs", training(workdir, drawn), prefix=small) as job:
        assert job.wait() == [1]
        assert f"error: a checkpoint could not be written to {workdir}/checkpoints" in job.output()
        assert "Free some disk space" in job.output()
    assert manager.load(workdir)["step"] == 4
    with Job(tmp_path / "logs", training(workdir, drawn)) as job:
        assert job.wait() == [0]
    assert manager.load(workdir)["step"] == 8


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    logs = tmp_path_factory.mktemp("logs")
    with Job(logs, training(workdir, drawn, total_steps=2)) as job:
        assert job.wait() == [0]
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "values", "complete"),
    [
        ("evaluate", {"evaluation.sizes": "(32,)", "evaluation.batch_size": 8}, "results.txt"),
        ("classify", {"split": "train", "batch_size": 8}, "tags.jsonl"),
        (
            "export_features",
            {"split": "train", "batch_size": 8, "rows_per_part": 8},
            "index.jsonl",
        ),
    ],
)
def test_other_tasks_end_as_asked_and_go_on(drawn, trained, tmp_path, config, values, complete):
    place = "data.folder" if config == "evaluate" else "input"
    values = values | {"checkpoint": trained, place: drawn}
    arguments = [f"--config=configs/{config}.py", f"--workdir={tmp_path / 'w'}"]
    arguments += [f"--config.{name}={value}" for name, value in values.items()]
    with Job(tmp_path / "logs", arguments) as job:
        until_it_listens(job.processes[0])
        job.send(0, signal.SIGTERM)
        assert job.wait() == [preemption.EXIT_CODE], job.output()
    assert not (tmp_path / "w" / complete).exists()
    with Job(tmp_path / "logs", arguments) as job:
        assert job.wait() == [0], job.output()
    assert (tmp_path / "w" / complete).exists()


@pytest.mark.slow
def test_who_waits_for_new_checkpoints_ends_as_asked(drawn, trained, tmp_path):
    arguments = [
        "--config=configs/evaluate.py", f"--workdir={tmp_path / 'w'}", "--config.which=new",
        "--config.poll_seconds=0.2", f"--config.checkpoint={tmp_path / 'nothing'}",
        f"--config.data.folder={drawn}", "--config.evaluation.batch_size=8",
    ]  # fmt: skip
    with Job(tmp_path / "logs", arguments) as job:
        time.sleep(1.5)
        job.send(0, signal.SIGTERM)
        assert job.wait(seconds=60) == [preemption.EXIT_CODE], job.output()


@pytest.mark.slow
def test_who_watches_for_new_images_ends_as_asked(trained, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(ROOT / "docs" / "images" / "yellow_disc.jpg", photos / "a.jpg")
    arguments = [
        "--config=configs/classify.py", f"--workdir={tmp_path / 'w'}", "--config.watch=True",
        "--config.interval=0.2", f"--config.checkpoint={trained}", f"--config.input={photos}",
        "--config.batch_size=8",
    ]  # fmt: skip
    with Job(tmp_path / "logs", arguments) as job:
        _wait_for(tmp_path / "w" / "tags.jsonl", "a.jpg")
        shutil.copy(photos / "a.jpg", photos / "b.jpg")
        _wait_for(tmp_path / "w" / "tags.jsonl", "b.jpg")
        job.send(0, signal.SIGTERM)
        assert job.wait(seconds=60) == [preemption.EXIT_CODE], job.output()


def _wait_for(path, text, seconds=120):
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"{text} did not appear in {path}"
        time.sleep(0.1)
