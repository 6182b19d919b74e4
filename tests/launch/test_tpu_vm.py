# SPDX-License-Identifier: BSD-3-Clause
import configparser
import shlex

import pytest

from tests.launch.stand_ins import LAUNCH, NEXT_LINE, ODD, StandIns, checkout

WHERE = ["--name=pre", "--zone=us-west4-a"]
MACHINES = ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"]
QUEUED = "gcloud compute tpus queued-resources"
SHOW = (
    "'--command=systemctl show mlimages@$USER.service "
    "--property=LoadState,ActiveState,ExecMainStatus,NRestarts "
    "| tr '\\''\\n'\\'' '\\'' '\\''; echo'"
)
SETUP = r"""'--command=set -eu
cd "$HOME"
[ -d mlimages_jax ] || git clone --quiet https://example.org/code.git mlimages_jax
cd mlimages_jax
git fetch --quiet https://example.org/code.git main
git checkout --quiet --detach FETCH_HEAD
export PATH="$HOME/.local/bin:$PATH"
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
sudo apt-get install --yes --quiet gcc libjpeg-dev >/dev/null || echo "no libjpeg-dev: images will be fully decoded, which is slower" >&2
uv venv --quiet --allow-existing --python 3.13 .venv
uv pip install --quiet --requirement requirements.txt --editable '\''.[tpu]'\'' '\''etils[epath-gcs]'\'''"""  # noqa: E501
RUN = r"""'--command=set -eu
cd "$HOME"
cat > mlimages_run.sh <<'\''END_OF_RUN'\''
set -eu
cd "$HOME/mlimages_jax"
source launch/xla_flags.sh tpu
exec .venv/bin/python -m mlimages_jax.main --config=c.py '\''--config.resize=((20000, 299, 128),)'\''
END_OF_RUN
sudo cp mlimages_jax/launch/mlimages@.service /etc/systemd/system/
sudo systemctl daemon-reload
sudo systemctl reset-failed mlimages@$USER.service || true
sudo systemctl enable --quiet mlimages@$USER.service
sudo systemctl restart mlimages@$USER.service'"""  # noqa: E501
ON_ALL = f"{QUEUED} ssh pre --zone=us-west4-a --node=all --worker=all"
EXPECTED = {
    "create": (
        MACHINES,
        f"{QUEUED} create pre --zone=us-west4-a --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --node-id=pre",
    ),
    "create spot slices": (
        [*MACHINES, "--slices=2", "--spot", "--project=p", "--create-option=--labels=a=b"],
        f"{QUEUED} create pre --zone=us-west4-a --project=p --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --node-count=2 --node-prefix=pre --spot "
        "--labels=a=b",
    ),
    "setup": (["--repository=https://example.org/code.git"], f"{ON_ALL} {SETUP}"),
    "run": (["--", "--config=c.py", "--config.resize=((20000, 299, 128),)"], f"{ON_ALL} {RUN}"),
    "tail": (
        ["--node=1", "--worker=3", "--ssh-option=--tunnel-through-iap"],
        f"{QUEUED} ssh pre --zone=us-west4-a --node=1 --worker=3 --tunnel-through-iap "
        "'--command=sudo journalctl --unit=mlimages@$USER.service --output=cat --lines=100 "
        "--follow'",
    ),
    "status": (
        [],
        f"{QUEUED} describe pre --zone=us-west4-a '--format=value(state.state)'\n{ON_ALL} {SHOW}",
    ),
    "stop": (
        [], f"{ON_ALL} '--command=sudo systemctl disable --quiet --now mlimages@$USER.service'",
    ),
    "delete": ([], f"{QUEUED} delete pre --zone=us-west4-a --force --quiet"),
}  # fmt: skip


@pytest.fixture
def stand_ins(tmp_path):
    return StandIns(tmp_path / "stand_ins")


def tpu_vm(stand_ins, *arguments):
    return stand_ins.run(str(LAUNCH / "tpu_vm.sh"), *arguments)


