# SPDX-License-Identifier: BSD-3-Clause
import os
import re
import shlex
import signal
import subprocess

import pytest

from tests.launch.stand_ins import LAUNCH, ODD, StandIns, checkout

# Two tasks, one after the other; the largest exit code, as srun has it.
SRUN = """
while case $1 in -*) true;; *) false;; esac; do shift; done
worst=0
for number in 0 1; do
    SLURM_PROCID=$number "$@" || { code=$?; if [ $code -gt $worst ]; then worst=$code; fi; }
done
exit $worst
"""
PROGRAM = 'read -r -a codes < "$F/codes"; exit "${codes[SLURM_PROCID]}"'


@pytest.fixture
def stand_ins(tmp_path):
    made = StandIns(tmp_path / "stand_ins")
    made.add("srun", SRUN)
    made.add("scontrol", "")
    return made


@pytest.fixture
def code(tmp_path, stand_ins):
    return checkout(tmp_path / "code", stand_ins, PROGRAM)


def slurm(stand_ins, code, *arguments, **environment):
    return stand_ins.run(
        str(code / "launch/slurm.sh"), *arguments, cwd=code, SLURM_JOB_ID="17",
        SLURM_CPUS_PER_TASK="12", **environment,
    )  # fmt: skip


def test_dry_run_prints_the_command_and_runs_nothing(stand_ins, code):
    result = slurm(stand_ins, code, "--dry-run", *ODD[:2])
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "srun --kill-on-bad-exit=0 --wait=150 --label --cpus-per-task=12 bash -c "
        """'trap : TERM; code=0; "$@" || code=$?; [[ $code != 1 ]] || code=250; exit $code' """
        "task .venv/bin/python -m mlimages_jax.main --config=configs/finetune.py:224to299 "
        "'--config.resize=((20000, 299, 128),)'\n"
    )
    assert not stand_ins.calls("srun")


def test_arguments_reach_the_tasks_unchanged(stand_ins, code):
    stand_ins.write("codes", "0 0")
    assert slurm(stand_ins, code, *ODD).returncode == 0
    assert stand_ins.calls("python") == [["-m", "mlimages_jax.main", *ODD]] * 2
    dry = slurm(stand_ins, code, "--dry-run", *ODD).stdout
    assert ["srun", *stand_ins.calls("srun")[0]] == shlex.split(dry)


@pytest.mark.parametrize(
    ("codes", "restarts", "ends_with", "requeued"),
    [
        ("0 0", 0, 0, False),
        ("75 75", 0, 0, True),
        ("75 75", 99, 0, True),
        ("1 76", 0, 1, False),
        ("134 1", 0, 1, False),
        ("137 76", 19, 0, True),
        ("137 76", 20, 137, False),
    ],
)
def test_requeues_by_exit_code(stand_ins, code, codes, restarts, ends_with, requeued):
    stand_ins.write("codes", codes)
    result = slurm(stand_ins, code, *ODD, SLURM_RESTART_COUNT=str(restarts))
    assert result.returncode == ends_with, result.stderr
    assert stand_ins.calls("scontrol") == ([["requeue", "17"]] if requeued else [])


def test_a_task_waits_for_its_program_when_both_get_sigterm(stand_ins, code):
    line = shlex.split(slurm(stand_ins, code, "--dry-run", "--config=c.py").stdout)
    task = line[line.index("bash") : line.index("task") + 1]
    program = "trap 'sleep 0.2; exit 75' TERM; echo up; while true; do sleep 0.05; done"
    process = subprocess.Popen(
        [*task, "bash", "-c", program], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout.readline() == b"up\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 75
    finally:
        process.stdout.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_options_of_the_job():
    text = (LAUNCH / "slurm.sh").read_text()
    options = re.findall(r"^#SBATCH (--[^\n]+)$", text, re.MULTILINE)
    assert {"--requeue", "--signal=TERM@300", "--open-mode=append"} <= set(options)
    values = dict(option.split("=", 1) for option in options if "=" in option)
    # One task a card, and no --gpus-per-task: jax picks a task's card among all of the node.
    assert values["--gres"] == f"gpu:{values['--ntasks-per-node']}"
    assert not any("gpus-per-task" in option for option in options)


@pytest.mark.parametrize(
    ("arguments", "folder", "message"),
    [([], "code", "usage: sbatch"), (["--config=c.py"], ".", "error: no launch/xla_flags.sh in")],
)
def test_a_wrong_start_is_told_in_words(stand_ins, code, arguments, folder, message):
    result = stand_ins.run(str(LAUNCH / "slurm.sh"), *arguments, cwd=code.parent / folder)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
