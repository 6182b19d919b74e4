# SPDX-License-Identifier: BSD-3-Clause
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.job import inherited_environment
from tests.launch.stand_ins import LAUNCH, ROOT, StandIns

SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), *sorted((ROOT / ".ci").iterdir())]
GUIDE = ROOT / "docs/launch.md"


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_shellcheck_has_nothing_to_say(script):
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=places)
    assert shellcheck, "shellcheck is absent: pip install -r requirements-dev.txt"
    command = [shellcheck, "--external-sources", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_scripts_stop_at_errors_and_can_be_run():
    for script in SCRIPTS:
        sourced = script.name in ("xla_flags.sh", "quoting.sh")
        assert ("set -euo pipefail" in script.read_text()) is not sourced, script
        assert os.access(script, os.X_OK) is not sourced, script


@pytest.mark.parametrize("platform", ["tpu", "gpu", "cpu"])
def test_your_own_flags_come_last_and_win(tmp_path, platform):
    names = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    script = f"set -euo pipefail; source launch/xla_flags.sh {platform}; env"
    stand_ins = StandIns(tmp_path)
    plain = stand_ins.run("bash", "-c", script).stdout
    own = stand_ins.run("bash", "-c", script, **dict.fromkeys(names, "--mine")).stdout
    for name in names:
        for value in re.findall(rf"^{name}=(.*)$", plain, re.MULTILINE):
            assert value.strip() and "--mine" not in value
        assert re.search(rf"^{name}=(.* )?--mine$", own, re.MULTILINE)


def test_an_unknown_platform_is_told_in_words(tmp_path):
    result = StandIns(tmp_path).run("bash", "-c", "source launch/xla_flags.sh cuda")
    assert result.returncode == 2
    assert "tpu, gpu or cpu, not 'cuda'" in result.stderr


def _starts_with(flags: str) -> bool:
    """Whether jax knows these flags of XLA: it ends the program at an unknown one."""
    result = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=inherited_environment() | {"XLA_FLAGS": flags},
        capture_output=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0 or b"Unknown flag" in result.stderr
    return result.returncode == 0


@pytest.mark.slow
def test_flags_of_gpus_exist_in_this_jax(tmp_path):
    script = 'source launch/xla_flags.sh gpu; echo "$XLA_FLAGS"'
    flags = StandIns(tmp_path).run("bash", "-c", script).stdout.strip()
    assert "--xla_gpu_" in flags
    assert _starts_with(flags)
    assert not _starts_with(f"{flags} --xla_gpu_no_such_flag=true")


def _commands() -> list[str]:
    """Commands of the guide that start a script, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", GUIDE.read_text())
    return re.findall(r"^    (?:sbatch \S+ )?(launch/\w+\.sh .+)$", text, re.MULTILINE)


def test_commands_of_the_guide_are_understood(tmp_path):
    commands = _commands()
    assert {Path(line.split()[0]).name for line in commands} == {"tpu_vm.sh", "slurm.sh", "gpu.sh"}
    assert {line.split()[1] for line in commands if "tpu_vm.sh" in line} == {
        "create", "setup", "run", "tail", "status", "restart-watch", "stop", "delete",
    }  # fmt: skip
    stand_ins = StandIns(tmp_path)
    for line in commands:
        script, *words = shlex.split(line)
        place = 1 if script.endswith("tpu_vm.sh") else 0
        result = stand_ins.run(script, *words[:place], "--dry-run", *words[place:])
        assert result.returncode == 0, (line, result.stderr)
        assert result.stdout
