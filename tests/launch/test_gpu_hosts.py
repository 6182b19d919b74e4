# SPDX-License-Identifier: BSD-3-Clause
import os
import shlex
import signal
import subprocess
import time

import pytest

from tests.launch.stand_ins import LAUNCH, NEXT_LINE, ODD, StandIns, checkout

# Runs the command as sshd does, by a shell that is not bash, and keeps hosts apart by their TMPDIR.
SSH = """
for host; do command=$host; done
host=${@: -2:1}
mkdir -p "$F/$host"
export TMPDIR="$F/$host"
exec sh -c "$command"
"""
# Process number i ends as line n of the file codes-i says, at its n-th start.
PROGRAM = (
    NEXT_LINE
    + """
number=0
for word; do case $word in --process_id=*) number=${word#*=};; esac; done
code=$(next_line "$F/codes-$number")
run() { until [ -e "$F/over" ]; do sleep 0.05; done; }
case $code in
    until-TERM) trap 'exit 75' TERM; touch "$F/up-$number"; run ;;
    deaf) trap '' TERM; run & echo $! > "$F/reader"; run ;;
    KILL) kill -KILL $$ ;;
    *) exit "$code" ;;
esac
"""
)


@pytest.fixture
def stand_ins(tmp_path):
    made = StandIns(tmp_path / "stand_ins")
    made.add("ssh", SSH)
    yield made
    made.write("over")  # whatever a failed test left behind ends


@pytest.fixture
def code(tmp_path, stand_ins):
    """A checkout in a folder whose name has to be quoted."""
    return checkout(tmp_path / "the code", stand_ins, PROGRAM)


def gpu(stand_ins, code, *options):
    return stand_ins.run(str(code / "launch/gpu.sh"), *options, "--", *ODD, cwd=code)


def started(stand_ins):
    """Arguments of the program after those that all have."""
    calls = stand_ins.calls("python")
    assert all(call[:5] == ["-m", "mlimages_jax.main", *ODD] for call in calls)
    return [call[5:] for call in calls]


def cluster(count, *, first="a:8476"):
    return [
        [f"--coordinator_address={first}", f"--num_processes={count}", f"--process_id={number}"]
        for number in range(count)
    ]


