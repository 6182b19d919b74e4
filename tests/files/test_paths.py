# SPDX-License-Identifier: BSD-3-Clause
from pathlib import Path

import pytest

from mlimages_jax.files import paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("~/run", "{home}/run"), ("~", "{home}"), ("~/run//", "{home}/run"), ("run/", "run"),
        ("./a/./b", "a/b"), ("", ""), ("gs://b/run/", "gs://b/run"), ("gs://b/~x", "gs://b/~x"),
        ("a~b", "a~b"), ("~/a b", "{home}/a b"),
    ],
)  # fmt: skip
def test_paths_are_made_plain_once(home, typed, plain):
    assert paths.expanded(typed) == plain.format(home=home)
    assert paths.expanded(paths.expanded(typed)) == plain.format(home=home)


def test_a_relative_path_becomes_absolute_and_a_url_stays(home, monkeypatch):
    monkeypatch.chdir(home)
    assert paths.absolute("run/") == f"{home}/run"
    assert paths.absolute("gs://b/run/") == "gs://b/run"
    assert paths.same_place("~/run", f"{home}/run/")
    assert paths.same_place("run", "./run")
    assert not paths.same_place("run", "")


def test_a_home_that_nobody_knows_is_refused_by_name(home):
    with pytest.raises(paths.PathError, match="~nobody-of-this-name"):
        paths.expanded("~nobody-of-this-name/run")


def test_words_of_a_command_line(home):
    words = ["knn", "--train=~/f", "--output", "~/o", "--name=a~b", "x=~/y"]
    assert paths.plain_words(words) == [
        "knn", f"--train={home}/f", "--output", str(Path(home) / "o"), "--name=a~b", "x=~/y",
    ]  # fmt: skip


@pytest.mark.parametrize("typed", ["", " ", "\n"])
def test_no_workdir_is_not_the_current_folder(typed):
    """As of --workdir=$W without W: a run was strewn over the clone."""
    with pytest.raises(paths.PathError, match="--workdir is empty"):
        paths.workdir(typed)


@pytest.mark.parametrize("typed", ["{0}/f", "{0}/f/w/x", "{0}/gone", "{0}/gone/w", "{0}/w"])
def test_a_workdir_whose_place_is_taken_is_refused_by_name(tmp_path, typed):
    (tmp_path / "f").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "checkpoints").write_text("")
    with pytest.raises(paths.PathError, match=r"is not a folder; give another --workdir") as error:
        paths.workdir(typed.format(tmp_path))
    assert "\n" not in str(error.value)


def test_a_workdir_may_be_there_or_not_or_be_a_link_or_a_url(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for typed in (tmp_path, tmp_path / "a" / "b", tmp_path / "link", tmp_path / "link" / "c"):
        assert paths.workdir(str(typed)) == str(typed)
    assert paths.workdir("gs://b/run/") == "gs://b/run"


def test_a_workdir_whose_checkpoints_could_not_be_read_back_is_refused(tmp_path):
    with pytest.raises(paths.PathError, match=r"contains a bracket.*without \[ and \]"):
        paths.workdir(str(tmp_path / "run [2]" / "W"))
