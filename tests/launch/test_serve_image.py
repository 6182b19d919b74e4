# SPDX-License-Identifier: BSD-3-Clause
"""The Dockerfile of the server: nothing is root's, and its command and options exist."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mlimages_jax import command_line
from mlimages_jax.cli import front

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "launch/serve"


@pytest.mark.parametrize("image", ["serve", "gke"])
def test_hadolint_has_nothing_to_say(image):
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hadolint = shutil.which("hadolint", path=places)
    assert hadolint, "hadolint is absent: pip install -r requirements-dev.txt"
    ignored = ["DL3008", "DL3059"]  # Debian keeps no old versions; layers are apart on purpose
    words = [f"--ignore={rule}" for rule in ignored]
    result = subprocess.run(
        [hadolint, *words, ROOT / "launch" / image / "Dockerfile"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


def test_the_image_is_built_from_what_exists_and_does_not_run_as_root():
    dockerfile = (FOLDER / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert re.search(r'--editable "\.\[(\w+)\]"', dockerfile)[1] in extras
    for sources in re.findall(r"^COPY (.+) \./?$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
    users = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert len(users) == 1 and int(users[0]) > 0  # by number: Kubernetes can check that it is not 0
    assert dockerfile.index("USER") > dockerfile.rindex("RUN ")
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert {".git", "data", "workdirs"} <= {*ignored}


def test_the_command_of_the_image_is_one():
    dockerfile = (FOLDER / "Dockerfile").read_text()
    program, command, *options = json.loads(
        re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[1]
    )
    assert program == front.PROGRAM and command in front.COMMANDS.commands
    parameters = command_line.load(front.COMMANDS.commands[command]).__kwdefaults__
    for option in options:
        assert option.removeprefix("--").partition("=")[0].replace("-", "_") in parameters
    port = re.search(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)[1]
    assert int(port) == parameters["port"] and f":{port}/healthz" in dockerfile
