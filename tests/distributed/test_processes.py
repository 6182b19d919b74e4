# SPDX-License-Identifier: BSD-3-Clause
"""Real processes that begin together, end together, and lose each other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mlimages_jax.checkpoints import manager
from mlimages_jax.distributed import preemption, processes, sharding
from tests.support.many_processes import Job, training
from tests.support.small_run import ROOT

LONG = {"total_steps": 4_000, "schedule.cosine.total_steps": 4_000, "checkpoint.every": 10_000}
AT_ONCE = 60  # seconds in which the others must end


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", None, None), "--num_processes and --process_id is missing"),
        ((None, 2, 0), "--coordinator_address is missing"),
        (("host:1", 2, 2), "number the processes from 0 to 1"),
        (("host", 2, 0), "HOST:PORT"),
        (("host:", 2, 0), "HOST:PORT"),
    ],
)
def test_arguments_that_cannot_be_are_explained(arguments, message):
    with pytest.raises(processes.PeerError, match=message), processes.initialize(*arguments):
        pytest.fail("began")


@pytest.mark.parametrize("tasks", [None, 1])
def test_one_process_alone_joins_nobody(tasks):
    """In a process of its own: jax joins others before its first use only."""
    slurm = {"JOB_ID": 7, "STEP_NODELIST": "n1", "NTASKS": tasks, "PROCID": 0, "LOCALID": 0}
    code = (
        "import jax\nfrom mlimages_jax.distributed import processes\n"
        "with processes.initialize():\n    assert not jax.distributed.is_initialized()"
    )
    environment = {name: v for name, v in os.environ.items() if not name.startswith("SLURM_")}
    environment |= {f"SLURM_{name}": str(value) for name, value in slurm.items() if tasks}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=True)


def test_one_process_stops_at_the_next_check(monkeypatch):
    stop = processes.StopRequest(sharding.make_mesh())
    stop.check()
    monkeypatch.setattr(preemption, "_received", [signal.SIGTERM])
    with pytest.raises(preemption.Preempted) as stopped:
        stop.check()
    assert stopped.value.agreed


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (0, "process 0 of 2 has waited 4 s for the other 1 processes to connect to 127.0.0.1:"),
        (1, "process 1 of 2 has waited 4 s for process 0, which does not answer at 127.0.0.1:"),
    ],
)
@pytest.mark.slow
def test_a_process_that_never_comes_is_named(drawn, tmp_path, present, message):
    arguments = [*training(tmp_path / "w", drawn), "--peer_timeout=4"]
    with Job(tmp_path / "logs", arguments, count=2, absent=(1 - present,)) as job:
        assert job.wait(seconds=40) == [processes.LOST_EXIT_CODE]
        assert message in job.output(present)
        assert "firewall" in job.output(present)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_end_when_a_process_is_killed(drawn, tmp_path, victim):
    with Job(tmp_path / "logs", training(tmp_path / "w", drawn, **LONG), count=2) as job:
        job.until("step 40/", victim)
        job.send(victim, signal.SIGKILL)
        begin = time.monotonic()
        codes = job.wait(seconds=AT_ONCE)
        assert codes[victim] == -signal.SIGKILL
        assert codes[1 - victim] not in (0, 1, preemption.EXIT_CODE)
        seconds = time.monotonic() - begin
        print(f"ended {seconds:.1f} s later with {codes[1 - victim]}")
        assert processes.AGAIN in job.output(1 - victim)
        # Process 0 is missed at once, and process 1 by jax after half its timeout at the earliest.
        if victim == 1 and seconds > processes.HEARTBEAT_SECONDS / 2 + 1:
            assert "process 1 has been silent for 9 s" in job.output(0)


DIFFERENT = """
import sys
from mlimages_jax import main
if "--process_id=1" in sys.argv:
    sys.argv += {arguments}
    {also}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "also", "told"),
    [
        (
            ["--config.seed=1", "--config.schedule.cosine.learning_rate=0.3"],
            "",
            [
                "--config.seed: 0 on process 0, 1 on process 1",
                "--config.schedule.cosine.learning_rate: 0.1 on process 0, 0.3 on process 1",
            ],
        ),
        (["--config.batch_size=32"], "", ["--config.batch_size: 16 on process 0, 32 on process 1"]),
        (["--workdir=/tmp/elsewhere"], "", ["--workdir: ", "'/tmp/elsewhere' on process 1"]),
        (
            [],
            "from mlimages_jax.distributed import agreement; agreement._code = lambda: 'older'",
            ["code of mlimages_jax: ", "'older' on process 1"],
        ),
        (
            [],
            "from mlimages_jax.data import fingerprint as f; "
            "f._digest = lambda values: 'other' if isinstance(values[1], list) else 'same'",
            ["data set (train): ", "'other' on process 1"],
        ),
    ],
    ids=["rate and seed", "batch size", "workdir", "code", "data"],
)
def test_processes_that_were_started_differently_all_end_and_name_the_values(
    drawn, tmp_path, arguments, also, told
):
    prefix = DIFFERENT.format(arguments=arguments, also=also or "pass")
    command = training(tmp_path / "w", drawn, **LONG)
    with Job(tmp_path / "logs", command, count=2, prefix=prefix) as job:
        assert job.wait() == [1, 1], job.output(0) + job.output(1)
        for number in (0, 1):
            for part in told:
                assert part in job.output(number)
    assert not (tmp_path / "w" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_second_training_of_two_processes_ends_on_both(drawn, tmp_path):
    command = training(tmp_path / "w", drawn, **LONG)
    with Job(tmp_path / "logs", command, count=2) as first:
        first.until("MB per device")
        with Job(tmp_path / "others", command, count=2) as second:
            assert second.wait() == [1, 1], second.output(0) + second.output(1)
            for number in (0, 1):
                assert "is in use by process" in second.output(number)
        assert first.processes[0].poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_an_error_of_one_process_ends_the_others_and_is_told(drawn, tmp_path, victim):
    breaks = f"""
import sys
from mlimages_jax.monitoring import training_log
whole = training_log.Progress.add
def add(self, step, *args, **kwargs):
    if step == 30 and "--process_id={victim}" in sys.argv:
        raise RuntimeError("the disk has gone")
    whole(self, step, *args, **kwargs)
training_log.Progress.add = add
"""
    arguments = training(tmp_path / "w", drawn, **{**LONG, "checkpoint.every": 5})
    with Job(tmp_path / "logs", arguments, count=2, prefix=breaks) as job:
        codes = job.wait(seconds=AT_ONCE + 60)
        assert codes[victim] == processes.CRASH_EXIT_CODE
        assert codes[1 - victim] == processes.LOST_EXIT_CODE
        assert "RuntimeError: the disk has gone" in job.output(victim)
        told = f"process {victim} failed with RuntimeError: the disk has gone"
        assert told in job.output(1 - victim)
    assert manager.latest_step(tmp_path / "w" / "checkpoints") >= 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_asked_to_end_all_save_the_same_step_and_go_on(drawn, tmp_path):
    changes = {**LONG, "total_steps": 60, "schedule.cosine.total_steps": 60, "evaluate_every": 9}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with Job(tmp_path / "logs", training(whole, drawn, **changes), count=2) as job:
        assert job.wait() == [0, 0]
    command = training(stopped, drawn, **changes)
    for text in ("classes, up to", "compiled the step", "step 10/", "step 45  val"):
        with Job(tmp_path / "logs", command, count=2) as job:
            job.until(text, 1)
            for _ in range(10):
                job.send(1, signal.SIGTERM)
            codes = job.wait()
            print(text, codes, manager.latest_step(stopped / "checkpoints"))
            assert codes == [preemption.EXIT_CODE] * 2, job.output(0)
    with Job(tmp_path / "logs", command, count=2) as job:
        assert job.wait() == [0, 0]
    _assert_equal(stopped, whole)
    assert (stopped / "per_class.tsv").exists()
    assert "val/mAP" in (stopped / "metrics.jsonl").read_text().splitlines()[-1]


BEST_FIRST = """
from mlimages_jax.training import best_checkpoint
whole = best_checkpoint.BestCheckpoint.record
def record(self, step, values):
    whole(self, step, values | {"val/mAP": 1 / step})
best_checkpoint.BestCheckpoint.record = record
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_restore_and_evaluate_the_best_step_at_the_end(drawn, tmp_path):
    changes = {"evaluate_every": 4, "checkpoint.best": "val/mAP", "sharding.name": "full",
               "sharding.min_size": 64}  # fmt: skip
    command = training(tmp_path / "w", drawn, **changes)
    for _ in range(2):  # again: a restart finds the run finished
        with Job(tmp_path / "logs", command, count=2, prefix=BEST_FIRST) as job:
            assert job.wait(seconds=300) == [0, 0], job.output(0) + job.output(1)
            for number in (0, 1):
                assert "evaluating the best checkpoint, step 4, which" in job.output(number)
        rows = map(json.loads, (tmp_path / "w" / "metrics.jsonl").read_text().splitlines())
        losses = {row["step"]: row["val/loss"] for row in rows if "val/loss" in row}
        values = json.loads((tmp_path / "w" / "metrics.json").read_text())
        assert values["loss"] == losses[4] != losses[8]
        (tmp_path / "w" / "metrics.json").unlink()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_goes_on_with_other_processes_and_devices(drawn, tmp_path):
    moved, alone = tmp_path / "moved", tmp_path / "alone"
    shapes_of_jobs = [(2, 4), (4, 2), (1, 1)]
    changes = {"checkpoint.every": 3, "evaluation.splits": ()}
    for number, (count, devices) in enumerate(shapes_of_jobs, 1):
        arguments = training(moved, drawn, total_steps=3 * number, **changes)
        with Job(tmp_path / "logs", arguments, count=count, devices=devices) as job:
            assert job.wait(seconds=200) == [0] * count, job.output(0)
    arguments = training(alone, drawn, total_steps=9, **changes)
    with Job(tmp_path / "logs", arguments, devices=8) as job:
        assert job.wait() == [0]
    ours, theirs = manager.load(moved), manager.load(alone)
    jax.tree.map(np.testing.assert_array_equal, ours["class_counts"], theirs["class_counts"])
    for name in ("params", "batch_stats"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3),
            ours[name], theirs[name],
        )  # fmt: skip


def _assert_equal(ours: Path, theirs: Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, manager.load(ours), manager.load(theirs))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_disk_that_is_full_for_one_process_ends_all(drawn, tmp_path, victim):
    """Each process writes its own parts of the state."""
    full = f"""
import resource, sys
if "--process_id={victim}" in sys.argv:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
"""
    changes = {**LONG, "checkpoint.every": 10, "sharding.name": "full", "sharding.min_size": 64}
    arguments = training(tmp_path / "w", drawn, **changes)
    with Job(tmp_path / "logs", arguments, count=2, prefix=full) as job:
        codes = job.wait(seconds=AT_ONCE + 60)
        assert 0 not in codes
        assert preemption.EXIT_CODE not in codes
        outputs = job.output(0) + job.output(1)
    assert "could not be written to" in outputs
    assert manager.latest_step(tmp_path / "w" / "checkpoints") is None
