# SPDX-License-Identifier: BSD-3-Clause
import subprocess
import sys
import time

import pytest

from mlimages_jax import settings
from mlimages_jax.settings.config_file import network, read_config, split_overrides
from tests.support.small_run import ROOT

DICT = "from ml_collections import ConfigDict, config_dict\ndef get_config(): return ConfigDict("


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def _read(config, *words):
    others, overrides = split_overrides(words)
    assert others == []
    return read_config(config, overrides)


def test_overrides_are_parted_from_flags(tmp_path):
    (tmp_path / "flags").write_text("--config.seed=7\n--workdir=W\n")
    words = [
        "main", "--config=f.py", "--config.a.b=1=2", "-config.c", "-5", "--noconfig.d",
        "--config.e", "--num_processes=2", f"--flagfile={tmp_path / 'flags'}", "--config.g=", "--",
        "--config.h=1",
    ]  # fmt: skip
    others, overrides = split_overrides(words)
    assert others == [
        "main", "--config=f.py", "--num_processes=2", "--workdir=W", "--", "--config.h=1",
    ]  # fmt: skip
    assert overrides == [
        ("a.b", "1=2"), ("c", "-5"), ("d", "false"), ("e", None), ("seed", "7"), ("g", ""),
    ]  # fmt: skip


def test_values_take_the_type_of_their_rule():
    config = _read(
        "configs/quickstart.py", "--config.seed=3", "--config.crop.area=(0.1, 1)",
        "--config.optimizer.freeze=stem/*", "--config.evaluation.sizes=48", "--config.model.remat",
        "--noconfig.crop.flip", "--config.data.folder=007", "--config.evaluate_every=0.25",
        "--config.optimizer.weight_decay=1e-3", "--config.loss.name", "sigmoid",
        "--config.resize=[[4, 32, 64]]",
    )  # fmt: skip
    assert config.seed == 3
    assert config.crop.area == (0.1, 1)
    assert config.optimizer.freeze == ("stem/*",)
    assert config.evaluation.sizes == (48,)
    assert (config.model.remat, config.crop.flip) == (True, False)
    assert config.data.folder == "007"
    assert config.evaluate_every == 0.25
    assert config.optimizer.weight_decay == 1e-3
    assert config.loss.name == "sigmoid"
    assert settings.checked(config).resize == ((4, 32, 64),)


@pytest.mark.parametrize(
    ("name", "first", "last", "value"),
    [
        ("crop.area", "(0.5, 0.6)", "(0.1, 0.2)", (0.1, 0.2)),
        ("evaluation.sizes", "(32,)", "64", (64,)),
        ("optimizer.freeze", "a", "b", ("b",)),
        ("seed", "1", "2", 2),
    ],
)
def test_the_last_of_two_counts(name, first, last, value):
    config = _read("configs/quickstart.py", f"--config.{name}={first}", f"--config.{name}={last}")
    assert settings.flatten(config)[name] == value


def test_a_section_that_is_not_chosen_may_be_filled():
    words = [
        f"--config.schedule.{name}"
        for name in ("name=staircase", "staircase.learning_rate=0.1", "staircase.decay_steps=0.5")
    ]
    config = _read("configs/quickstart.py", *words, "--config.schedule.staircase.decay_factor=0.1")
    assert settings.checked(config).schedule.staircase.decay_steps == 550


