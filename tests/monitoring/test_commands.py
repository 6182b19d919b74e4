# SPDX-License-Identifier: BSD-3-Clause
import json

import pytest
from etils import epath

from mlimages_jax.monitoring import commands


def _recorded(folder) -> list[str]:
    lines = (folder / commands.COMMANDS_FILE).read_text().splitlines()
    return [json.loads(line)["command"] for line in lines]


def test_each_new_command_is_a_line(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path)
    train = ["/env/bin/mlimages", "train", "--config=tagger", "--workdir=my runs/w"]
    for argv in (train, train, [*train, "--minutes=5"], train):
        monkeypatch.setattr("sys.argv", argv)
        commands.record(folder)
    first = "mlimages train --config=tagger '--workdir=my runs/w'"
    assert _recorded(tmp_path) == [first, f"{first} --minutes=5", first]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/x/mlimages_jax/main.py", "python -m mlimages_jax.main --workdir=w"),
        ("/x/mlimages_jax/__main__.py", "python -m mlimages_jax --workdir=w"),
    ],
)
def test_modules_are_named_as_they_were_started(tmp_path, monkeypatch, program, said):
    monkeypatch.setattr("sys.argv", [program, "--workdir=w"])
    commands.record(epath.Path(tmp_path))
    assert _recorded(tmp_path) == [said]


@pytest.mark.parametrize(
    "program", ["/env/bin/pytest", "/x/pytest/__main__.py", "my_script.py", ""]
)
def test_other_programs_say_nothing(tmp_path, monkeypatch, program):
    monkeypatch.setattr("sys.argv", [program, "-q"])
    commands.record(epath.Path(tmp_path))
    assert not list(tmp_path.iterdir())
