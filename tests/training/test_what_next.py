# SPDX-License-Identifier: BSD-3-Clause
import io
import sys

import pytest
from etils import epath

from mlimages_jax.training import what_next

TAGS = "class\tid\taverage_precision\tpositives\tname\n"
CLASSES = "class\tid\timages\ttop1\ttop5\tname\n"


def _told(workdir, capsys, **how):
    what_next.tell(epath.Path(workdir), **how)
    return capsys.readouterr().out


def test_only_files_that_were_written_are_named(tmp_path, capsys):
    workdir = tmp_path / "my run"
    workdir.mkdir()
    (workdir / "curves.png").touch()
    assert _told(workdir, capsys).splitlines() == [
        "",
        "Done. Tag images with",
        f"  mlimages tag FOLDER '--checkpoint={workdir}' --output=tags.csv",
        "",
        "Look at",
        f"  {workdir}/curves.png          loss and metrics over the training",
        f"  mlimages report '{workdir}'   all that is there, as one page",
    ]
    for name in ("per_class.tsv", "thresholds.tsv", "predictions.png"):
        (workdir / name).touch()
        assert f"  {workdir}/{name} " in _told(workdir, capsys)


def test_a_folder_with_a_line_break_breaks_no_line(tmp_path, capsys):
    workdir = tmp_path / "a\nb"
    workdir.mkdir()
    (workdir / "curves.png").touch()
    lines = _told(workdir, capsys).splitlines()
    assert len(lines) == 7 and sum("/a" in line for line in lines) == 3


def test_files_of_earlier_weights_are_not_named(tmp_path, capsys):
    (tmp_path / "per_class.tsv").write_text(f"{TAGS}0\tn0\t0.5\t2\tdog\n")
    for name in ("thresholds.tsv", "predictions.png", "curves.png"):
        (tmp_path / name).touch()

    def named(**how):
        told = _told(tmp_path, capsys, **how)
        return [name for name in ("best classes", *what_next._FILES) if name in told]

    assert named() == ["best classes", *what_next._FILES]
    assert named(evaluated=False) == ["thresholds.tsv", "curves.png"]
    assert named(thresholds=False) == [
        "best classes", "predictions.png", "per_class.tsv", "curves.png",
    ]  # fmt: skip


def test_the_ten_best_and_the_ten_worst_classes(tmp_path, capsys):
    rows = [f"{i}\tn{i}\t{1 - i / 100}\t{i}\tclass {i}, c{i}\n" for i in range(25)]
    text = "".join([TAGS, *rows, "25\tn25\t\t0\twithout images\n"])
    (tmp_path / "per_class.tsv").write_text(text)
    best, worst, *_ = _told(tmp_path, capsys).strip().split("\n\n")
    title, *lines = best.splitlines()
    assert title == "The best classes, by average precision in validation"
    assert lines[:2] == ["  1.00  class 0, c0 (0 images)", "  0.99  class 1, c1 (1 image)"]
    assert len(lines) == 10
    assert [line.split()[0] for line in worst.splitlines()[1:]] == [
        f"{1 - i / 100:.2f}" for i in range(24, 14, -1)
    ]


@pytest.mark.parametrize(("count", "listed"), [(0, [0]), (10, [10]), (13, [10, 3])])
def test_few_classes_are_listed_once(tmp_path, capsys, count, listed):
    rows = [f"{i}\tn{i}\t5\t0.5\t1.0\tclass {i}\n" for i in range(count)]
    (tmp_path / "per_class.tsv").write_text("".join([CLASSES, *rows]))
    sections = _told(tmp_path, capsys).split("Done.")[0].split("\n\n")
    assert [section.count("(5 images)") for section in sections if section.strip()] == [
        number for number in listed if number
    ]


def test_names_that_a_terminal_cannot_show(tmp_path, monkeypatch):
    name = "\N{CYRILLIC SMALL LETTER A}\x1b[2J" + "x" * 99
    (tmp_path / "per_class.tsv").write_text(f"{TAGS}0\tn0\t0.5\t2\t{name}\n", encoding="utf-8")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    what_next.tell(epath.Path(tmp_path))
    terminal.flush()
    assert rb"  0.50  \u0430\x1b[2Jxxx" in terminal.buffer.getvalue()
    assert rb"xxx... (2 images)" in terminal.buffer.getvalue()


def test_long_names_are_cut_between_synonyms():
    assert what_next._shortened("x" * 60) == "x" * 60
    assert what_next._shortened("x" * 61) == "x" * 57 + "..."
    assert what_next._shortened("x" * 55 + ", " + "y" * 9) == "x" * 55 + "..."
