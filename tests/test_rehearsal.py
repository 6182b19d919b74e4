# SPDX-License-Identifier: BSD-3-Clause
"""The rehearsal of the whole data side, in small."""

import json
import sys

import pytest

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.records import parse_record
from tests.test_benchmarks import load


@pytest.fixture
def rehearse(monkeypatch, capsys, tmp_path):
    script = load("rehearsal")

    def run(images, *words):
        output = tmp_path / "rehearsal"
        arguments = ["--images", str(images), "--output", str(output), *map(str, words)]
        monkeypatch.setattr(sys, "argv", ["rehearsal.py", *arguments])
        script.main()
        return output, capsys.readouterr().out

    run.script = script
    return run


def cost(script, **values):
    return script.Cost(
        **({"seconds": 1, "cpu_seconds": 1, "peak_bytes": 1, "disk_bytes": 1} | values)
    )


def test_exponents_are_those_between_two_sizes(rehearse, capsys):
    script = rehearse.script
    sizes = {
        1_000: {"build": cost(script, cpu_seconds=2, peak_bytes=100)},
        10_000: {"build": cost(script, cpu_seconds=20, peak_bytes=100), "check": cost(script)},
    }
    script.print_table(sizes)
    lines = {line.split(" | ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["| build"].endswith(" 1.00 | 0.00 |")
    assert lines["| check"].endswith(" |  |  |") and lines["| lists"].count(" |  |") > 2


def test_another_number_of_images_needs_another_folder(rehearse, tmp_path):
    script = rehearse.script
    script.write_results(tmp_path / script.RESULTS, 10, {"lists": cost(script)})
    assert script.read_results(tmp_path / script.RESULTS, expected=10)["lists"].seconds == 1
    with pytest.raises(ValueError, match="a rehearsal of 10 images, not 20"):
        script.rehearse(tmp_path, 20, workers=0)


@pytest.mark.slow
def test_two_thousand_images_go_the_whole_way_once(rehearse):
    output, told = rehearse(2_000)
    results = output / rehearse.script.RESULTS
    before = results.read_text()
    steps = json.loads(before)["steps"]
    assert list(steps) == [step.__name__ for step in rehearse.script.STEPS]
    assert "| build | " in told and "batches_streams: open " in told

    data = DataSet.open(output / "data/rehearsal/released_320/1.0.0")
    counts = {split: data.num_records(split) for split in ("train", "val")}
    assert counts == {"train": 1980, "val": 20}
    records = data.records("train")
    found = [parse_record(records[i]) for i in range(0, len(records), 50)]
    assert len({record.jpeg for record in found}) == len(found)
    assert all(350 < len(record.jpeg) < 500 for record in found)
    assert len((output / "coverage/missing.tsv").read_text().splitlines()) == 1 + 200

    rehearse(2_000)
    assert results.read_text() == before  # nothing was done again
