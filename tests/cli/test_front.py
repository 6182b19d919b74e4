# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages`: its lists, its helps, and how it maps to what is behind it."""

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
from typing import Literal

import pytest
import tyro
from tyro.conf import Positional

from mlimages_jax import command_line, renamed_flags
from mlimages_jax.cli import front, tasks
from mlimages_jax.command_line import Group
from mlimages_jax.main import Processes
from mlimages_jax.settings.config_file import Override, split_overrides
from tests.support.small_run import ROOT


def _leaves(group, *names):
    for name, one in group.commands.items():
        if isinstance(one, Group):
            yield from _leaves(one, *names, name)
        else:
            yield (*names, name), one


def _groups(group, *names):
    yield names, group
    for name, one in group.commands.items():
        if isinstance(one, Group):
            yield from _groups(one, *names, name)


LEAVES = dict(_leaves(front.COMMANDS))
GROUPS = dict(_groups(front.COMMANDS))


def _help(capsys, *words):
    with pytest.raises(SystemExit) as end:
        front.main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def _main(words):
    """Runs a command line and gives its exit code."""
    with pytest.raises(SystemExit) as end:
        front.main(words)
    return end.value.code


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_a_list_names_every_command_with_its_first_line(capsys, words):
    text = " ".join(_help(capsys, *words).replace("│", " ").split())
    for name, one in GROUPS[words].commands.items():
        first = one.description if isinstance(one, Group) else command_line.load(one).__doc__
        assert f"• {name} {first.splitlines()[0]}".replace("`", "")[:60] in text


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_help_has_an_example_and_explains_every_option(capsys, words):
    text = _help(capsys, *words)
    function = command_line.load(LEAVES[words])
    for option in inspect.signature(function).parameters:
        if words[0] != "launch":
            assert f"{option}: " in (function.__doc__ or ""), option
    assert "python -m" not in text
    # What Python calls None or () is nothing that anybody types.
    assert not re.search(r"\bNone\b|default: \)|default: ''\)", text)
    description, _, usage = text.partition("usage: ")
    description = description.replace("\\\n", " ")
    assert not re.search(r"^ +mlimages .*\n +--", description, re.MULTILINE), "no backslash"
    examples = re.findall(rf"^    mlimages {' '.join(words)}\b.*", description, re.MULTILINE)
    assert examples
    known = {"--help", *re.findall(r"--[\w-]+", usage or text)}
    for example in examples:
        assert {*re.findall(r" (--[\w-]+)", example.partition(" -- ")[0])} <= known


def test_a_help_is_as_wide_as_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text, _, _ = _help(capsys, "convert", "to-onnx").partition("\nusage: ")
    lines = text.splitlines()
    assert lines[2].endswith("--output=tagger.onnx --uint8-input")  # as it is typed
    filled = lines[4:]
    assert max(map(len, filled)) <= 60 and min(map(len, filled[:-1])) > 40


def _listed(function, name="x"):
    """The line about an option in the help of a function."""
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        tyro.cli(command_line.readable(function), args=["--help"])
    lines = [" ".join(line.strip("│ ").split()) for line in out.getvalue().splitlines()]
    return next(line for line in lines if name in line.split(" ")[0])


def test_options_are_listed_as_they_are_typed():
    def f(
        pets: Positional[list[str]],
        /,
        *,
        size: int | None = None,
        kind: Literal["a", "b"] | None = None,
        names: tuple[str, ...] = (),
        text: str = "",
        rate: float = 0.5,
    ) -> tuple[object, ...]:
        """Does it.

        Args:
            pets: all
                of them.
            size: side.
            kind: one.
            names: several.
            text: words.
            rate: speed.
        """
        return pets, size, kind, names, text, rate

    assert _listed(f, "PETS") == "PETS ... all of them."
    assert _listed(f, "--size") == "--size INT side."
    assert _listed(f, "--kind") == "--kind {a,b} one."
    assert _listed(f, "--names").endswith("several.")
    assert _listed(f, "--text") == "--text STR words."
    assert _listed(f, "--rate") == "--rate FLOAT speed. (default: 0.5)"
    found = tyro.cli(command_line.readable(f), args=["p", "q", "--size=3", "--kind=b"])
    assert found == (["p", "q"], 3, "b", (), "", 0.5)


