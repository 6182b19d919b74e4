# SPDX-License-Identifier: BSD-3-Clause
"""The benchmarks keep their promises: documented commands exist, and one command runs them all."""

import argparse
import functools
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from benchmarks.peers.job import inherited_environment

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", FOLDER / "README.md", *PAGES]
COMMAND = re.compile(r"python benchmarks/(\w+)\.py((?:[^`\n]|\\\n)*)")


class Parsed(BaseException):
    """Ends a script behind its command line; nothing in it may catch this."""


@functools.cache
def load(name):
    """A script as a module; it finds its neighbours as it does when it is run."""
    with mock.patch.object(sys, "path", [str(FOLDER), *sys.path]):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def parse(name, words, monkeypatch):
    """Runs a script's own parser on a command line; SystemExit where it does not take that."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, *given):
        original(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    with pytest.raises(Parsed):
        load(name).main()


def commands(text):
    """(script, words) of every command in a text."""
    text = text.replace("\\\n", " ")
    return [(name, shlex.split(words, comments=True)) for name, words in COMMAND.findall(text)]


DOCUMENTED = [
    pytest.param(name, words, id=f"{path.relative_to(ROOT)}: {name} {' '.join(words)}")
    for path in [*DOCUMENTS, *(FOLDER / f"{name}.py" for name in SCRIPTS)]
    for name, words in commands(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("name", "words"), DOCUMENTED)
def test_every_documented_command_is_one_that_the_script_takes(name, words, monkeypatch):
    parse(name, words, monkeypatch)


def sections(name):
    """(page, text) of the sections of docs/ whose title names a script."""
    return [
        (page, section)
        for page in PAGES
        for section in re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if f"`{name}.py`" in section.partition("\n")[0]
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_one_section_with_its_command(name):
    found = sections(name)
    assert len(found) == 1, f"docs/: {len(found)} sections with `{name}.py` in the title"
    assert name in [script for script, _ in commands(found[0][1])]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_list_of_scripts_leads_to_their_pages(name):
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    links = re.findall(rf"^\| `{name}\.py` \|.*\]\((\S+)\) \|$", listed, flags=re.MULTILINE)
    assert len(links) == 1, f"benchmarks/README.md: {len(links)} rows for `{name}.py`"
    assert [(FOLDER / links[0]).resolve()] == [page for page, _ in sections(name)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_its_command(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert name in [script for script, _ in commands(text)]


def test_run_all_knows_every_script_and_no_other():
    runner = load("run_all")
    assert runner.scripts() == sorted(set(SCRIPTS) - {"run_all"})
    assert sorted(runner.SCRIPTS) == runner.scripts()


@pytest.mark.parametrize("name", sorted(load("run_all").SCRIPTS))
def test_the_commands_of_run_all_are_ones_that_the_scripts_take(name, monkeypatch):
    form = load("run_all").SCRIPTS[name]
    for words in form.quick if form.left_out else form.quick + form.full:
        parse(name, shlex.split(words), monkeypatch)


def test_a_wrong_command_is_seen(monkeypatch):
    for words in (["--row", "x"], ["--nothing", "1"], ["stray"]):
        with pytest.raises(SystemExit):
            parse("manifest", words, monkeypatch)


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """`run_all` on a folder of its own; returns what ends its main with, and what it tells."""
    module = load("run_all")
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    monkeypatch.setattr(module, "FOLDER", folder)

    def run(*arguments, **scripts):
        for name, source in scripts.items():
            (folder / f"{name}.py").write_text(source)
        output = tmp_path / "told.md"
        monkeypatch.setattr(sys, "argv", ["run_all.py", "--output", str(output), *arguments])
        try:
            module.main()
        except SystemExit as end:
            return end.code, output.read_text()
        return 0, output.read_text()

    def know(**forms):
        monkeypatch.setattr(module, "SCRIPTS", forms)

    run.know, run.form = know, module.Form
    return run


PRINTS = "import sys; print('| table of', sys.argv[1:], '|')"


def test_scripts_run_with_the_arguments_of_their_form(runner):
    runner.know(one=runner.form(("--rows 2 --kind 'a b'", "--rows 3"), ("",)))
    code, told = runner("--quick", one=PRINTS)
    assert code == 0
    assert "| table of ['--rows', '2', '--kind', 'a b'] |" in told
    assert "| table of ['--rows', '3'] |" in told
    assert "    python benchmarks/one.py --rows 3\n" in told
    code, told = runner(one=PRINTS)
    assert code == 0 and "| table of [] |" in told and "--rows" not in told


def test_the_others_go_on_after_one_that_fails(runner):
    fails = "import sys; print('half a table'); sys.exit('the disk is gone')"
    runner.know(a=runner.form(("",)), b=runner.form(("",)))
    code, told = runner("--quick", a=fails, b=PRINTS)
    assert code == 1
    assert "half a table" in told and "the disk is gone" in told and "| table of" in told
    assert "| a | failed |" in told and "| b | done |" in told


@pytest.mark.slow
def test_one_that_takes_too_long_is_stopped_with_its_children(runner, tmp_path):
    child = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    slow = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    runner.know(slow=runner.form(("",)))
    code, told = runner("--quick", "--limit", "1", slow=slow)
    assert code == 1 and "too late" in told
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_a_peer_that_is_not_installed_is_told(runner):
    runner.know(a=runner.form(("",), peers=("json", "no_such_library")))
    code, told = runner("--quick", a=PRINTS)
    assert code == 0 and "table of" in told and "Without no_such_library, not installed" in told


def test_what_cannot_run_here_is_left_out_with_its_reason(runner, monkeypatch):
    runner.know(
        a=runner.form(("",), photographs=True),
        b=runner.form(("",), left_out="it needs images"),
    )
    monkeypatch.setattr(load("run_all"), "PHOTOGRAPHS", Path("no such folder"))
    code, told = runner(a=PRINTS, b=PRINTS)
    assert code == 0 and "table of" not in told
    assert "| a | left out: no photographs" in told
    assert "| b | left out: it needs images |" in told
    assert "table of" in runner("--quick", "--only", "b", a=PRINTS, b=PRINTS)[1]


def test_a_script_that_nobody_described_fails(runner):
    runner.know()
    code, told = runner("--quick", stranger=PRINTS)
    assert code == 1 and "| stranger | failed |" in told


def test_the_exponent_is_that_of_the_upper_half():
    growth = load("growth")
    sizes = [1, 2, 4, 8, 16, 32, 64]
    assert growth.exponent(sizes, [7.0] * 3 + [3 * size**1.5 for size in sizes[3:]]) == (
        pytest.approx(1.5)
    )
    assert growth.exponent([10, 1000], [5, 50]) == pytest.approx(0.5)
    assert growth.exponent([1, 10, 100], np.array([1, 2, 2])) == pytest.approx(0)


@pytest.mark.slow
def test_a_script_runs_in_its_short_form(tmp_path, monkeypatch, capfd):
    output = tmp_path / "told.md"
    words = ["run_all.py", "--quick", "--only", "manifest", "label_lists", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    load("run_all").main()
    told = output.read_text()
    assert told == capfd.readouterr().out
    assert re.search(r"^\| 20,000 \| [\d,]+ \|", told, re.MULTILINE)  # the manifest's last row
    assert "100,000 rows" in told and "| | all went well |" in told


@pytest.mark.slow
def test_a_step_with_ideas_that_replace_layers_is_timed():
    options = {
        "group_size": 2, "variants": ["full"], "ideas": ["stem by blocks", "convolutions kept"],
        "depth": 50, "size": 32, "batch": 2, "classes": 9, "dtype": "float32", "steps": 1,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "peers.ours_step", json.dumps(options)], cwd=ROOT / "benchmarks",
        env=inherited_environment() | {"PYTHONPATH": str(ROOT)}, input="full\n", text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    about, answer = map(json.loads, done.stdout.splitlines())
    assert about["macs"] > 1e7 and answer["seconds"] > 0
