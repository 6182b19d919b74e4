# SPDX-License-Identifier: BSD-3-Clause
import subprocess
import sys

import pytest

from mlimages_jax.settings import tasks
from mlimages_jax.settings.config_file import answer_help, split_overrides
from mlimages_jax.settings.help_text import help_text
from tests.support.small_run import ROOT


@pytest.mark.parametrize("task", tasks.TABLES)
def test_every_setting_has_a_line_with_its_value_and_one_with_its_meaning(task):
    text = help_text({"task": task})
    for name, told in tasks.TABLES[task].items():
        assert text.count(f"  --config.{name}=") == 1
        assert told.meaning.split()[0] in text
        assert told.meaning.endswith("."), name
    assert max(map(len, text.splitlines())) <= 100


def _answer(*words):
    with pytest.raises(SystemExit) as ended:
        answer_help(*split_overrides(["main", *words]))
    return ended.value.code


def test_values_of_a_file_and_of_the_command_line_stand_beside_the_defaults(capsys):
    file = f"--config={ROOT}/configs/quickstart.py"
    assert _answer(file, "--config.seed=3", "--config.help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  --config.seed=3  (default 0)" in lines
    assert "  --config.image_size=48  (default 224)" in lines
    assert "  --config.total_steps=1100  (no default)" in lines
    assert "  --config.optimizer.momentum=0.9  (default)" in lines
    assert "  --config.schedule.staircase.learning_rate=...  (no default)" in lines
    assert "crop: Random crops of training images." in lines
    assert lines.index(
        "optimizer: The optimizer, which turns gradients into updates."
    ) < lines.index("  --config.optimizer.momentum=0.9  (default)")


def test_fractions_of_steps_are_explained_where_there_are_steps(capsys):
    for name, explained in (("quickstart", True), ("evaluate", False)):
        assert _answer(f"--config={ROOT}/configs/{name}.py", "--config.help") == 0
        assert ("a fraction of total_steps: 0.1 is a tenth" in capsys.readouterr().out) == explained


def test_the_file_may_be_the_next_word_and_may_be_missing(capsys):
    assert _answer("--config", f"{ROOT}/configs/classify.py", "--config.help") == 0
    assert "  --config.top_k=-1  (default)" in capsys.readouterr().out
    assert _answer("--config.help") == 0
    assert "Settings of a training" in capsys.readouterr().out
    assert "no such file" in _answer("--config=nothing.py", "--config.help")


def test_without_help_nothing_is_answered():
    answer_help(["main", "--config=x.py"], [])


@pytest.mark.parametrize("module", ["main", "plan"])
def test_the_command_prints_it_and_ends_with_0(module):
    ended = subprocess.run(
        [sys.executable, "-m", f"mlimages_jax.{module}", "--config.help"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0
    assert "--config.optimizer.momentum=0.9" in ended.stdout
    assert ended.stderr == ""
