# SPDX-License-Identifier: BSD-3-Clause
"""The command lines that trained in a workdir, one JSON object a line, for those who share it."""

import json
import shlex
import sys
from pathlib import Path

from etils import epath

from mlimages_jax.files.remote import append_line, read_json_lines

COMMANDS_FILE = "commands.jsonl"
_PROGRAMS = {
    "bin/mlimages": "mlimages",
    "mlimages_jax/__main__.py": "python -m mlimages_jax",
    "mlimages_jax/main.py": "python -m mlimages_jax.main",
}


def record(workdir: epath.Path) -> None:
    """Adds the command line of this process, unless it is the last one that was added.

    A program that calls `train` itself has a command line that says nothing, which is not added.
    """
    program = _PROGRAMS.get("/".join(Path(sys.argv[0]).parts[-2:]))
    if program is None:
        return
    command = f"{program} {shlex.join(sys.argv[1:])}"
    before = [row.get("command") for row in read_json_lines(workdir / COMMANDS_FILE)]
    if before[-1:] != [command]:
        append_line(workdir / COMMANDS_FILE, json.dumps({"command": command}))