@pytest.mark.parametrize("case", EXPECTED)
def test_dry_run_prints_the_commands_and_runs_none(stand_ins, case):
    options, expected = EXPECTED[case]
    result = tpu_vm(stand_ins, case.split()[0], *WHERE, "--dry-run", *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.rstrip("\n") == expected
    assert not stand_ins.calls("gcloud")


@pytest.mark.parametrize("case", EXPECTED)
def test_what_is_run_is_what_the_dry_run_prints(stand_ins, case):
    options, expected = EXPECTED[case]
    stand_ins.add("gcloud", "")
    result = tpu_vm(stand_ins, case.split()[0], *WHERE, *options)
    assert result.returncode == 0, result.stderr
    run = [["gcloud", *call] for call in stand_ins.calls("gcloud")]
    assert [word for call in run for word in call] == shlex.split(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command given"),
        (["strat", *WHERE], "unknown command 'strat'"),
        (["create", "--name=pre", *MACHINES], "create needs --zone="),
        (["create", *WHERE, MACHINES[0]], "create needs --runtime-version="),
        (["setup", *WHERE], "setup needs --repository="),
        (["run", *WHERE, "--"], "run needs -- --config=... --workdir=..."),
        (["restart-watch", *WHERE, *MACHINES, "--repository=r"], "restart-watch needs -- --config"),
        (["status", "--name", "pre"], "unknown option '--name'; write options as --name=VALUE"),
    ],
)
def test_a_wrong_command_line_is_told_in_words(stand_ins, arguments, message):
    result = tpu_vm(stand_ins, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {message}")
    assert "usage: launch/tpu_vm.sh" in result.stderr
    assert not stand_ins.calls("gcloud")


def hosts(stand_ins):
    """gcloud runs the command as ssh does, on one host, where systemd starts what was installed."""
    stand_ins.add("gcloud", 'for last; do :; done; cd "$HOME"; sh -c "${last#--command=}"')
    stand_ins.add("sudo", 'if [ "$1 $2" = "systemctl restart" ]; then bash mlimages_run.sh; fi')


def test_arguments_reach_the_program_unchanged(stand_ins):
    hosts(stand_ins)
    checkout(stand_ins.folder / "mlimages_jax", stand_ins, 'echo "$LIBTPU_INIT_ARGS"')
    result = tpu_vm(stand_ins, "run", *WHERE, "--", *ODD)
    assert result.returncode == 0, result.stderr
    assert stand_ins.calls("python") == [["-m", "mlimages_jax.main", *ODD]]
    assert "--xla_tpu" in result.stdout  # the flags of the platform were read
    assert stand_ins.calls("sudo")[0] == [
        "cp", "mlimages_jax/launch/mlimages@.service", "/etc/systemd/system/",
    ]  # fmt: skip
    assert stand_ins.calls("sudo")[-1] == ["systemctl", "restart", "mlimages@someone.service"]


def test_setup_clones_once_and_installs_what_was_tested(stand_ins):
    hosts(stand_ins)
    stand_ins.add("git", 'if [ "$1" = clone ]; then mkdir mlimages_jax; fi')
    stand_ins.add("uv", 'echo "in $PWD"')
    for _ in range(2):
        result = tpu_vm(stand_ins, "setup", *WHERE, "--repository=R", "--revision=v1")
        assert result.returncode == 0, result.stderr
    verbs = [call[0] for call in stand_ins.calls("git")]
    assert verbs == ["clone", "fetch", "checkout", "fetch", "checkout"]
    assert stand_ins.calls("git")[1] == ["fetch", "--quiet", "R", "v1"]
    assert "requirements.txt" in stand_ins.calls("uv")[1]
    assert result.stdout.splitlines() == [f"in {stand_ins.folder}/mlimages_jax"] * 2


def test_a_failing_host_fails_the_command(stand_ins):
    hosts(stand_ins)
    stand_ins.add("git", "exit 128")
    assert tpu_vm(stand_ins, "setup", *WHERE, "--repository=R").returncode == 128


NEW = "LoadState=not-found ActiveState=inactive ExecMainStatus=0 NRestarts=0"
RUNNING = "LoadState=loaded ActiveState=active ExecMainStatus=0 NRestarts=1"
AGAIN = "LoadState=loaded ActiveState=activating ExecMainStatus=76 NRestarts=1"
DONE = "LoadState=loaded ActiveState=inactive ExecMainStatus=0 NRestarts=1"
STOPPED = "LoadState=loaded ActiveState=inactive ExecMainStatus=75 NRestarts=0"
FAILED = "LoadState=loaded ActiveState=failed ExecMainStatus=1 NRestarts=0"
CLOUD = (
    NEXT_LINE
    + """
case "$4 $*" in
    describe*)
        state=$(next_line "$F/states")
        case $state in
            NONE) echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1 ;;
            BROKEN) echo "ERROR: no network" >&2; exit 1 ;;
            *) echo "$state" ;;
        esac ;;
    create*) exit "$(next_line "$F/creates")" ;;
    ssh*show*)
        states=$(next_line "$F/hosts")
        printf '%s\\n' "${states//;/$'\\n'}"
        [ "$states" != "" ] ;;
esac
"""
)


def watch(stand_ins, *, states, hosts, creates=("0",)):
    stand_ins.add("gcloud", CLOUD)
    stand_ins.write("states", *states)
    stand_ins.write("hosts", *hosts)
    stand_ins.write("creates", *creates)
    result = tpu_vm(
        stand_ins, "restart-watch", *WHERE, *MACHINES, "--spot", "--repository=R", "--poll=0",
        "--", "--config=c.py",
    )  # fmt: skip
    done = []
    for call in stand_ins.calls("gcloud"):
        words = " ".join(call)
        done.append(
            next(
                (name for name, sign in [("show", "systemctl show"), ("setup", "uv pip"),
                                         ("run", "systemctl restart"), ("stop", "disable")]
                 if sign in words), call[3],
            )
        )  # fmt: skip
    return result, [name for name in done if name != "describe"]


def test_a_preempted_training_is_started_on_new_machines(stand_ins):
    result, done = watch(
        stand_ins,
        states=[
            "NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "ACTIVE", "ACTIVE",
            "SUSPENDING", "SUSPENDED", "NONE", "WAITING_FOR_RESOURCES", "ACTIVE",
        ],
        hosts=[
            f"{NEW};{NEW}", f"{RUNNING};{AGAIN}", RUNNING,
            f"{NEW};{NEW}", RUNNING, f"{DONE};{RUNNING}", f"{DONE};{DONE}",
        ],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert done == [
        "create", "show", "setup", "run", "show", "show",
        "delete", "create", "show", "setup", "run", "show", "show", "show",
    ]  # fmt: skip
    assert "the training is done" in result.stderr


def test_an_error_for_a_person_ends_the_watch_and_stops_the_other_hosts(stand_ins):
    result, done = watch(stand_ins, states=["ACTIVE"], hosts=[RUNNING, f"{FAILED};{AGAIN}"])
    assert result.returncode == 1
    assert done == ["show", "show", "stop"]
    assert "a restart does not fix" in result.stderr


def test_a_training_stopped_by_hand_is_left_alone(stand_ins):
    result, done = watch(stand_ins, states=["ACTIVE"], hosts=[f"{STOPPED};{STOPPED}"])
    assert (result.returncode, done) == (0, ["show"])
    assert "stopped by the user" in result.stderr


def test_the_watch_outlives_failures_of_gcloud(stand_ins):
    result, done = watch(
        stand_ins, states=["BROKEN", "NONE", "NONE", "ACTIVE"], hosts=["", DONE], creates=["1", "0"]
    )
    assert result.returncode == 0, result.stderr
    assert done == ["create", "create", "show", "show"]
    assert "no network" in result.stderr and "create failed" in result.stderr


def test_the_unit_restarts_by_exit_code():
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str
    unit.read(LAUNCH / "mlimages@.service")
    service = unit["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "1"
    assert service["RestartForceExitStatus"] == service["SuccessExitStatus"] == "75"
    assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
    assert service["User"] == "%i" and service["WorkingDirectory"] == "~"
