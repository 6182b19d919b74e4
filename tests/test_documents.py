# SPDX-License-Identifier: BSD-3-Clause
"""The documents keep their promises: links lead somewhere, and commands are those that exist."""

import itertools
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import mlimages_jax
from mlimages_jax import main
from mlimages_jax.cli import front
from mlimages_jax.labels.hierarchy import HEADER, Hierarchy
from mlimages_jax.settings import config_file
from mlimages_jax.settings.tasks import TABLES

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    *sorted(ROOT.glob("C*.md")),
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tfds_builders").glob("*/README.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
GENERATED = "reference/"  # of the site only: docs/hooks.py makes these pages


def name(path):
    return str(path.relative_to(ROOT))


def command_lines(path):
    """The commands of a page, continued lines joined."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^ {4}(\S.*)$", text, flags=re.MULTILINE)
    if path.name == "coming_from.md":  # whose tables are made of whole commands
        rows = "\n".join(re.findall(r"^\|.*$", text, flags=re.MULTILINE))
        blocks += re.findall(r"`(mlimages [^`]+)`", rows)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


TASKS = ("train", "evaluate", "tag", "export")  # which run a config
COMMANDS = [
    pytest.param(shlex.split(line, comments=True)[1:], id=f"{name(page)}: {line}")
    for page in PAGES
    for line in command_lines(page)
    if line.startswith("mlimages ") and "..." not in line
]


def started(words, monkeypatch):
    """What `mlimages` with these words starts: (config, workdir, overrides), or nothing."""
    starts = []
    monkeypatch.setattr(
        main, "start", lambda *given, overrides: starts.append((*given[:2], overrides))
    )
    with pytest.raises(SystemExit) as end:
        front.main(words)
    return starts, end.value.code


@pytest.mark.parametrize("words", COMMANDS)
def test_documented_commands_are_understood(words, monkeypatch, capsys):
    if words[0] in TASKS and not {"--help", "--config.help"} & {*words}:
        starts, code = started(words, monkeypatch)
        assert not code, capsys.readouterr().err
        ((config, workdir, overrides),) = starts
        assert workdir
        config_file.read_config(config, overrides)
        return
    inner = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    _, code = started([*inner, "--help"], monkeypatch)
    shown = capsys.readouterr()
    assert not code, shown.err
    assert "--help" in words or "subcommands" not in shown.out, f"{inner} names no command"
    known = {"help", *re.findall(r"--([\w-]+)", shown.out)}
    words = itertools.takewhile(lambda word: word != "--", words)  # then those of another command
    used = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    used.discard("config.help")
    assert used <= known, f"mlimages {' '.join(inner)} has no {used - known}"


def test_wrong_commands_are_seen(monkeypatch):
    for words in (
        ["train", "--config=quickstart", "--workdri=W"],
        ["tag", "images"],
        ["data", "bild", "ml-images"],
    ):
        starts, code = started(words, monkeypatch)
        assert not starts and code


def test_every_config_is_started_by_a_documented_command(monkeypatch):
    shown = [" ".join(param.values[0]) for param in COMMANDS]
    for start in (
        "train --config=quickstart",
        "train --config=pretrain",
        "train --config=finetune",
        "train --config=tagger",
    ):
        assert any(line.startswith(start) for line in shown), start
    for command in front.COMMANDS.commands:
        listed = any(line.startswith(command) for line in shown)
        assert listed or command == "completion", f"no page shows mlimages {command}"


@pytest.mark.parametrize("page", PAGES, ids=map(name, PAGES))
def test_links_lead_to_files(page):
    targets = [match[1] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    for target in targets:
        if "://" not in target and GENERATED not in target:
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=map(name, PAGES))
def test_modules_that_commands_run_exist(page):
    for line in command_lines(page):
        for module in re.findall(r"python -m ((?:mlimages_jax|tfds_builders)[\w.]*)", line):
            path = ROOT / module.replace(".", "/")
            found = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
            assert found, f"{name(page)}: python -m {module}"


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_example_of_a_class_file_is_one(tmp_path):
    page = (ROOT / "docs/guide/images.md").read_text(encoding="utf-8")
    example = next(
        block
        for block in re.findall(r"^```text\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
        if block.startswith(HEADER)
    )
    path = tmp_path / "dictionary.txt"
    path.write_text(example, encoding="utf-8")
    hierarchy = Hierarchy.from_file(path)
    assert hierarchy.ids == ("animal", "dog", "cat")
    assert list(hierarchy.parents) == [-1, 0, 0]
    assert "  ".join(HEADER.split("\t")) in README.read_text(encoding="utf-8")


def test_the_version_is_given_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    dynamic = project["tool"]["setuptools"]["dynamic"]["version"]
    assert dynamic == {"attr": "mlimages_jax.__version__"}
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changelog, flags=re.MULTILINE)[1] == mlimages_jax.__version__


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +- (\S+\.md)$", navigation, flags=re.MULTILINE))
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert written == {page for page in listed if not page.startswith("repository/")}


def test_the_floors_are_those_that_are_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(
        each
        for each in project["tool"]["importlinter"]["contracts"]
        if each["name"].startswith("A room imports")
    )
    stated = [set(re.findall(r"(\w+)(?= |$)", floor)) for floor in contract["layers"]]
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^\| \d+ \| (.*) \|$", page, flags=re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", floor)) for floor in drawn] == stated


def test_the_page_about_stability_is_true():
    page = (ROOT / "docs/guide/stability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`mlimages_jax\.(\w+)`", page))
    assert named == {*mlimages_jax.__all__, "__version__"}
    for path in re.findall(r"`((?:mlimages_jax|tests)/[\w/]+\.py)`", page):
        assert (ROOT / path).exists(), path
    # Old names end with the next minor version: whoever sets it empties the tables.
    major, minor, _ = mlimages_jax.__version__.split(".")
    end = f"{major}.{int(minor) + 1}"
    assert f"accepted in all of {major}.{minor} and dropped in {end}" in page
    for place in ("moved", "renamed_flags", "settings/renamed"):
        code = (ROOT / f"mlimages_jax/{place}.py").read_text(encoding="utf-8")
        assert {*re.findall(r"(?:removed in|until)(?: version)? (\d\.\d+)", code)} == {end}, place


def test_settings_named_in_pages_exist():
    known = {setting for table in TABLES.values() for setting in table}
    known |= {"help", "model", "x", "x.y"}  # what stands for others
    of_big_vision = {"lr", "input.batch_size"}
    for page in PAGES:
        also = of_big_vision if page.name == "coming_from.md" else set()
        for setting in re.findall(r"--config\.([a-z_][\w.]*\w)", page.read_text(encoding="utf-8")):
            assert setting in known | also, f"{name(page)}: --config.{setting}"
