# SPDX-License-Identifier: BSD-3-Clause
import html.parser
import json
import re

import pytest

from benchmarks.peers.generated_run import write_run
from mlimages_jax.report import command, page
from mlimages_jax.report.content import ReportError

NASTY = "</script><script>alert(1)</script><!-- 🐩 &amp; \u202etxt"


@pytest.fixture(autouse=True)
def no_library(monkeypatch):
    """Bundling Vega takes seconds; the tests in a browser use it."""
    monkeypatch.setattr(page, "_library", lambda: "")


class Parsed(html.parser.HTMLParser):
    """Texts of a page by the id of their section, its JSON, and the names of its elements."""

    def __init__(self, text):
        super().__init__()
        self.section, self.sections, self.data, self.elements = "", {}, "", []
        self.feed(text)
        self.close()
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append(tag)
        if tag in ("section", "script", "style"):
            self.section = attrs.get("id", tag)

    def handle_endtag(self, tag):
        if tag in ("section", "script", "style"):
            self.section = ""

    def handle_data(self, data):
        if self.section == "data":
            self.data += data
        self.sections[self.section] = self.sections.get(self.section, "") + data


def report_of(workdir, **options):
    command.report(str(workdir), **options)
    return Parsed((workdir / "report.html").read_text(encoding="utf-8"))


def test_a_finished_run_has_all_sections(tmp_path, capsys):
    told = report_of(write_run(tmp_path / "run", num_classes=40, examples=3))
    assert f"{tmp_path}/run/report.html: 0." in capsys.readouterr().out
    summary = told.sections["summary"]
    assert "200,000 of 200,000" in summary and "64 x TPU v5" in summary and "finished" in summary
    assert re.search(r"batch_size\s+\S\s+4096", summary)
    assert re.search(r"mAP_tail\s+0.21", summary)
    assert "76,485 seconds, 2 starts" in told.sections["time"]
    titles = {chart["layer"][-1]["encoding"]["y"]["title"] for chart in told.data["charts"]}
    assert {"loss", "learning rate", "images per second", "average precision"} <= titles
    assert "The calibration error is 0.0310" in told.sections["calibration"]
    assert told.elements.count("img") == 3
    assert "mlimages suspects" in told.sections["suspects"]


def test_the_tree_has_the_numbers_of_the_classes(tmp_path):
    tree = report_of(write_run(tmp_path / "run", num_classes=40, examples=3)).data["tree"]
    assert tree["parents"][:8] == [-1, 0, 0, 0, 0, 0, 0, 1]
    assert len(tree["names"]) == len(tree["columns"][0]["values"]) == 40
    main = [column["name"] for column in tree["columns"] if column["is_main"]]
    assert main == ["average precision", "positives", "training positives", "threshold"]
    assert tree["images"]["0"] == [0, 1, 2]  # the root is above every class


def test_names_cannot_become_elements(tmp_path):
    run = write_run(tmp_path / "run", num_classes=8, examples=4, names=[NASTY, "🐩 poodle"])
    plain = write_run(tmp_path / "plain", num_classes=8, examples=4)
    told = report_of(run)
    assert told.elements == report_of(plain).elements
    shown = NASTY.replace("\u202e", r"\u202e")
    assert told.data["tree"]["names"][:2] == [shown, "🐩 poodle"]
    assert shown in told.sections["extremes"]
    assert "\u202e" not in (run / "report.html").read_text(encoding="utf-8")