def test_one_value_chooses_the_network():
    config = _read(
        "configs/quickstart.py", "--config.model=resnet26", "--config.model.stem_width=8"
    )
    assert config.model.stage_sizes == (2, 2, 2, 2)
    assert config.model.stage_widths == (256, 512, 1024, 2048)
    assert (config.model.stem_width, config.model.stem_kernel) == (8, 7)
    assert config.model.norm_momentum == 0.9, "what is no size stays"
    by_hand = ["--config.model=resnet50", "--config.model.stage_sizes=(1, 1, 1, 2)"]
    assert _read("configs/finetune.py", *by_hand).model.stage_sizes == (1, 1, 1, 2)
    assert network("resnet101")["stage_sizes"] == (3, 4, 23, 3)


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        ("configs/pretrian.py", (), "no such file; did you mean 'configs/pretrain.py'?"),
        ("pretrain.py", (), "no such file; did you mean 'configs/pretrain.py'?"),
        ("configs/finetune.py:modren", (), "none of the variants 224, .*did you mean 'modern'?"),
        ("configs/pretrain.py:", (), "'' is none of the variants released, paper"),
        ("configs/quickstart.py:paper", (), "has no variants; omit ':paper'"),
        ("configs/quickstart.py", ("optimzer.momentum=1",), "did you mean 'optimizer.momentum'?"),
        ("configs/quickstart.py", ("momentun=1",), "did you mean 'optimizer.momentum'?"),
        ("configs/quickstart.py", ("bacth_size=1",), "did you mean 'batch_size'?"),
        ("configs/quickstart.py", ("crop=1",), "is a section: .* such as --config.crop.area"),
        ("configs/quickstart.py", ("crop.area.x=1",), "config.crop.area.x: there is no such"),
        ("configs/quickstart.py", ("seed",), "config.seed: give a value"),
        ("configs", (), "this is a folder"),
        ("configs/quickstart.py", ("model=resnet18",), "18 and 34 use a different block"),
        ("configs/quickstart.py", ("model=resnet-50",), "none of .*did you mean 'resnet50'?"),
        ("configs/evaluate.py", ("model=resnet50",), "config.model: there is no such setting"),
    ],
)
def test_what_is_misspelt_is_one_line_with_the_nearest(config, words, message):
    with pytest.raises(settings.ConfigError, match=message.replace("?", r"\?")) as error:
        _read(config, *(f"--config.{word}" for word in words))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "own.py, line 1: SyntaxError"),
        ("import nothing_like_it\n", "own.py, line 1: ModuleNotFoundError"),
        ("def get_config():\n    return 1 / 0\n", "own.py, line 2: ZeroDivisionError"),
        ("def get_config():\n    return {}\n", r"own.py: get_config\(\) returns {} instead of a C"),
        ("x = 1\n", "own.py has no function get_config"),
        ("def get_config():\n    raise ValueError\n", "own.py, line 2: ValueError"),
        ("raise SystemExit(75)\n", "own.py, line 1: SystemExit: 75"),
        ("def get_config():\n    exit(0)\n", "own.py, line 2: SystemExit: 0"),
        ("\0", "own.py: SyntaxError"),
        (f"{DICT}{{1: 2}})\n", "own.py: TypeError: 1 is not the name of a setting"),
        (f"{DICT}{{'seed': config_dict.required_placeholder(int)}})\n", "own.py: RequiredValueErr"),
        (
            f"{DICT}{{'a': {{}}}})\ndef get_config(c=get_config()):\n    c.a.c = c\n    return c\n",
            "own.py: RecursionError",
        ),
    ],
)
def test_a_file_that_cannot_be_run_is_one_line(tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(settings.ConfigError, match=message) as error:
        read_config(str(tmp_path / "own.py"))
    assert "\n" not in str(error.value)


def test_a_config_without_a_task_trains(tmp_path):
    path = ROOT / "configs" / "quickstart.py"
    text = path.read_text().replace('"task": "quickstart",', "")
    (tmp_path / "own.py").write_text(text.replace('"folder": ""', f'"folder": "{tmp_path}"'))
    config = read_config(str(tmp_path / "own.py"), workdir=str(tmp_path / "w"))
    assert config.task == "train"


@pytest.mark.parametrize("name", ["batch_size", "loss.asymmetric.clip", "loss.softmax"])
@pytest.mark.parametrize("text", ["{}", "{'a': 1}", "{1: 2}"])
def test_a_dictionary_is_no_value(name, text):
    """An empty one was no setting at all, and its rule's default came in."""
    with pytest.raises(settings.ConfigError, match=name):
        _read("configs/quickstart.py", f"--config.{name}={text}")


def test_all_misspelt_names_come_at_once():
    with pytest.raises(settings.ConfigError) as error:
        _read("configs/quickstart.py", "--config.sed=1", "--config.log_evry=1")
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("module", ["main", "plan"])
def test_the_command_ends_with_1_and_without_a_traceback_or_a_workdir(tmp_path, module):
    """Before jax is imported: that would take longer than the rest."""
    other = {"main": f"--workdir={tmp_path / 'w'}", "plan": "--devices=8"}[module]
    words = ["--config=configs/quickstart.py", "--config.seed=-1", "--config.log_every=-1", other]
    words += ["--chip=h100"] if module == "plan" else []
    code = (
        "import sys, runpy\n"
        f"sys.argv = {['x', *words]!r}\n"
        "try: runpy.run_module('mlimages_jax.%s', run_name='__main__')\n"
        "finally: print('jax' in sys.modules)"
    ) % module
    begin = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == "False\n"
    assert ended.stderr.startswith("error: 2 settings are invalid:\n  seed=-1: give ")
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 3
    assert not (tmp_path / "w").exists()
    assert time.monotonic() - begin < 20  # well below a second on a machine that does nothing else
