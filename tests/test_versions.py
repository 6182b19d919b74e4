# SPDX-License-Identifier: BSD-3-Clause
"""The supported versions are named in pyproject.toml, and everything else agrees with it."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if ":: Python :: 3." in text]
# Answers as an interpreter, writes down what it is asked to do, and fails where FAILS says so.
PYTHON = """\
#!/usr/bin/env bash
if [ -n "${FAILS:-}" ] && [[ "$*" = *"$FAILS"* ]]; then echo "no wheel"; exit 1; fi
case "$1 $2" in
    "-m venv") mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-c import sys; print(sys.version_info.minor)") echo OWN ;;
    "-c import jax"*) echo 0.12 ;;
    "-c "*) ;;
    *) echo "$PWD/${0#"$PWD/"} $*" >> "$CALLS" ;;
esac
"""


def test_the_oldest_python_is_the_one_required():
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert [int(version.partition(".")[2]) for version in PYTHONS] == [11, 12, 13]


def test_the_workflow_tests_every_python():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert jobs["versions"]["strategy"]["matrix"]["python"] == PYTHONS


@pytest.mark.parametrize("path", ["launch/gke/Dockerfile", "launch/serve/Dockerfile"])
def test_images_have_the_newest_python(path):
    assert re.findall(r"^FROM python:(\S+)-slim", (ROOT / path).read_text(), re.M) == [PYTHONS[-1]]


def test_tpu_hosts_have_the_newest_python():
    script = (ROOT / "launch/tpu_vm.sh").read_text()
    assert re.findall(r"--python (\S+)", script) == [PYTHONS[-1]]


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_are_what_the_project_asks_for(python):
    pins = _pins(python)
    for text in PROJECT["dependencies"]:
        wanted = Requirement(text)
        pin = pins[re.sub(r"[-_.]+", "-", wanted.name).lower()]
        assert wanted.specifier.contains(pin), f"Python {python}: {text} is pinned to {pin}"
    assert pins["jax"] == pins["jaxlib"]


def _pins(python: str) -> dict[str, str]:
    """Versions by package that pip installs from both lists; fails where a package has two."""
    found: dict[str, str] = {}
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if not line or line.startswith(("#", "-r")):
                continue
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pin.name not in found, f"{pin.name} has two versions for Python {python}"
                found[pin.name] = str(pin.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize(
    ("own", "here", "tested", "lines"),
    [
        (11, [12, 13], [13], ["3.12: skipped, an older and a newer one are here", "3.13 with jax"]),
        (11, [13], [13], ["3.12: skipped, it is not on this machine", "3.13 with jax 0.12"]),
        (11, [], [], ["3.13: skipped, it is not on this machine", "3.11: tested by .ci/run"]),
        (12, [11, 13], [11, 13], ["3.11 with jax", "3.12: tested by .ci/run"]),
        (14, [11, 12], [11, 12], ["3.13: skipped, it is not on this machine"]),
    ],
)
def test_ci_takes_the_oldest_and_the_newest_here(tmp_path, own, here, tested, lines):
    done, calls = _other_pythons(tmp_path, own, here)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert f"Python {line}" in done.stdout
    suites = [line for line in calls if " -m pytest" in line]
    assert [int(re.search(r"ci-venv-3\.(\d+)/", line)[1]) for line in suites] == tested
    for line in suites:
        rooms = re.findall(r"tests/\S+", line)
        assert rooms and all((ROOT / room).exists() for room in rooms)


def test_ci_runs_all_tests_or_none_where_the_environment_says_so(tmp_path):
    done, calls = _other_pythons(tmp_path, 11, [13], OTHER_PYTHONS="all")
    assert done.returncode == 0 and calls[-1].endswith(" -m pytest")
    done, calls = _other_pythons(tmp_path, 11, [13], OTHER_PYTHONS="none")
    assert done.returncode == 0 and not calls
    done, calls = _other_pythons(tmp_path, 11, [13], OTHER_PYTHONS="every")
    assert done.returncode == 2 and "give rooms, all or none" in done.stderr


def test_a_failing_test_fails_ci(tmp_path):
    done, calls = _other_pythons(tmp_path, 12, [11, 13], FAILS="-m pytest")
    assert done.returncode == 1
    assert any("--requirement requirements-dev.txt" in line for line in calls)


@pytest.mark.parametrize("fails", ["-m venv", "pip install --quiet uv", "requirements-dev.txt"])
def test_libraries_that_cannot_be_installed_are_told_and_skipped(tmp_path, fails):
    done, calls = _other_pythons(tmp_path, 11, [13], FAILS=fails)
    assert done.returncode == 0
    assert "Python 3.13: skipped, its libraries cannot be installed:\nno wheel\n" in done.stdout
    assert not any("-m pytest" in line for line in calls)


def test_our_own_installation_has_to_work(tmp_path):
    done, calls = _other_pythons(tmp_path, 11, [13], FAILS="--editable .")
    assert done.returncode == 1 and not any("-m pytest" in line for line in calls)


def _other_pythons(folder: Path, own: int, here: list[int], **settings: str):
    """Runs the script on a machine with these interpreters; returns its end and the calls."""
    shutil.rmtree(folder / "own", ignore_errors=True)
    for name in (".ci", "own"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copy(ROOT / ".ci/other_pythons", folder / ".ci")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for tool in ("bash", "cp", "dirname", "mkdir", "sed"):  # and no interpreters of this machine
        (folder / "own" / tool).symlink_to(shutil.which(tool))
    calls = folder / "calls"
    calls.write_text("")
    for place in ("own/python3", *(f"pyenv/versions/3.{minor}.1/bin/python" for minor in here)):
        python = folder / place
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(PYTHON.replace("OWN", str(own)))
        python.chmod(0o755)
    done = subprocess.run(
        [folder / ".ci/other_pythons"], capture_output=True, text=True, timeout=60,
        env={"PATH": f"{folder}/own", "PYENV_ROOT": f"{folder}/pyenv",
             "HOME": str(folder), "CALLS": str(calls), **settings},
    )  # fmt: skip
    return done, calls.read_text().splitlines()
