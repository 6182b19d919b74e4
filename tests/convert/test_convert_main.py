# SPDX-License-Identifier: BSD-3-Clause
"""The door: its list of commands, their help, how errors look, and a way through all of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlimages_jax import command_line
from mlimages_jax.convert import __main__ as door
from mlimages_jax.convert.tensorflow_checkpoint import write_checkpoint
from tests.support import original_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def _help_of(capsys, *words) -> str:
    with pytest.raises(SystemExit) as end:
        door.main([*words, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_list_names_every_command(capsys):
    text = _help_of(capsys)
    assert all(name in text for name in door.COMMANDS.commands)
    assert len(text) < 3000


@pytest.mark.parametrize("name", door.COMMANDS.commands)
def test_every_help_teaches_by_an_example(capsys, name):
    assert f"mlimages convert {name}" in _help_of(capsys, name)
    command = command_line.load(door.COMMANDS.commands[name])
    for option in set(command.__annotations__) - {"return"}:
        assert f"{option}: " in (command.__doc__ or ""), f"{option} is not described"


@pytest.mark.parametrize("name", door.COMMANDS.commands)
def test_every_command_refuses_what_is_not_there(tmp_path, name):
    output = tmp_path / ("x.onnx" if name == "to-onnx" else "x.safetensors")
    words = [name, "--checkpoint", str(tmp_path / "absent"), "--output", str(output)]
    with pytest.raises(SystemExit, match=r"error: .*absent") as end:
        door.main(words)
    assert end.value.code != 0
    assert not output.exists()


@pytest.mark.slow
def test_a_checkpoint_goes_the_whole_way_round(tmp_path):
    write_checkpoint(tmp_path / "a", original_checkpoint.of_train_py())
    for name, source, target in (
        ("from-tensorflow", "a", "w"),
        ("to-safetensors", "w", "x.safetensors"),
        ("from-safetensors", "x.safetensors", "w2"),
        ("to-torch", "w2", "t"),
        ("to-stablehlo", "w2", "s"),
        ("to-tensorflow", "w2", "b"),
    ):
        paths = ["--checkpoint", str(tmp_path / source), "--output", str(tmp_path / target)]
        door.main([name, *paths])
    assert (tmp_path / "t" / "resnet.py").exists()
    assert (tmp_path / "s" / "network.jaxexport").exists()
    network = original_checkpoint.values(original_checkpoint.network())
    write_checkpoint(tmp_path / "expected", network)
    for end in (".index", ".data-00000-of-00001"):
        ours = Path(f"{tmp_path / 'b'}{end}").read_bytes()
        assert ours == Path(f"{tmp_path / 'expected'}{end}").read_bytes()


def test_it_runs_without_tensorflow_and_torch():
    code = (
        "import sys, mlimages_jax.convert.__main__; "
        "print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