def test_a_run_that_is_going_on_says_what_comes_later(tmp_path):
    lines = [
        '{"step": 10, "training/loss": 0.5}',
        '{"step": 20, "training/loss": 0.4}',
        '{"step": 3',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    (tmp_path / "goodput.jsonl").write_text('{"start": 1, "ti')
    told = report_of(tmp_path)
    assert "step 20." in told.sections[""]
    assert "training: 0.5 at step 10, 0.4 at step 20" in (tmp_path / "report.html").read_text()
    for section in ("frequency", "classes", "extremes"):
        assert "mlimages evaluate" in told.sections[section]
    assert "goodput.jsonl" in told.sections["time"]
    assert told.data["tree"] is None


def test_half_lines_and_files_of_others_are_left_out(tmp_path):
    run = write_run(tmp_path / "run", num_classes=10, examples=2)
    table = run / "per_class.tsv"
    table.write_text(table.read_text()[:-30])
    (run / "metrics.json").write_text('{"mAP": 0.')
    (run / "goodput.jsonl").write_text(
        '{"start": 1, "time": 2, "restored": 0, "step": 1, "seconds": 3}'
    )
    (run / "examples.json").write_text('{"version": 7, "examples": []}')
    (run / "thresholds.tsv").write_text("nothing")
    told = report_of(run)
    assert told.data["tree"]["columns"][0]["values"][9] is None
    problems = told.sections[""]
    for name in ("metrics.json is no JSON", "examples.json has version 7", "thresholds.tsv:1"):
        assert name in problems


@pytest.mark.parametrize("content", ["", "nothing", "category_index\n0\tn0\t-1\t\n"])
def test_without_a_class_list_the_table_has_the_names(tmp_path, content):
    run = write_run(tmp_path / "run", num_classes=5, examples=1)
    (run / "dictionary.txt").write_text(content)
    told = report_of(run)
    assert told.data["tree"]["parents"] == [-1] * 5
    assert told.data["tree"]["names"][4] == "class number 4, a synonym"
    assert "without their hierarchy" in told.sections[""]


def test_classes_without_names_are_shown_by_their_ids(tmp_path):
    columns = "class\tid\timages\ttop1\ttop5\tname\n"
    (tmp_path / "per_class.tsv").write_text(columns + "1\tn1\t9\t0.5\t1.0\t\n0\t\t4\t0.25\t1.0\t\n")
    tree = report_of(tmp_path).data["tree"]
    assert tree["names"] == ["class 0", "n1"]
    assert tree["columns"][0] == {
        "name": "top-1 accuracy", "values": [0.25, 0.5], "is_main": True, "is_fraction": True,
    }  # fmt: skip


def test_two_runs_are_compared_by_the_ids_of_their_classes(tmp_path):
    table = "class\tid\timages\ttop1\ttop5\tname\n"
    for name, rows in (("a", "0\tx\t9\t0.5\t1.0\tX\n1\ty\t9\t0.5\t1.0\tY\n"),
                       ("b", "0\ty\t9\t0.2\t1.0\tY\n")):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        (folder / "per_class.tsv").write_text(table + rows)
        (folder / "metrics.jsonl").write_text('{"step": 1, "val/top1": 0.5}\n')
        (folder / "config.json").write_text(json.dumps({"batch_size": len(rows)}))
    told = report_of(tmp_path / "a", compare=str(tmp_path / "b"))
    column = told.data["tree"]["columns"][1]
    assert (column["name"], column["values"]) == ("difference", [None, 0.3])
    assert re.search(r"batch_size\s+\S\s+32\s+16", told.sections["summary"])
    assert re.search(r"Better than in b[^+]*Y\s+\+0.3000\s+9", told.sections["differences"])
    (chart,) = (chart for chart in told.data["charts"] if "strokeDash" in str(chart))
    assert chart["layer"][0]["encoding"]["strokeDash"]["sort"] == ["a", "b"]


def test_the_folder_of_an_evaluation_shows_its_latest_step(tmp_path):
    for step in (9, 10):
        write_run(tmp_path / str(step) / "val_whole_48", num_classes=step, examples=1)
    assert len(report_of(tmp_path).data["tree"]["names"]) == 10


def test_suspect_labels_without_their_images(tmp_path):
    header = "image\tclass\tid\tname\tprobability\tinstead\n"
    (tmp_path / "wrong_labels.tsv").write_text(header + "a.jpg\t0\tn0\tdog\t0.0100\tcat\n")
    told = report_of(tmp_path)
    assert re.search(r"a.jpg\s+dog\s+0.01\s+cat", told.sections["suspects"])
    assert told.elements.count("img") == 0
    (tmp_path / "wrong_labels.png").write_bytes(b"png")
    assert report_of(tmp_path).elements.count("img") == 1


def test_what_is_no_workdir(tmp_path):
    with pytest.raises(ReportError, match="there is no such folder"):
        command.report(str(tmp_path / "none"))
    with pytest.raises(ReportError, match="give the workdir of a training"):
        command.report(str(tmp_path))


def test_an_output_elsewhere(tmp_path):
    run = write_run(tmp_path / "run", num_classes=5, examples=1)
    command.report(str(run), output=str(tmp_path / "r.html"))
    assert (tmp_path / "r.html").is_file() and not (run / "report.html").exists()