def test_help_starts_without_jax():
    asked = [[], ["--help"], ["convert"], ["data", "build"], ["tag", "-h"]]
    code = (
        "import sys\n"
        "from mlimages_jax.cli import front\n"
        f"for words in {asked}:\n"
        "    try: front.main(words)\n"
        "    except SystemExit as end: assert not end.code, (words, end.code)\n"
        "    heavy = {'jax', 'flax', 'grain', 'tensorflow_datasets', 'cv2'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert done.stdout.count("usage: mlimages") == len(asked)


def test_a_mistyped_command_lists_the_commands(capsys):
    assert _main(["trian"]) == 2
    assert "train" in capsys.readouterr().err
    # For a launcher 1 is an error that another start would not mend.
    assert _main(["train", "--workdirr=x"]) == 1
    assert _main(["plan", "--config=pretrain"]) == 1


def _started(monkeypatch, *words):
    """What the training would be started with."""
    calls = []
    monkeypatch.setattr(
        tasks.main, "start", lambda *given, **options: calls.append((given, options))
    )
    monkeypatch.setattr("absl.app.run", lambda run, argv: run(argv))
    front.main(words)
    [(given, options)] = calls
    return *given, [tuple(one) for one in options["overrides"]]


def test_a_training_gets_what_was_typed(monkeypatch):
    words = ["--config=pretrain:paper", "--workdir", "W", "--config.total-steps=3"]
    words += ["--config.seed", "4", "--num-processes=2", "--process_id=1", "--peer-timeout=9"]
    assert _started(monkeypatch, "train", *words) == (
        "pretrain:paper",
        "W",
        Processes(num_processes=2, process_id=1, peer_timeout=9.0),
        [("total_steps", "3"), ("seed", "4")],
    )


@pytest.mark.parametrize(
    ("words", "config", "workdir", "overrides"),
    [
        ("tag photos --checkpoint=C --top-k=3", "classify", "workdirs/tag",
         {"input": "photos", "checkpoint": "C", "output": "tags.csv", "top_k": "3"}),
        ("tag photos --checkpoint=C --workdir=W", "classify", "W",
         {"input": "photos", "checkpoint": "C"}),
        ("export photos --checkpoint=C --output=F --config.batch_size=8", "export_features", "F",
         {"input": "photos", "checkpoint": "C", "batch_size": "8"}),
        ("evaluate --checkpoint=C --data=D --config.data.folder=E", "evaluate", "workdirs/evaluate",
         {"checkpoint": "C", "data.folder": "E"}),
        ("thresholds C --precision=0.8 --kappa=3", "thresholds", "workdirs/thresholds",
         {"checkpoint": "C", "thresholds.objective": "precision", "thresholds.wanted": "0.8",
          "thresholds.kappa": "3.0"}),
        ("tag photos --checkpoint=C --thresholds=none", "classify", "workdirs/tag",
         {"input": "photos", "checkpoint": "C", "output": "tags.csv", "thresholds": "none"}),
        ("tag photos --checkpoint=C --overwrite --watch --interval=3 --sidecars --copy-to=B "
         "--html=H.html",
         "classify", "workdirs/tag",
         {"input": "photos", "checkpoint": "C", "output": "tags.csv", "overwrite": "True",
          "watch": "True", "interval": "3.0", "sidecars": "True", "copy_to": "B",
          "html": "H.html"}),
    ],
)  # fmt: skip
def test_tasks_bring_their_config(monkeypatch, words, config, workdir, overrides):
    given = _started(monkeypatch, *words.split())
    assert given[:3] == (f"configs/{config}.py", workdir, Processes())
    assert dict(given[3]) == overrides  # what --config.NAME says comes last


@pytest.mark.parametrize("old", ["--picture-kb=20", "--picture_kb=20"])
def test_old_flags_are_told(capsys, old):
    words = ["plan", "--config=pretrain", "--devices=8", "--chip=h100", "--pictures=5", old]
    words += ["--classes=7", "--price=1", "--config.batch_size=64"]
    words += ["--config.model.stage_sizes=(1,)", "--config.model.stage_widths=(16,)"]
    assert _main(words) == 0
    told = capsys.readouterr()
    name = old.partition("=")[0]
    assert f"note: {name} is now called --image-kb" in told.err
    assert "note: --pictures is now called --images" in told.err


def test_renamed_flags_are_options_of_their_command(capsys):
    for command, names in renamed_flags.RENAMED.items():
        with pytest.raises(SystemExit):
            command_line.run(command, ["--help"], program="x")
        told = capsys.readouterr().out
        for old, new in names.items():
            assert f"--{new} " in told and f"--{old} " not in told


def test_flags_are_replaced_for_their_command_only():
    command = "mlimages_jax.prepare.co_occurrence.command:co_occurrence"
    words = ["--min_pictures", "3", "pictures", "--pictures=2"]
    new = ["--min-images", "3", "pictures", "--pictures=2"]
    assert renamed_flags.replaced(words, command=command) == new
    assert renamed_flags.replaced(words, command="other:command") == words


def test_overrides_of_settings_take_dashes():
    _, overrides = split_overrides(["x", "--config.total-steps=-3"])
    assert overrides == [Override("total_steps", "-3")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(capsys, shell):
    assert _main(["completion", shell]) in (0, None)
    script = capsys.readouterr().out
    for word in ("evaluate", "image-folder", "short-side", "to-torch", "require-platform"):
        assert word in script


@pytest.mark.parametrize("words", [
    "launch --dry-run gpu --hosts=a,b -- --config=c.py",
    "launch gpu --dry-run --hosts=a,b -- --config=c.py",
])  # fmt: skip
def test_a_launch_is_printed(words, tmp_path):
    printed = _printed(words, tmp_path)
    assert [line.split()[:1] for line in printed.splitlines()] == [["ssh"]] * 2
    assert "--config=c.py" in printed


@pytest.mark.parametrize("words", [
    "launch tpu-vm --dry-run stop --name=gpu --zone=z",
    "launch slurm --dry-run --nodes=3 -- --config=c",
])  # fmt: skip
def test_other_launches_are_printed(words, tmp_path):
    printed = _printed(words, tmp_path)
    assert "queued-resources ssh gpu" in printed or "--config=c" in printed


def _printed(words, folder) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mlimages_jax", *words.split()],
        cwd=folder, env=_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    "mlimages_jax launch tpu-vm --help", "mlimages_jax --help",
    "mlimages_jax plan --config.help", "mlimages_jax.main --config=pretrain --config.help",
    "mlimages_jax.plan --config=pretrain --config.help", "mlimages_jax.goodput --help",
    "mlimages_jax launch gpu --dry-run --hosts=a,b -- --config=c --workdir=w",
])  # fmt: skip
def test_output_that_nobody_reads_on_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", *words.split()],
        cwd=ROOT, env=_environment(), stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert not re.search("Traceback|BrokenPipe|Broken pipe", done.stderr), done.stderr


def _environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}
