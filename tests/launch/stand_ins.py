# SPDX-License-Identifier: BSD-3-Clause
"""Stand-ins for gcloud, ssh, srun and the like: they note arguments, and do as a test says."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
# Arguments that a shell would change if they were not quoted.
ODD = [
    "--config=configs/finetune.py:224to299",
    "--config.resize=((20000, 299, 128),)",
    '--x=it\'s $HOME * "q"',
]
# What the scripts must never reach from a test.
_OUTSIDE = ("gcloud", "ssh", "sudo", "systemctl", "git", "curl", "uv", "srun", "scontrol")
# One printf without a newline is one write: notes of processes side by side do not mix.
_NOTE = """#!/usr/bin/env bash
printf '%s\\0' "$(basename "$0")" "$@" $'\\036' >> "{calls}"
"""


class StandIns:
    """Commands in a folder of their own, first in PATH.

    Args:
        folder: for the commands, their notes, and what they keep.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        self._calls = folder / "calls"
        for name in _OUTSIDE:
            self.add(name, f'echo "{name} is not part of this test" >&2; exit 99')

    def add(self, name: str, script: str, *, where: Path | None = None) -> None:
        """A command that notes its arguments and then runs `script`, with `$F` the folder."""
        path = (where or self._bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_NOTE.format(calls=self._calls) + f'F="{self.folder}"\n{script}\n')
        path.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        """For a script under test."""
        return {
            "PATH": f"{self._bin}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "USER": "someone",
            "TMPDIR": str(self.folder),
            **more,
        }

    def run(self, *command: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs a command with these stand-ins."""
        return subprocess.run(
            command, cwd=cwd, env=self.environment(**more), capture_output=True, text=True,
            timeout=60, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def calls(self, name: str) -> list[list[str]]:
        """Arguments of all calls of a command, in order."""
        if not self._calls.exists():
            return []
        lines = [call.split("\0") for call in self._calls.read_text().split("\0\036\0") if call]
        return [words[1:] for words in lines if words[0] == name]

    def write(self, name: str, *lines: str) -> Path:
        """A file of the folder, for the stand-ins to read."""
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path


NEXT_LINE = """
next_line() {  # first line of a file, which is taken off; the last one stays
    head -n 1 "$1"
    if [ "$(wc -l < "$1")" -gt 1 ]; then sed -i 1d "$1"; fi
}
"""


def checkout(folder: Path, stand_ins: StandIns, python: str) -> Path:
    """A folder with launch/ and a stand-in for .venv/bin/python that runs `python`."""
    folder.mkdir(parents=True)
    (folder / "launch").symlink_to(LAUNCH)
    stand_ins.add("python", python, where=folder / ".venv/bin")
    return folder
