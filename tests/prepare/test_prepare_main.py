# SPDX-License-Identifier: BSD-3-Clause
"""The door of the preparation: its list of commands, their help, and how errors look."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlimages_jax import command_line
from mlimages_jax.prepare import __main__ as door

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [[name] for name in door.COMMANDS.commands if name != "import"]
COMMANDS += [["import", name] for name in door.IMPORTS.commands]


def _command(words):
    group = door.IMPORTS if words[0] == "import" else door.COMMANDS
    return command_line.load(group.commands[words[-1]])


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as end:
        door.main([*words, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_list_says_one_line_of_each_command(capsys):
    text = help_of(capsys)
    for words in COMMANDS[:-5]:
        assert words[0] in text
        first_line = _command(words).__doc__.splitlines()[0].replace("`", "")
        assert first_line.split(":")[0][:40] in text.replace("\u2502 ", "").replace("`", "")
    assert len(text) < 4000
    assert "coco" in help_of(capsys, "import")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_teaches_by_an_example(capsys, words):
    text = help_of(capsys, *words)
    assert f"mlimages data {' '.join(words)}" in text
    command = _command(words)
    for option in set(command.__annotations__) - {"return"}:
        described = f"{option}: "
        assert described in (command.__doc__ or ""), f"{option} is not described"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_refuses_files_that_are_not_there(tmp_path, words):
    absent = str(tmp_path / "absent")
    arguments = {
        "download": [absent, "--output", absent + "2"],
        "extract": [absent, "--lists", absent, "--output", absent + "2"],
        "coverage": [absent, "--manifests", absent],
        "labels": [absent, "--output", absent + "2"],
        "cooccurrence": [absent, "--predictions", absent, "--dictionary", absent, "--output",
                         absent + "2", "--pairs", absent + "3"],
        "stats": [absent, "--dictionary", absent],
        "check": [absent],
        "tfrecords": [absent, "--output", absent + "2", "--split", "train",
                             "--dictionary", absent],
        "open-images": ["--output", absent + "2", "--descriptions", absent, "--train", absent],
        "coco": ["--output", absent + "2", "--train", absent],
        "table": [absent, "--output", absent + "2"],
        "any": [absent, "--output", absent + "2"],
    }[words[-1]]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        door.main([*words, *arguments])
    assert str(end.value.code).startswith("error: ") and "absent" in str(end.value.code)
    assert not Path(absent + "2").is_file()


@pytest.mark.parametrize("words", [["co-occurrence"], ["import-tfrecords"]], ids=" ".join)
def test_names_of_before_still_work(capsys, words):
    assert "usage" in help_of(capsys, *words)
    assert "is not a command" not in capsys.readouterr().err


def test_a_reader_that_stops_is_no_error():
    command = f"{sys.executable} -m mlimages_jax.prepare download --help | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("Download the images") and not done.stderr