def test_dry_run_prints_the_commands_and_runs_none(stand_ins):
    result = stand_ins.run(
        str(LAUNCH / "gpu.sh"), "--hosts=me@a,b", "--directory=/my code", "--port=9000",
        "--dry-run", "--", "--config=c.py", "--config.resize=((20000, 299, 128),)",
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    ssh = "ssh -n -o BatchMode=yes -o ServerAliveInterval=30"
    program = (
        r"""'exec '\''/my code/launch/gpu_host.sh'\'' run --config=c.py """
        r"""'\''--config.resize=((20000, 299, 128),)'\'' """
    )
    assert result.stdout == (
        f"{ssh} me@a {program}--coordinator_address=a:9000 --num_processes=2 --process_id=0'\n"
        f"{ssh} b {program}--coordinator_address=a:9000 --num_processes=2 --process_id=1'\n"
    )
    assert not stand_ins.calls("ssh")


def test_one_host_needs_neither_ssh_nor_a_coordinator(stand_ins, code):
    stand_ins.write("codes-0", "0")
    result = gpu(stand_ins, code)
    assert result.returncode == 0, result.stderr
    assert started(stand_ins) == [[]]
    assert not stand_ins.calls("ssh")


def test_arguments_reach_every_host_unchanged(stand_ins, code):
    for number in range(3):
        stand_ins.write(f"codes-{number}", "0")
    result = gpu(stand_ins, code, "--hosts=me@a,b,c")
    assert result.returncode == 0, result.stderr
    assert sorted(started(stand_ins)) == cluster(3)
    dry = gpu(stand_ins, code, "--hosts=me@a,b,c", "--dry-run").stdout
    run = sorted(["ssh", *call] for call in stand_ins.calls("ssh"))
    assert run == sorted(shlex.split(line) for line in dry.splitlines())


@pytest.mark.parametrize(
    ("codes", "options", "ends_with", "starts"),
    [
        ([["75", "0"], ["75", "0"]], [], 0, 2),
        ([["0"], ["1"]], [], 1, 1),
        ([["76"], ["1"]], [], 1, 1),
        ([["KILL", "0"], ["76", "0"]], [], 0, 2),
        ([["139"], ["76"]], ["--max-restarts=2"], 1, 3),
        ([["75", "75", "75", "0"], ["75", "75", "75", "0"]], ["--max-restarts=0"], 0, 4),
    ],
    ids=["saved", "for a person", "for a person, lost", "killed", "crashes", "many saves"],
)
def test_restarts_by_exit_code(stand_ins, code, codes, options, ends_with, starts):
    for number, lines in enumerate(codes):
        stand_ins.write(f"codes-{number}", *lines)
    result = gpu(stand_ins, code, "--hosts=a,b", *options)
    assert result.returncode == ends_with, result.stderr
    assert len(started(stand_ins)) == 2 * starts


def test_a_host_that_does_not_end_is_stopped_before_the_restart(stand_ins, code):
    stand_ins.write("codes-0", "until-TERM", "0")
    stand_ins.write("codes-1", "137", "0")
    result = gpu(stand_ins, code, "--hosts=a,b", "--grace=0")
    assert result.returncode == 0, result.stderr
    assert "crashed: exit codes 75 137 of a b" in result.stderr
    assert len(started(stand_ins)) == 4


@pytest.mark.slow
def test_a_program_that_does_not_hear_is_killed_with_its_readers(stand_ins, code):
    stand_ins.write("codes-0", "deaf", "0")
    stand_ins.write("codes-1", "137", "0")
    result = gpu(stand_ins, code, "--hosts=a,b", "--grace=1")
    assert result.returncode == 0, result.stderr
    assert "crashed: exit codes 137 137 of a b" in result.stderr
    assert not _runs(int((stand_ins.folder / "reader").read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_saves_a_checkpoint_on_all_hosts(stand_ins, code, number):
    for process in range(2):
        stand_ins.write(f"codes-{process}", "until-TERM")
    script = subprocess.Popen(
        [code / "launch/gpu.sh", "--hosts=a,b", "--", *ODD], cwd=code,
        env=stand_ins.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        _wait_for(lambda: all((stand_ins.folder / f"up-{p}").exists() for p in range(2)))
        script.send_signal(number)
        errors = script.communicate(timeout=30)[1].decode()
    finally:
        script.kill()
        script.wait()
    assert script.returncode == 75, errors
    assert "saved: exit codes 75 75 of a b" in errors


def test_a_leftover_of_a_broken_connection_is_ended_first(stand_ins, code):
    stand_ins.write("codes-0", "until-TERM", "0")
    leftover = subprocess.Popen(
        [code / "launch/gpu_host.sh", "run", *ODD], env=stand_ins.environment()
    )
    try:
        _wait_for((stand_ins.folder / "up-0").exists)
        script = subprocess.Popen(
            [code / "launch/gpu.sh", "--", *ODD], cwd=code, env=stand_ins.environment()
        )
        assert leftover.wait(timeout=30) == 75  # and is reaped, which the script waits for
        assert script.wait(timeout=30) == 0
    finally:
        leftover.kill()
        leftover.wait()
    assert len(started(stand_ins)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hosts=a,b"], "gpu.sh needs -- --config=... --workdir=..."),
        (["--hosts", "a", "--", "--config=c.py"], "unknown option '--hosts'"),
        (["--config=c.py"], "unknown option '--config=c.py'; write options as --name=VALUE"),
    ],
)
def test_a_wrong_command_line_is_told_in_words(stand_ins, options, message):
    result = stand_ins.run(str(LAUNCH / "gpu.sh"), *options)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {message}")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = ["ps", "-o", "stat=", "-p", str(process)]
    return "Z" not in subprocess.run(state, capture_output=True, text=True, check=False).stdout


def _wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come up within 30 s")
